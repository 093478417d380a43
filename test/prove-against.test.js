'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const { text } = require('node:stream/consumers');
const { prove } = require('../lib/prove');
const { find } = require('../lib/prove/rivals/redlock');
const { startServer } = require('./redis-servers');

const ROOT = path.join(__dirname, '..');
const BIN = path.join(ROOT, 'bin', 'holdfast.js');
const NAMES = ['blocked', 'killed', 'handover'];

/** Facts that must hold on Holdfast's side, whatever the machine. */
const MUST = {
  blocked: { insideAtOnce: 1, deposits: 3, depositsLost: 0, balance: 130, lost: false },
  killed: { gotIn: true, tooEarly: false },
  handover: { handOvers: 20, tooEarly: false },
};

/** A temporary folder for each test, in which a project of a user may be. */
function useProject() {
  const project = { folder: null };
  beforeEach(() => {
    project.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-test-'));
  });
  afterEach(() => fs.rmSync(project.folder, { recursive: true, force: true }));

  /** Installs what a user would. */
  project.install = (...names) => {
    fs.mkdirSync(path.join(project.folder, 'node_modules'));
    for (const name of names) {
      const from = path.join(ROOT, 'node_modules', name);
      fs.symlinkSync(from, path.join(project.folder, 'node_modules', name));
    }
  };

  project.start = (args) => {
    const env = { ...process.env, HOLDFAST_URL: '', DEBUG: '' };
    return spawn(process.execPath, [BIN, 'prove', ...args, '--against', 'redlock'], {
      cwd: project.folder, env, stdio: ['ignore', 'pipe', 'pipe'],
    });
  };

  project.run = async (args) => {
    const child = project.start(args);
    const [stdout, stderr, [code]] = await Promise.all(
      [text(child.stdout), text(child.stderr), once(child, 'close')],
    );
    return { stdout, stderr, code };
  };
  return project;
}

describe('the proof against redlock', function () {
  this.timeout(120_000);
  const project = useProject();
  let server;

  before(async () => {
    // One that may evict what it has: Holdfast keeps values on it only where it is asked to.
    server = await startServer({ config: { 'maxmemory-policy': 'allkeys-lru' } });
  });

  beforeEach(async () => {
    await server.send('SET', 'of the user', '1');
  });

  after(() => server?.stop());

  async function onlyTheUsersKeys() {
    assert.deepStrictEqual(await server.send('KEYS', '*'), ['of the user']);
  }

  it('shows the stolen lock beside the kept one, as JSON [slow]', async () => {
    project.install('redlock', 'ioredis');
    const { stdout, stderr, code } = await project.run([server.url(), '--json']);
    assert.strictEqual(stderr, '');
    const result = JSON.parse(stdout);
    for (const { name, error, holdfast } of result.trials) {
      assert.strictEqual(error, undefined, `${name}: ${error?.message}`);
      assert.deepStrictEqual(holdfast.broken, [], name);
    }
    assert.deepStrictEqual(result.trials.map(({ name }) => name), NAMES);
    for (const { name, redlock, holdfast, story, held } of result.trials) {
      for (const [fact, value] of Object.entries(MUST[name])) {
        assert.strictEqual(holdfast.facts[fact], value, `${name}: ${fact}`);
      }
      assert.strictEqual(held, true);
      assert.strictEqual(redlock.held, redlock.broken.length === 0);
      for (const told of story) {
        assert.deepStrictEqual(Object.keys(told), ['label', 'redlock', 'holdfast']);
      }
    }
    const [{ redlock, holdfast }] = result.trials;
    assert.ok(redlock.facts.insideAtOnce > 1, 'a lock that nobody extends is taken by another');
    assert.ok(redlock.facts.nextAfterMs < redlock.facts.blockedMs);
    assert.ok(holdfast.facts.nextAfterMs >= holdfast.facts.blockedMs);
    assert.match(result.against, /^redlock 5\.\S+ on ioredis \d+\.\S+$/);
    assert.strictEqual(result.held, true);
    assert.strictEqual(code, 0);
    await onlyTheUsersKeys();
  });

  it('is a page of plain text, and keeps to the prefix of the user [slow]', async () => {
    project.install('redlock', 'ioredis');
    await server.send('ACL', 'SETUSER', 'shop', 'on', '>pa55', '~{shop}:*', '&*', '+@all');
    const url = server.url({ prefix: '{shop}:' }).replace('//', '//shop:pa55@');
    const { stdout, stderr, code } = await project.run([url, '--only', 'killed,handover']);
    assert.strictEqual(stderr, '');
    const lines = stdout.trimEnd().split('\n');
    assert.match(stdout.replaceAll('\n', ' '), /with redlock 5\.\S+ on ioredis \S+, and with Holdfast/);
    assert.match(stdout, /1\. A holder of a lock with a TTL of 2 s, killed with SIGKILL\n/);
    assert.match(stdout, /2\. A lock that passes 20 times between two processes\n/);
    assert.match(stdout, /half take up to +\S+ ms, \S+ round trips/);
    assert.match(lines.at(-1), /^Holdfast kept 2 of 2 guarantees; redlock broke 0 of 2\. \(/);
    assert.deepStrictEqual(lines.filter((line) => line.length > 80), []);
    assert.ok(!stdout.includes('pa55'));
    assert.strictEqual(code, 0);
    await onlyTheUsersKeys();
  });

  it('tidies up when it is interrupted [slow]', async () => {
    project.install('redlock', 'ioredis');
    const child = project.start([server.url()]);
    await once(child.stdout, 'data');
    while (await server.send('DBSIZE') === 1);
    child.kill('SIGINT');
    const [code, signal] = await once(child, 'close');
    assert.deepStrictEqual([code, signal], [130, null]);
    await onlyTheUsersKeys();
  });
});

describe('the proof against redlock, where it cannot be played', () => {
  const project = useProject();

  it('says which of its modules are missing, and where [slow]', async () => {
    const url = 'redis://127.0.0.1:1';
    const bare = await project.run([url]);
    assert.match(bare.stderr, /^holdfast prove: redlock and ioredis cannot be found from \//);
    assert.match(bare.stderr, /'npm install redlock ioredis'\n$/);
    assert.strictEqual(bare.stdout, '');
    assert.strictEqual(bare.code, 1);
    project.install('redlock');
    const { stderr, code } = await project.run([url]);
    assert.match(stderr, /^holdfast prove: ioredis cannot be found from \//);
    assert.strictEqual(code, 1);
  });

  it('refuses other stores, other rivals, and trials that there are not', async () => {
    project.install('redlock', 'ioredis');
    const against = { against: 'redlock', project: project.folder };
    for (const url of [undefined, 'sqlite:./x.db', 'redis+cluster://h1,h2', 'nonsense']) {
      await assert.rejects(prove({ ...against, url }), { name: 'RangeError', message: /one Redis/ });
    }
    const url = 'redis://127.0.0.1:1';
    await assert.rejects(prove({ url, against: 'rope' }),
      { name: 'RangeError', message: /there is no 'rope' to play against/ });
    await assert.rejects(prove({ ...against, url, only: ['stock'] }),
      { name: 'RangeError', message: /they are blocked, killed, handover$/ });
  });

  it('names the versions that it has found', () => {
    project.install('redlock', 'ioredis');
    assert.match(find(project.folder).title, /^redlock 5\.0\.0-beta\.2 on ioredis \d+\.\d+\.\d+$/);
  });
});
