'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const { text } = require('node:stream/consumers');
const { open } = require('..');
const { redact } = require('../lib/prove/redact');
const { startQuorum, stopAll, useDeployment } = require('./redis-servers');
const { version } = require('../package.json');

const BIN = path.join(__dirname, '..', 'bin', 'holdfast.js');

describe('the command line', () => {
  let folder;

  beforeEach(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-test-'));
  });

  afterEach(() => {
    fs.rmSync(folder, { recursive: true, force: true });
  });

  async function holdfast(args, env = {}) {
    const child = spawn(process.execPath, [BIN, ...args], {
      cwd: folder,
      env: { ...process.env, HOLDFAST_URL: '', DEBUG: '', NODE_ENV: '', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const [stdout, stderr, [code]] = await Promise.all(
      [text(child.stdout), text(child.stderr), once(child, 'close')],
    );
    return { stdout, stderr, code };
  }

  /** A wrong command line: exit code 2; one line says what is wrong, one where help is. */
  async function assertUsage(args, message, env) {
    const { stdout, stderr, code } = await holdfast(args, env);
    const lines = stderr.split('\n');
    assert.match(lines[0], message, args.join(' '));
    assert.match(lines[1], /^Try 'holdfast( \w+)? --help'\.$/);
    assert.strictEqual(lines.length, 3, stderr);
    assert.deepStrictEqual([stdout, code], ['', 2]);
    return stderr;
  }

  /** A failure: exit code 1 and one line. */
  async function assertFailure(args, message, env) {
    const { stdout, stderr, code } = await holdfast(args, env);
    assert.match(stderr, message);
    assert.strictEqual(stderr.trimEnd().split('\n').length, 1, stderr);
    assert.strictEqual(code, 1);
    return stdout;
  }

  /** A database in the folder, open in this process while `fn` runs. */
  async function withDatabase(fn) {
    const hf = await open(`sqlite:${path.join(folder, 'holdfast.db')}`);
    try {
      return await fn(hf);
    } finally {
      await hf.close();
    }
  }

  describe('help', () => {
    it('tells the version', async () => {
      for (const flag of ['--version', '-V']) {
        assert.deepStrictEqual(await holdfast([flag]),
          { stdout: `${version}\n`, stderr: '', code: 0 });
      }
    });

    it('lists the commands and the exit codes', async () => {
      const { stdout, stderr, code } = await holdfast(['--help']);
      for (const name of ['prove', 'inspect', 'locks', 'ping', 'schema']) {
        assert.match(stdout, RegExp(`^  ${name} `, 'm'));
      }
      for (const exit of [0, 1, 2]) assert.match(stdout, RegExp(`^  ${exit}   `, 'm'));
      assert.deepStrictEqual([stderr, code], ['', 0]);
      assert.strictEqual((await holdfast(['-h'])).stdout, stdout);
      assert.strictEqual((await holdfast(['help'])).stdout, stdout);
    });

    for (const name of ['prove', 'inspect', 'locks', 'ping']) {
      it(`explains ${name}`, async () => {
        const { stdout, stderr, code } = await holdfast([name, '--help']);
        assert.match(stdout, RegExp(`^Usage: holdfast ${name} `));
        for (const word of ['Options', '--url URL', '--json', 'HOLDFAST_URL', 'Examples']) {
          assert.ok(stdout.includes(word), word);
        }
        assert.deepStrictEqual(stdout.split('\n').filter((line) => line.length > 100), []);
        assert.deepStrictEqual([stderr, code], ['', 0]);
        assert.strictEqual((await holdfast(['help', name])).stdout, stdout);
        assert.strictEqual((await holdfast([name, '-h'])).stdout, stdout);
      });
    }
  });

  it('schema prints one transaction, for the schema and the role that are named', async () => {
    const { stdout, stderr, code } = await holdfast(['schema', 'postgres', '--schema', 'shop_locks',
      '--role', 'the "shop"']);
    assert.deepStrictEqual([stderr, code], ['', 0]);
    assert.match(stdout, /^BEGIN;\n/);
    assert.match(stdout, /CREATE SCHEMA IF NOT EXISTS shop_locks;/);
    assert.match(stdout, /GRANT USAGE ON SCHEMA shop_locks TO "the ""shop""";/);
    assert.match(stdout, /\nCOMMIT;\n$/);
    assert.ok(!stdout.includes('holdfast.'));
    assert.match((await holdfast(['schema', '--help'])).stdout, /^Usage: holdfast schema postgres/);
  });

  describe('bad input', () => {
    it('is one line and exit code 2', async () => {
      await assertUsage([], /^holdfast: which command\?$/);
      await assertUsage(['shout'], /^holdfast: there is no command 'shout'$/);
      await assertUsage(['help', 'shout'], /there is no command 'shout'$/);
      await assertUsage(['constructor'], /there is no command/);
      await assertUsage(['ping', '--loud'], /^holdfast ping: unknown option '--loud'$/);
      await assertUsage(['ping', '--url'], /^holdfast ping: option '--url <value>' argument missing/);
      await assertUsage(['ping', '--json=yes'], /^holdfast ping: option '--json' does not take/);
      await assertUsage(['ping', 'a', 'b'], /unexpected argument 'b'$/);
      await assertUsage(['ping', 'sqlite:a', '--url', 'sqlite:b'], /named twice/);
      await assertUsage(['ping', ''], /the URL is empty$/);
      await assertUsage(['inspect'], /which key\?/);
      await assertUsage(['inspect', 'a', 'b'], /unexpected argument 'b'$/);
      await assertUsage(['inspect', 'a', '--url', 'memory:'], /memory: is the store of one process/);
      await assertUsage(['locks', 'a'], /unexpected argument 'a'$/);
      await assertUsage(['locks', '--url', 'memory:'], /memory: is the store of one process/);
      await assertUsage(['prove', 'memory:'], /memory: is a store of one process/);
      await assertUsage(['prove'], /memory: is a store of one process/, { HOLDFAST_URL: 'memory:' });
      await assertUsage(['prove', '--only', 'checkout,nap'], /there is no trial 'nap'/);
      await assertUsage(['schema'], /of which store\?/);
      await assertUsage(['schema', 'redis'], /there is no schema of 'redis'$/);
      await assertUsage(['schema', 'constructor'], /there is no schema/);
      await assertUsage(['schema', 'postgres', '--schema', 'A-b'], /--schema takes a name/);
      await assertUsage(['schema', 'postgres', '--role', ''], /--role takes the name/);
      await assertUsage(['schema', 'postgres', '--json'], /--json has no meaning here$/);
      await assertUsage(['schema', 'postgres', '--url', 'postgres:'], /--url has no meaning here$/);
    });

    it('is a URL or a key that the library refuses', async () => {
      for (const name of ['ping', 'prove']) {
        await assertUsage([name, 'nowhere'], /for a file write "sqlite:/);
        await assertUsage([name, 'ftp://example.org'], /there is no store for "ftp:"/);
        await assertUsage([name, 'sqlite:x?colour=red'], /has no parameter/);
      }
      await withDatabase(async () => {
        await assertUsage(['inspect', ''], /key must not be empty$/);
        await assertUsage(['inspect', 'k'.repeat(1025)], /key must be at most 1024 bytes/);
        await assertUsage(['locks', '--prefix', 'k'.repeat(1025)], /prefix must be at most 1024/);
      });
      assert.deepStrictEqual(fs.readdirSync(folder).filter((name) => name !== 'holdfast.db'), []);
    });

    it('never shows a password', async () => {
      const url = 'redis://user:hunter2@127.0.0.1:1/0?password=hunter2';
      const lines = [
        ['ping', url], ['prove', url], ['inspect', 'k', '--url', url], ['locks', '--url', url],
        ['ping', 'sqlite:a', url],
        [url], ['ping', `--ulr=${url}`], ['ping', url.replace('redis:', 'reddis')],
      ];
      for (const args of lines) {
        for (const DEBUG of ['', '1']) {
          const { stdout, stderr, code } = await holdfast([...args], { DEBUG });
          assert.ok(!`${stdout}${stderr}`.includes('hunter2'), `${args.join(' ')}: ${stderr}`);
          assert.notStrictEqual(code, 0);
        }
      }
    });
  });

  describe('failures', () => {
    it('are one line and exit code 1, and make no database', async () => {
      await assertFailure(['ping'], /^holdfast ping: there is no database at \.\/holdfast\.db$/m);
      await assertFailure(['inspect', 'k'], /^holdfast inspect: there is no database at/);
      await assertFailure(['locks'], /^holdfast locks: there is no database at/);
      await assertFailure(['prove', 'sqlite:./no/x.db'], /^holdfast prove: .*\(HF_ENOENT\)$/m);
      assert.deepStrictEqual(fs.readdirSync(folder), []);
    });

    it('are an object with --json', async () => {
      fs.writeFileSync(path.join(folder, 'x.db'), 'no database at all, but a letter'.repeat(40));
      const stdout = await assertFailure(['ping', 'sqlite:./x.db', '--json'], /\(HF_ENOTADB\)$/m);
      const { error } = JSON.parse(stdout);
      assert.strictEqual(error.code, 'HF_ENOTADB');
      assert.strictEqual(typeof error.message, 'string');
    });

    it('come with their stack if DEBUG is set', async () => {
      const { stderr, code } = await holdfast(['ping'], { DEBUG: '1' });
      assert.match(stderr, /^holdfast ping: Error: there is no database at .*\n +at /);
      assert.strictEqual(code, 1);
    });
  });

  describe('ping', () => {
    it('says how long the answer took', () => withDatabase(async () => {
      const { stdout, stderr, code } = await holdfast(['ping']);
      assert.match(stdout, /^sqlite:\.\/holdfast\.db answered in \d+\.\d ms\n$/);
      assert.deepStrictEqual([stderr, code], ['', 0]);
    }));

    it('takes the URL from argument, --url or HOLDFAST_URL', () => withDatabase(async () => {
      const url = `sqlite:${path.join(folder, 'holdfast.db')}`;
      const other = { HOLDFAST_URL: 'sqlite:./other.db' };
      const runs = [[['ping', url], other], [['ping', '--url', url], other],
        [['ping'], { HOLDFAST_URL: url }], [['ping', url.replace(':', '://')], other]];
      for (const [args, env] of runs) {
        const { stdout, code } = await holdfast([...args, '--json'], env);
        const { store, ms, ...rest } = JSON.parse(stdout);
        assert.strictEqual(store.replace('://', ':'), url);
        assert.ok(ms >= 0);
        assert.deepStrictEqual([rest, code], [{}, 0]);
      }
      assert.strictEqual((await holdfast(['ping'], other)).code, 1);
    }));

    it('works with memory:', async () => {
      assert.match((await holdfast(['ping', 'memory:'])).stdout, /^memory: answered in /);
    });
  });

  describe('inspect', () => {
    it('shows a holder, a record and a value, but not what they contain', () => withDatabase(
      async (hf) => {
        const lock = await hf.lock('key', { note: 'a\u001b[31mnote\u202e' });
        await hf.once('key', () => ({ secret: 'hunter2' }));
        const version_ = await hf.kv.put('key', Buffer.from('hunter2'));
        const asJson = await holdfast(['inspect', 'key', '--json']);
        const seen = JSON.parse(asJson.stdout);
        const [holder] = seen.lock.holders;
        assert.deepStrictEqual([seen.store, seen.key], ['sqlite:./holdfast.db', 'key']);
        assert.deepStrictEqual(Object.keys(holder).sort(),
          ['fence', 'host', 'mode', 'note', 'permits', 'pid', 'remaining', 'since']);
        assert.deepStrictEqual([holder.pid, holder.fence], [process.pid, lock.fence]);
        assert.ok(holder.remaining > 0 && holder.remaining <= 30_000);
        assert.deepStrictEqual([seen.record.state, seen.record.attempt], ['done', 1]);
        assert.deepStrictEqual(seen.value, { version: version_, type: 'bytes', bytes: 7 });
        const asPage = await holdfast(['inspect', 'key']);
        assert.match(asPage.stdout, RegExp(`held by process ${process.pid} on `));
        assert.match(asPage.stdout, /note +a\\u\{1b\}\[31mnote\\u\{202e\}$/m);
        assert.match(asPage.stdout, /^ {2}record {3}done$/m);
        assert.match(asPage.stdout, /^ {2}value {4}bytes, 7 bytes$/m);
        for (const { stdout, stderr, code } of [asJson, asPage]) {
          assert.ok(!stdout.includes('hunter2') && !stdout.includes(lock.token), stdout);
          assert.deepStrictEqual([stderr, code], ['', 0]);
        }
        await lock.release();
      },
    ));

    it('tells running, kept errors and results apart', () => withDatabase(async (hf) => {
      const state = async (key) => JSON.parse(
        (await holdfast(['inspect', key, '--json'])).stdout).record;
      const running = await hf.once('a', () => state('a'));
      assert.strictEqual(running.state, 'running');
      assert.ok(running.leaseLeft > 0);
      await assert.rejects(hf.once('b', { keepErrors: true }, () => {
        throw new Error('hunter2');
      }));
      const failed = await holdfast(['inspect', 'b', '--json']);
      assert.strictEqual(JSON.parse(failed.stdout).record.state, 'failed');
      assert.ok(!failed.stdout.includes('hunter2'));
      await hf.once('c', () => {});
      assert.strictEqual((await state('c')).state, 'done');
    }));

    it('knows nothing of a free key, and says so', () => withDatabase(async () => {
      const { stdout, code } = await holdfast(['inspect', '--json', '--', '-x']);
      assert.deepStrictEqual(JSON.parse(stdout),
        { store: 'sqlite:./holdfast.db', key: '-x', lock: null, record: null, value: null });
      assert.strictEqual(code, 0);
      assert.match((await holdfast(['inspect', 'x'])).stdout, /lock {5}free\n.*none\n.*none\n$/);
    }));

    it('shows how a lock is shared', () => withDatabase(async (hf) => {
      const locks = [await hf.lock('a', { permits: 3 }), await hf.lock('b', { mode: 'shared' })];
      assert.match((await holdfast(['inspect', 'a'])).stdout, /^ +mode +one of 3$/m);
      assert.match((await holdfast(['inspect', 'b'])).stdout, /^ +mode +shared$/m);
      const seen = JSON.parse((await holdfast(['inspect', 'b', '--json'])).stdout);
      const [{ mode, permits }] = seen.lock.holders;
      assert.deepStrictEqual([mode, permits], ['shared', null]);
      await Promise.all(locks.map((lock) => lock.release()));
    }));
  });

  describe('locks', () => {
    it('lists each holder, and no token', () => withDatabase(async (hf) => {
      const held = [
        await hf.lock('b/2', { note: 'a\u001b[31mnote' }), await hf.lock('a', { permits: 3 }),
        await hf.lock('a', { permits: 3 }), await hf.lock('b/1', { mode: 'shared' }),
        await hf.lock('tab\tkey'),
      ];
      const asPage = await holdfast(['locks']);
      const who = `process ${process.pid} on \\S+`;
      const lines = [
        `^a +${who} +one of 3 +\\d+\\.\\d s left$`, `^a +${who} +one of 3 +\\d+\\.\\d s left$`,
        `^b/1 +${who} +shared +\\d+\\.\\d s left$`,
        `^b/2 +${who} +exclusive +\\d+\\.\\d s left +a\\\\u\\{1b\\}\\[31mnote$`,
        `^tab\\\\u\\{9\\}key +${who} `,
      ];
      const shown = asPage.stdout.trimEnd().split('\n');
      assert.strictEqual(shown.length, lines.length);
      for (const [i, line] of lines.entries()) assert.match(shown[i], RegExp(line));

      const asJson = await holdfast(['locks', '--json', '--prefix', 'b/']);
      const seen = asJson.stdout.trimEnd().split('\n').map((line) => JSON.parse(line));
      assert.deepStrictEqual(seen.map(({ key, mode, permits, note }) => [key, mode, permits, note]),
        [['b/1', 'shared', null, ''], ['b/2', 'exclusive', 1, 'a\u001b[31mnote']]);
      assert.deepStrictEqual(Object.keys(seen[0]).sort(),
        ['fence', 'host', 'key', 'mode', 'note', 'permits', 'pid', 'remaining', 'since']);
      assert.strictEqual(seen[1].fence, held[0].fence);
      for (const { stdout, stderr, code } of [asPage, asJson]) {
        assert.ok(held.every(({ token }) => !stdout.includes(token)), stdout);
        assert.deepStrictEqual([stderr, code], ['', 0]);
      }
      await Promise.all(held.map((lock) => lock.release()));
    }));

    it('says that nothing is held', () => withDatabase(async () => {
      assert.deepStrictEqual(await holdfast(['locks', '--prefix', 'a']),
        { stdout: 'no lock is held on sqlite:./holdfast.db\n', stderr: '', code: 0 });
      assert.deepStrictEqual(await holdfast(['locks', '--json']),
        { stdout: '', stderr: '', code: 0 });
    }));

    it('lists more than a page, and ends with its reader', () => withDatabase(async (hf) => {
      const count = 2500;
      const held = await Promise.all(Array.from({ length: count }, (_, i) =>
        hf.lock(`k${i}`, { ttl: '1h', note: 'n'.repeat(200) })));
      const { stdout } = await holdfast(['locks']);
      assert.strictEqual(stdout.split('\n').length, count + 1);
      const child = spawn(process.execPath, [BIN, 'locks'], {
        cwd: folder, env: { ...process.env, HOLDFAST_URL: '' }, stdio: ['ignore', 'pipe', 'pipe'],
      });
      const stderr = text(child.stderr);
      await once(child.stdout, 'data');
      child.stdout.destroy();
      assert.deepStrictEqual(await once(child, 'close'), [128 + 13, null]);
      assert.strictEqual(await stderr, '');
      await Promise.all(held.map((lock) => lock.release()));
    }));
  });

  describe('on a quorum', () => {
    const scope = useDeployment(() => startQuorum());

    it('shows a lock and the nodes, and proves nothing', async () => {
      const env = { HOLDFAST_URL: scope.url({ fencing: true }) };
      const nodes = scope.deployment.servers.map(({ address }) => address);
      const hf = await open(env.HOLDFAST_URL);
      try {
        const lock = await hf.lock('key', { note: 'mine' });
        const { stdout } = await holdfast(['inspect', 'key', '--json'], env);
        const seen = JSON.parse(stdout);
        assert.strictEqual(seen.lock.holders[0].fence, lock.fence);
        assert.deepStrictEqual([seen.record, seen.value], [null, null]);
        assert.deepStrictEqual(seen.nodes, nodes.map((node) =>
          ({ node, state: 'voting', reason: null, until: null })));
        const page = (await holdfast(['inspect', 'key'], env)).stdout;
        for (const node of nodes) assert.match(page, RegExp(`^ {2}node {5}${node} voting$`, 'm'));
        assert.match((await holdfast(['locks'], env)).stdout, /key/);
        await lock.release();
        assert.match((await holdfast(['ping'], env)).stdout, / answered in \d/);
      } finally {
        await hf.close();
      }
      await assertUsage(['prove', env.HOLDFAST_URL], /a quorum keeps no values and no records/);
    });

    after(stopAll);
  });

  describe('redact', () => {
    const rows = [
      ['quorum:?maxTtl=5 redis://:pw@a redis://u:pw@b?db=1',
        'quorum:?maxTtl=*** redis://***@a redis://***@b?db=***'],
      ['redis://h:1/0', 'redis://h:1/0'],
      ['redis://user:pw@h:1/0', 'redis://***@h:1/0'],
      ['redis://:p@ss/w@h', 'redis://***@h'],
      ['postgres//user:pw@h', '***@h'],
      ['rediss://h/0?password=pw&db=1', 'rediss://h/0?password=***&db=***'],
      ['sqlite:./a@b.db', 'sqlite:./a@b.db'],
      ['memory:', 'memory:'],
    ];
    for (const [url, shown] of rows) {
      it(`shows ${url} as ${shown}`, () => assert.strictEqual(redact(url), shown));
    }
  });
});
