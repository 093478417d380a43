'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const { text } = require('node:stream/consumers');
const { open } = require('..');
const { prove } = require('../lib/prove');
const page = require('../lib/prove/page');
const { play } = require('../lib/cli/prove');

const BIN = path.join(__dirname, '..', 'bin', 'holdfast.js');
const NAMES = ['checkout', 'stock', 'nightly', 'killed', 'blocked'];

/** Facts that must hold on Holdfast's side, whatever the machine. */
const MUST = {
  checkout: { requests: 50, charges: 1, answered: 50, receipts: 1 },
  stock: { stock: 5, buyers: 20, sold: 5, left: 0 },
  nightly: { starters: 6, runs: 1, results: 1 },
  killed: { gotIn: true, tooEarly: false },
  blocked: { insideAtOnce: 1, deposits: 3, depositsLost: 0, balance: 130, lost: false },
};

describe('the proof', function () {
  this.timeout(120_000);
  let folder;

  beforeEach(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-test-'));
  });

  afterEach(() => {
    fs.rmSync(folder, { recursive: true, force: true });
  });

  /** Starts `holdfast prove` with temporary files in a folder of this test. */
  function start(args) {
    const env = { ...process.env, HOLDFAST_URL: '', DEBUG: '', TMPDIR: folder };
    return spawn(process.execPath, [BIN, 'prove', ...args], {
      cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  async function run(args) {
    const child = start(args);
    const [stdout, stderr, [code]] = await Promise.all(
      [text(child.stdout), text(child.stderr), once(child, 'close')],
    );
    return { stdout, stderr, code };
  }

  /** Processes that carry this test's folder in their environment. */
  function processesOf(name) {
    return fs.readdirSync('/proc').filter((pid) => {
      if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return false;
      try {
        return fs.readFileSync(`/proc/${pid}/environ`, 'utf8').includes(name);
      } catch {
        return false; // gone meanwhile
      }
    });
  }

  function fixture(source) {
    const file = path.join(folder, 'shop.js');
    fs.writeFileSync(file, source);
    return file;
  }

  function sinkhole() {
    const written = [];
    return { written, io: { stdout: { write: (s) => written.push(s) }, env: {} } };
  }

  it('holds, and says so as JSON [slow]', async () => {
    const { stdout, stderr, code } = await run(['--json']);
    assert.strictEqual(stderr, '');
    const result = JSON.parse(stdout);
    for (const { name, error, holdfast } of result.trials) {
      assert.strictEqual(error, undefined, `${name}: ${error?.message}`);
      assert.deepStrictEqual(holdfast.broken, [], name);
    }
    assert.deepStrictEqual(result.trials.map(({ name }) => name), NAMES);
    for (const { name, naive, holdfast, story, held, ms } of result.trials) {
      for (const [fact, value] of Object.entries(MUST[name])) {
        assert.strictEqual(holdfast.facts[fact], value, `${name}: ${fact}`);
      }
      assert.strictEqual(held, true);
      assert.strictEqual(holdfast.held, true);
      assert.strictEqual(naive.held, naive.broken.length === 0);
      assert.ok(ms > 0);
      assert.ok(story.length > 0);
      for (const told of story) {
        assert.deepStrictEqual(Object.keys(told), ['label', 'naive', 'holdfast']);
      }
    }
    assert.strictEqual(result.held, true);
    assert.strictEqual(result.temporary, true);
    assert.strictEqual(result.version, require('../package.json').version);
    assert.strictEqual(code, 0);
    assert.deepStrictEqual(fs.readdirSync(folder), [], 'nothing is left behind');
  });

  it('plays on a store of the user, as a page of plain text [slow]', async () => {
    const url = `sqlite:${path.join(folder, 'own.db')}`;
    const { stdout, stderr, code } = await run([url, '--only', 'stock,nightly']);
    assert.strictEqual(stderr, '');
    const lines = stdout.trimEnd().split('\n');
    assert.match(stdout, /1\. A stock of 5, bought by 20 processes\n/);
    assert.match(stdout, /2\. A nightly job, started by 6 processes\n/);
    assert.match(lines.at(-1),
      /^Holdfast kept 2 of 2 guarantees; the naive code broke [012] of 2\. \(\d+\.\d s\)$/);
    assert.ok(stdout.includes('own.db'));
    assert.deepStrictEqual(lines.filter((line) => line.length > 80), []);
    assert.ok(!stdout.includes('\x1b'), 'no colour in a pipe');
    assert.strictEqual(code, 0);
    const left = fs.readdirSync(folder).filter((name) => !name.startsWith('own.db'));
    assert.deepStrictEqual(left, []);
  });

  it('fails, with exit code 1, where a guarantee breaks [slow]', async () => {
    const shop = fixture(`
      const { randomUUID } = require('node:crypto');
      module.exports = {
        code: { naive: 'charge', holdfast: 'charge' },
        createShop: ({ charge }) => async (req, res) => {
          res.end(JSON.stringify(await charge({ amount: 1 })));
        },
      };`);
    const { written, io } = sinkhole();
    assert.strictEqual(await play({ only: 'checkout', json: true }, io, { shop }), 1);
    const result = JSON.parse(written.join(''));
    const [{ naive, holdfast, held }] = result.trials;
    assert.strictEqual(result.held, false);
    assert.strictEqual(held, false);
    assert.strictEqual(holdfast.facts.charges, 50);
    assert.deepStrictEqual(holdfast.broken, naive.broken, 'both sides have one standard');
    assert.match(page.verdict(result), /^NOT PROVEN: Holdfast kept 0 of 1 guarantees; see checkout\./);
    assert.match(page.trial(result.trials[0], 1), /BROKE: one order was/);
  });

  it('removes its keys from the store [slow]', async () => {
    const prefixes = path.join(folder, 'prefixes');
    const shop = fixture(`
      const { appendFileSync } = require('node:fs');
      const shop = require(${JSON.stringify(require.resolve('../lib/prove/shop'))});
      exports.code = shop.code;
      exports.createShop = (o) => {
        appendFileSync(${JSON.stringify(prefixes)}, o.prefix + '\\n');
        return shop.createShop(o);
      };`);
    const url = `sqlite:${path.join(folder, 'own.db')}`;
    const result = await prove({ url, shop, only: ['checkout'] });
    assert.strictEqual(result.held, true);
    const keys = [...new Set(fs.readFileSync(prefixes, 'utf8').trim().split('\n'))]
      .map((prefix) => `${prefix}/order-1001`);
    assert.deepStrictEqual(keys.map((key) => key.split('/')[3]).sort(), ['holdfast', 'naive']);
    const hf = await open(url);
    try {
      for (const key of keys) {
        assert.match(key, /^holdfast-prove\/[0-9a-f]{12}\//);
        assert.strictEqual(await hf.kv.get(key), null);
        assert.strictEqual(await hf.record(key), null);
      }
    } finally {
      await hf.close();
    }
  });

  it('counts a trial that cannot be played as not proven [slow]', async () => {
    const shop = fixture('module.exports = { createShop() { throw new Error("out of paper"); } };');
    const { written, io } = sinkhole();
    assert.strictEqual(await play({ only: 'checkout' }, io, { shop }), 1);
    assert.match(written.join(''), /could not be played: out of paper\n/);
  });

  it('tidies up when it is interrupted [slow]', async () => {
    const child = start([]);
    await once(child.stdout, 'data');
    assert.notDeepStrictEqual(processesOf(folder), []);
    child.kill('SIGINT');
    const [code, signal] = await once(child, 'close');
    assert.deepStrictEqual([code, signal], [130, null]);
    assert.deepStrictEqual(processesOf(folder), [], 'no process is left');
    assert.deepStrictEqual(fs.readdirSync(folder), [], 'no file is left');
  });

  it('ends quietly when its reader goes away [slow]', async () => {
    const child = start([]);
    await once(child.stdout, 'data');
    child.stdout.destroy();
    const [stderr, [code]] = await Promise.all([text(child.stderr), once(child, 'close')]);
    assert.deepStrictEqual([code, stderr], [141, '']);
    assert.deepStrictEqual(fs.readdirSync(folder), []);
  });

  it('refuses memory: and trials that it does not have', async () => {
    await assert.rejects(prove({ url: 'memory:' }), { name: 'RangeError', message: /one process/ });
    await assert.rejects(prove({ url: ['memory:'] }), RangeError);
    for (const only of [['stok'], [''], []]) {
      await assert.rejects(prove({ only }), { name: 'RangeError', message: /there is no trial/ });
    }
  });

  it('rejects where the store cannot be opened', async () => {
    const url = `sqlite:${path.join(folder, 'nowhere', 'own.db')}`;
    await assert.rejects(prove({ url }), { code: 'HF_ENOENT' });
  });
});

describe('the page of the proof', () => {
  const result = {
    name: 'stock',
    title: 'A stock',
    held: true,
    ms: 5,
    story: [{ label: 'sold', naive: '5 of 5', holdfast: '5 of 5' }],
    naive: { code: 'get', held: true, broken: [], facts: {} },
    holdfast: { code: 'increment', held: true, broken: [], facts: {} },
  };

  it('says that naive code was lucky', () => {
    assert.match(page.trial(result, 1), /^ {3}verdict {11}got lucky this time {11}held$/m);
  });

  it('adds colour and nothing else', () => {
    const { stripVTControlCharacters } = require('node:util');
    for (const part of ['head', 'trial', 'verdict']) {
      const about = { ...result, store: 'sqlite:x', trials: [result] };
      const args = part === 'trial' ? [about, 1] : [about];
      const plain = page[part](...args);
      const coloured = page[part](...args, { colour: true });
      assert.notStrictEqual(coloured, plain);
      assert.strictEqual(stripVTControlCharacters(coloured), plain);
    }
  });

  it('breaks long texts between words, and long words anywhere', () => {
    const code = `${'x'.repeat(40)} and then some more words to fill the cell`;
    const shown = page.trial({ ...result, holdfast: { ...result.holdfast, code } }, 1);
    for (const line of shown.split('\n')) assert.ok(line.length <= 80, line);
    assert.strictEqual(shown.match(/x/g).length, 40);
  });
});
