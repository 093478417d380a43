'use strict';

// Locks between processes, and what happens when JavaScript is stuck or a holder dies.

const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');
const { open, LockLostError } = require('..');
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
    await until(async () => (await hf.inspect('key')).waiters === 1, 'this process waits');
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
