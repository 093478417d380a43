'use strict';

// Locks between processes, and what happens when JavaScript is stuck or a holder dies.

const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');
const { open, LockLostError, LockTimeoutError } = require('..');
const { block, endChildren, start, until, useFolder } = require('./helpers');

describe('locks between processes', () => {
  const folder = useFolder();
  endChildren();
  let hf;
  let url;
  before(async () => {
    url = `sqlite:${path.join(folder.path, 'locks.db')}`;
    hf = await open(url);
  });
  after(() => hf.close({ timeout: 0 }));

  const holder = (options, then) => start(`
    const hf = await holdfast.open();
    const lock = await hf.lock('key', ${JSON.stringify(options)});
    say('held', { fence: lock.fence });
    ${then}
  `, url);

  it('names the process that holds it', async () => {
    const child = holder({ note: 'the other' }, 'await heard(\'go\');');
    const { fence } = await child.hear('held');
    const error = await hf.lock('key', { wait: 50 }).then(assert.fail, (it) => it);
    assert.strictEqual(error.holder.pid, child.pid);
    assert.strictEqual(error.holder.note, 'the other');
    assert.strictEqual(error.holder.fence, fence);
    assert.ok(error.heldFor >= 0);
    assert.match(error.message, new RegExp(`held by process ${child.pid} on .+ \\(the other\\)`));
    const [seen] = (await hf.inspect('key')).holders;
    assert.strictEqual(seen.pid, child.pid);
    child.tell('go');
    await child.ended;
  });

  it('passes from one process to another on release', async () => {
    const child = holder({ ttl: '1h' }, 'await heard(\'go\'); await lock.release();');
    const { fence } = await child.hear('held');
    const waiting = hf.lock('key', { wait: Infinity });
    await until(async () => (await hf.inspect('key')).waiting === 1, 'this process waits');
    child.tell('go');
    const lock = await waiting;
    assert.ok(lock.fence > fence);
    await lock.release();
    assert.strictEqual((await child.ended).code, 0);
  });

  it('a killed holder keeps it until its time is up, and no longer', async () => {
    const child = holder({ ttl: 700 }, 'await heard(\'go\');');
    await child.hear('held');
    await child.kill();
    const [{ remaining }] = (await hf.inspect('key')).holders;
    const started = performance.now();
    const lock = await hf.lock('key', { wait: Infinity });
    assert.ok(performance.now() - started >= remaining - 5);
    await lock.release();
  });

  it('a holder whose JavaScript is blocked keeps it', async () => {
    const child = holder({ ttl: 1000 }, `
      block(4000);
      say('after', { held: lock.held, remaining: lock.remaining() });
      say('released', { was: await lock.release() });
    `);
    await child.hear('held');
    while (child.said.length === 1) {
      const taken = await hf.tryLock('key');
      const over = child.said.length > 1;
      if (taken !== null) await taken.release();
      assert.ok(taken === null || over || await child.hear('after'));
      if (taken !== null) break;
    }
    const after = await child.hear('after');
    assert.strictEqual(after.held, true);
    assert.ok(after.remaining > 0);
    assert.strictEqual((await child.hear('released')).was, true);
  });

  it('maxStall gives up what a stuck process holds', async () => {
    const child = holder({ ttl: 300, maxStall: 500 }, `
      block(3000);
      const found = { held: lock.held, remaining: lock.remaining(), error: null };
      try { lock.assertHeld(); } catch (error) { found.error = error.code; }
      say('after', found);
      await new Promise(setImmediate);
      say('then', { aborted: lock.signal.aborted, reason: lock.signal.reason.message });
    `);
    await child.hear('held');
    const lock = await hf.lock('key', { wait: Infinity });
    assert.strictEqual(child.said.length, 1, 'it is taken while the other is still blocked');
    const after = await child.hear('after');
    assert.deepStrictEqual(
      { held: after.held, remaining: after.remaining, error: after.error },
      { held: false, remaining: 0, error: 'HF_ELOST' },
    );
    assert.strictEqual((await child.hear('then')).aborted, true);
    await lock.release();
  });

  it('a lease that ends within a synchronous function is known there', async () => {
    const lock = await hf.lock('sync', { ttl: 200, renew: false });
    assert.strictEqual(lock.held, true);
    block(250);
    assert.strictEqual(lock.held, false);
    assert.strictEqual(lock.remaining(), 0);
    assert.throws(() => lock.assertHeld(), LockLostError);
    assert.strictEqual(await lock.release(), false);
  });

  it('withLock tells of a lock that the store no longer had, and of the result', async () => {
    const file = path.join(folder.path, 'removed.db');
    const other = await open(`sqlite:${file}`);
    let used;
    const error = await other.withLock('key', { ttl: '1h' }, async (lock) => {
      used = lock;
      for (const end of ['', '-wal', '-shm']) fs.rmSync(file + end, { force: true });
      assert.strictEqual(lock.held, true); // as far as anybody here can know
      return 'done';
    }).then(assert.fail, (it) => it);
    assert.ok(error instanceof LockLostError, error.stack);
    assert.strictEqual(error.result, 'done');
    assert.strictEqual(error.key, 'key');
    assert.match(error.message, /"key" was lost: the store no longer had it/);
    assert.throws(() => used.assertHeld(), LockLostError);
    assert.ok(used.signal.aborted); // asked for after the loss
    await other.close();
  });

  it('a lock that JavaScript has dropped stays held', async () => {
    const child = start(`
      require('node:v8').setFlagsFromString('--expose-gc');
      const gc = require('node:vm').runInNewContext('gc');
      const hf = await holdfast.open();
      const dropped = new WeakRef(await hf.lock('key', { ttl: 300 }));
      await new Promise(setImmediate);
      gc();
      say('dropped', {});
      await heard('go');
      gc();
      say('found', { held: dropped.deref()?.held });
    `, url);
    await child.hear('dropped');
    await assert.rejects(hf.lock('key', { wait: 1000 }), { code: 'HF_ETIMEDOUT' });
    child.tell('go');
    assert.strictEqual((await child.hear('found')).held, true);
    assert.strictEqual((await child.ended).code, 0);
    await (await hf.lock('key')).release();
  });

  it('8 processes lose no update of a file', async () => {
    const file = path.join(folder.path, 'counter');
    fs.writeFileSync(file, '0');
    const worker = () => start(`
      const fs = require('node:fs');
      const hf = await holdfast.open();
      const fences = [];
      for (let i = 0; i < 100; i++) {
        await hf.withLock('counter', { wait: Infinity }, async (lock) => {
          const n = Number(fs.readFileSync(${JSON.stringify(file)}, 'utf8'));
          await new Promise(setImmediate);
          fs.writeFileSync(${JSON.stringify(file)}, String(n + 1));
          fences.push([n, lock.fence]);
        });
      }
      await hf.close();
      say('done', { fences });
    `, url);
    const workers = Array.from({ length: 8 }, worker);
    const done = await Promise.all(workers.map((child) => child.hear('done')));
    assert.strictEqual(fs.readFileSync(file, 'utf8'), '800');
    const inOrder = done.flatMap(({ fences }) => fences).sort(([a], [b]) => a - b);
    for (let i = 1; i < inOrder.length; i++) {
      assert.ok(inOrder[i][1] > inOrder[i - 1][1], 'fences follow the order of the writes');
    }
  });
});

describe('locks that several processes hold', () => {
  let hf;
  let url;
  // Before its folder goes: a store without one cannot be told what ends.
  after(() => hf.close({ timeout: 0 }));
  const folder = useFolder();
  endChildren();
  before(async () => {
    url = `sqlite:${path.join(folder.path, 'shared.db')}`;
    hf = await open(url);
  });

  const SHARED = { mode: 'shared' };
  const holder = (key, options, then = '') => start(`
    const hf = await holdfast.open();
    const lock = await hf.lock(${JSON.stringify(key)}, ${JSON.stringify(options)});
    say('held', { token: lock.token, fence: lock.fence });
    await heard('go');
    ${then}
  `, url);
  const passed = async (ms) => {
    const started = performance.now();
    await until(() => performance.now() - started > ms, `${ms} ms have passed`);
  };

  it('readers hold it together, and a writer waits for all of them', async () => {
    const child = holder('read', { ...SHARED, note: 'the reader' }, 'await lock.release();');
    const { token } = await child.hear('held');
    const mine = await hf.lock('read', { ...SHARED, wait: 0 });
    assert.strictEqual((await hf.inspect('read')).holders.length, 2);
    await mine.release();
    const error = await hf.lock(['free', 'read'], { wait: 50 }).then(assert.fail, (it) => it);
    assert.strictEqual(error.key, 'free');
    assert.strictEqual(error.holder.token, token);
    assert.deepStrictEqual([error.holder.mode, error.holder.permits], ['shared', null]);
    assert.match(error.message, new RegExp('^the lock of "free", "read" was not free within ' +
      `50 ms: held by process ${child.pid} on .+ \\(the reader\\) for \\d+ ms$`));
    const writer = hf.lock('read', { wait: Infinity });
    await until(async () => (await hf.inspect('read')).waiting === 1, 'this process waits');
    child.tell('go');
    await (await writer).release();
  });

  it('a writer that waits is named to later readers', async () => {
    const child = holder('named', { note: 'the reader', ...SHARED });
    await child.hear('held');
    const waiting = start(`
      const hf = await holdfast.open();
      await hf.lock(['named', 'free'], { wait: Infinity, note: 'the writer' });
      say('held', {});
      await heard('go');
    `, url);
    // Refused though nobody holds it: by the mark that the writer has left.
    const error = await until(() => hf.lock('free', { ...SHARED, wait: 0 })
      .then((lock) => lock.release().then(() => null), (it) => it), 'a reader is refused');
    assert.ok(error instanceof LockTimeoutError);
    assert.strictEqual(waiting.said.length, 0);
    assert.strictEqual(await hf.inspect('free'), null);
    assert.strictEqual(error.holder, null); // who waits is none
    assert.strictEqual(error.heldFor, null);
    assert.match(error.message, new RegExp('^the lock "free" was not free within 0 ms: ' +
      `process ${waiting.pid} on .+ \\(the writer\\) waits to hold it alone, and goes first$`));
    assert.strictEqual(await hf.tryLock('named', SHARED), null);
    child.tell('go');
    await waiting.hear('held');
  });

  it('readers of another process that keep coming do not starve a writer', async () => {
    // At any time there is a reader, unless newcomers are refused.
    const child = start(`
      const hf = await holdfast.open();
      let lock = await hf.lock('busy', { mode: 'shared' });
      say('reading', {});
      for (;;) {
        const next = hf.lock('busy', { mode: 'shared', wait: Infinity });
        let mine = null;
        next.then((it) => { mine = it; });
        await new Promise((resolve) => setTimeout(resolve, 20));
        if (mine === null) await Promise.race([next, new Promise((go) => setTimeout(go, 300))]);
        await lock.release();
        lock = await next;
      }
    `, url);
    await child.hear('reading');
    for (let i = 0; i < 3; i++) {
      const lock = await hf.lock('busy', { wait: Infinity });
      assert.strictEqual(lock.held, true);
      await lock.release();
      await until(async () => (await hf.inspect('busy')) !== null, 'they read again');
    }
  });

  it('nor do readers that hold it long', async () => {
    const child = holder('long', SHARED, 'await lock.release();');
    await child.hear('held');
    const writer = hf.lock('long', { wait: Infinity });
    const other = await open(url);
    const refused = async () => {
      const lock = await other.tryLock('long', SHARED);
      if (lock !== null) await lock.release();
      return lock === null;
    };
    await until(refused, 'the writer has said that it waits');
    // Longer than what it said can last by itself.
    await passed(2500);
    assert.strictEqual(await refused(), true);
    child.tell('go');
    await (await writer).release();
    await other.close();
  });

  it('permits count over all processes', async () => {
    const inside = path.join(folder.path, 'inside');
    fs.mkdirSync(inside);
    const worker = () => start(`
      const fs = require('node:fs');
      const file = ${JSON.stringify(`${inside}/`)} + process.pid;
      const hf = await holdfast.open();
      let most = 0;
      for (let i = 0; i < 40; i++) {
        await hf.withLock('desk', { permits: 2, wait: Infinity }, async () => {
          fs.writeFileSync(file, '');
          most = Math.max(most, fs.readdirSync(${JSON.stringify(inside)}).length);
          await new Promise(setImmediate);
          fs.unlinkSync(file);
        });
      }
      await hf.close();
      say('done', { most });
    `, url);
    // One of the two places is taken all the time.
    const lock = await hf.lock('desk', { permits: 2 });
    const alone = await Promise.all([worker(), worker()].map((child) => child.hear('done')));
    assert.deepStrictEqual(alone.map(({ most }) => most), [1, 1]);
    await lock.release();
    const done = await Promise.all([1, 2, 3, 4].map(() => worker().hear('done')));
    assert.ok(done.every(({ most }) => most === 1 || most === 2), JSON.stringify(done));
  });

  it('writers exclude readers and writers of all processes', async () => {
    const file = path.join(folder.path, 'page');
    fs.writeFileSync(file, '0');
    const worker = (seed) => start(`
      const fs = require('node:fs');
      const { random } = require(${JSON.stringify(path.join(__dirname, 'helpers.js'))});
      const next = random(${seed});
      const file = ${JSON.stringify(file)};
      const hf = await holdfast.open();
      const found = { writes: 0, torn: 0 };
      for (let i = 0; i < 80; i++) {
        const mode = next() < 0.3 ? 'exclusive' : 'shared';
        await hf.withLock('page', { mode, wait: Infinity }, async () => {
          const before = fs.readFileSync(file, 'utf8');
          if (mode === 'exclusive') fs.writeFileSync(file, 'being written');
          await new Promise(setImmediate);
          if (mode === 'exclusive') {
            fs.writeFileSync(file, String(Number(before) + 1));
            found.writes++;
          } else if (!/^\\d+$/.test(before) || fs.readFileSync(file, 'utf8') !== before) {
            found.torn++;
          }
        });
      }
      await hf.close();
      say('done', found);
    `, url);
    const seed = Date.now() % 2 ** 32;
    const done = await Promise.all([0, 1, 2, 3].map((i) => worker(seed + i).hear('done')));
    const writes = done.reduce((sum, each) => sum + each.writes, 0);
    assert.ok(writes > 0, `seed ${seed}`);
    assert.deepStrictEqual(done.map(({ torn }) => torn), [0, 0, 0, 0], `seed ${seed}`);
    assert.strictEqual(fs.readFileSync(file, 'utf8'), String(writes), `seed ${seed}`);
  });

  it('processes that take two keys each, in any order, neither overlap nor block', async () => {
    const accounts = ['a', 'b', 'c'].map((name) => path.join(folder.path, `account-${name}`));
    for (const account of accounts) fs.writeFileSync(account, '100');
    const worker = (seed) => start(`
      const fs = require('node:fs');
      const { random } = require(${JSON.stringify(path.join(__dirname, 'helpers.js'))});
      const next = random(${seed});
      const accounts = ${JSON.stringify(accounts)};
      const read = (account) => Number(fs.readFileSync(account, 'utf8'));
      const hf = await holdfast.open();
      for (let i = 0; i < 60; i++) {
        const from = Math.floor(next() * 3);
        const pair = [accounts[from], accounts[(from + 1 + Math.floor(next() * 2)) % 3]];
        await hf.withLock(pair, { wait: Infinity }, async () => {
          const had = pair.map(read);
          await new Promise(setImmediate);
          fs.writeFileSync(pair[0], String(had[0] - 1));
          fs.writeFileSync(pair[1], String(had[1] + 1));
        });
      }
      await hf.close();
      say('done', {});
    `, url);
    const seed = Date.now() % 2 ** 32;
    await Promise.all([0, 1, 2, 3].map((i) => worker(seed + i).hear('done')));
    const left = accounts.map((account) => Number(fs.readFileSync(account, 'utf8')));
    assert.strictEqual(left[0] + left[1] + left[2], 300, `seed ${seed}`);
  });

  it('a killed holder of several keys keeps all of them until its time is up', async () => {
    const child = holder(['x', 'y'], { ttl: 700 });
    const { fence } = await child.hear('held');
    await child.kill();
    for (const key of ['x', 'y', ['y', 'z']]) assert.strictEqual(await hf.tryLock(key), null);
    const lock = await hf.lock(['z', 'y', 'x'], { wait: Infinity });
    assert.ok(lock.fence > fence);
    await lock.release();
  });
});

describe('a release without memory', () => {
  endChildren();

  // What the addon answers then, in a process that ends with it. The core's part is tested in C.
  const without = (program) => start(`
    const binding = require(${JSON.stringify(path.join(__dirname, '../lib/binding.js'))});
    binding.release = () => binding.constants.RELEASE_NOMEM;
    const hf = await holdfast.open();
    ${program}
    process.exit(0);
  `, 'memory:');

  it('says so, not that the lock was lost', async () => {
    const child = without(`
      const lock = await hf.lock('key');
      const released = lock.release();
      const { held } = lock;
      const { code, key, message } = await released.then(() => ({}), (error) => error);
      const found = { held, code, key, message, aborted: lock.signal.aborted };
      try { lock.assertHeld(); } catch (error) { found.asserted = error.message; }
      say('done', { ...found, again: await lock.release() });
    `);
    assert.deepStrictEqual(await child.hear('done'), {
      event: 'done',
      held: false,
      code: 'HF_ENOMEM',
      key: 'key',
      message: 'out of memory while releasing the lock "key": it is no longer held, and its ' +
        'lease ends by itself',
      aborted: false,
      asserted: 'lock "key" was released',
      again: false,
    });
  });

  it('does not mask the result of withLock, nor becomes an unhandled rejection', async () => {
    const child = without(`
      process.on('unhandledRejection', ({ message }) => say('unhandled', { message }));
      hf.on('error', ({ code }) => say('problem', { code }));
      (await hf.lock('dropped')).release();
      say('done', { result: await hf.withLock('key', () => 42) });
      await new Promise(setImmediate);
    `);
    assert.strictEqual((await child.hear('done')).result, 42);
    await child.ended;
    assert.deepStrictEqual(child.said, [
      { event: 'problem', code: 'HF_ENOMEM' }, { event: 'done', result: 42 },
    ]);
  });
});
