'use strict';

// What every store must do, as seen through the public interface. A store's test file calls this
// with its URLs; nothing here knows which one it is.

const assert = require('node:assert');
const { open, ...errors } = require('..');
const { modesConformance } = require('./conformance-modes');
const { deferred, random, until } = require('./helpers');

const { ConflictError, LockLostError, LockTimeoutError, StaleFenceError } = errors;

/**
 * @param {string} name of the store
 * @param {() => string} url of a store that is empty, or in which `prefix` is not used
 * @param {{ entries?: boolean, permits?: boolean }} [has] what not every store has
 */
function conformance(name, url, { entries = true, permits = true } = {}) {
  describe(`${name}: conformance`, () => {
    const scope = { hf: null, serial: 0, key: null, url, entries, permits };
    before(async () => { scope.hf = await open(url()); });
    after(() => scope.hf.close({ timeout: 0 }));
    beforeEach(() => { scope.key = `key-${++scope.serial}`; });

    describe('lock', () => lockTests(scope));
    describe('waiting', () => waitingTests(scope));
    describe('losing', () => losingTests(scope));
    describe('withLock', () => withLockTests(scope));
    if (entries) {
      describe('once', () => onceTests(scope));
      describe('once and its limits', () => onceLimitTests(scope));
      describe('kv', () => kvTests(scope));
      describe('kv with conditions', () => kvConditionTests(scope));
      describe('close, with runs', () => closeRunTests(url));
    }
    describe('close', () => closeTests(url));
    modesConformance(scope);
  });
}

function lockTests(scope) {
  it('is held from take to release', async () => {
    const lock = await scope.hf.lock(scope.key, { ttl: '20s', note: 'a note' });
    assert.deepStrictEqual([...lock.keys], [scope.key]);
    assert.match(lock.token, /^[0-9a-f]{32}$/);
    assert.ok(Number.isSafeInteger(lock.fence) && lock.fence > 0);
    assert.strictEqual(lock.held, true);
    assert.ok(lock.remaining() > 0 && lock.remaining() <= 20000);
    lock.assertHeld();
    const released = lock.release();
    assert.strictEqual(lock.held, false);
    assert.strictEqual(lock.remaining(), 0);
    assert.throws(() => lock.assertHeld(), LockLostError);
    assert.strictEqual(await released, true);
    assert.strictEqual(await lock.release(), false);
    assert.strictEqual(lock.signal.aborted, false);
  });

  it('gives each take a greater fence and another token', async () => {
    const seen = [];
    for (let i = 0; i < 20; i++) {
      const lock = await scope.hf.lock(scope.key);
      seen.push(lock);
      await lock.release();
    }
    const fences = seen.map((lock) => lock.fence);
    assert.deepStrictEqual(fences, [...new Set(fences)].sort((a, b) => a - b));
    assert.strictEqual(new Set(seen.map((lock) => lock.token)).size, 20);
  });

  it('never has two holders', async () => {
    let holders = 0;
    let most = 0;
    await Promise.all(Array.from({ length: 50 }, () => scope.hf.withLock(scope.key, async () => {
      most = Math.max(most, ++holders);
      await new Promise(setImmediate);
      holders--;
    })));
    assert.strictEqual(most, 1);
  });

  it('keeps different keys apart', async () => {
    const keys = ['a', 'A', 'ä', '💾', 'a/b', ' a', 'a'.repeat(1024), '%s%n', '\u0001'];
    const locks = await Promise.all(keys.map((key) => scope.hf.lock(`${key}`, { wait: 0 })));
    assert.ok(locks.every((lock) => lock.held));
    assert.ok((await Promise.all(locks.map((lock) => lock.release()))).every(Boolean));
  });

  it('is told of by inspect', async () => {
    assert.strictEqual(await scope.hf.inspect(scope.key), null);
    const lock = await scope.hf.lock(scope.key, { note: 'nightly – job' });
    const waiting = scope.hf.lock(scope.key);
    const info = await until(async () => {
      const found = await scope.hf.inspect(scope.key);
      return found.waiting === 1 && found;
    }, 'there is a waiter');
    const [holder] = info.holders;
    assert.strictEqual(info.holders.length, 1);
    assert.strictEqual(info.key, scope.key);
    assert.strictEqual(holder.note, 'nightly – job');
    assert.strictEqual(holder.pid, process.pid);
    assert.strictEqual(holder.host, require('node:os').hostname());
    assert.strictEqual(holder.token, lock.token);
    assert.strictEqual(holder.fence, lock.fence);
    assert.ok(holder.remaining > 0 && holder.remaining <= 30000);
    assert.ok(holder.since instanceof Date && holder.since.getTime() <= Date.now());
    await lock.release();
    await (await waiting).release();
    assert.strictEqual(await scope.hf.inspect(scope.key), null);
  });

  it('extends', async () => {
    const lock = await scope.hf.lock(scope.key, { ttl: 1000 });
    assert.strictEqual(await lock.extend('1h'), undefined);
    assert.ok(lock.remaining() > 1000);
    await lock.extend();
    assert.ok(lock.remaining() > 1000);
    await lock.release();
    await assert.rejects(lock.extend(1000), LockLostError);
  });

  it('disposes of itself', async () => {
    const lock = await scope.hf.lock(scope.key);
    await lock[Symbol.asyncDispose]();
    assert.strictEqual(lock.held, false);
    assert.strictEqual(await scope.hf.inspect(scope.key), null);
  });
}

function waitingTests(scope) {
  it('tryLock gives null while it is held', async () => {
    const lock = await scope.hf.tryLock(scope.key);
    assert.strictEqual(await scope.hf.tryLock(scope.key), null);
    await lock.release();
    await (await scope.hf.tryLock(scope.key)).release();
  });

  it('ends in an error that names the holder', async () => {
    const lock = await scope.hf.lock(scope.key, { note: 'mine' });
    const started = Date.now();
    const error = await scope.hf.lock(scope.key, { wait: 100 }).then(assert.fail, (it) => it);
    assert.ok(Date.now() - started >= 95);
    assert.ok(error instanceof LockTimeoutError);
    assert.strictEqual(error.name, 'LockTimeoutError');
    assert.strictEqual(error.code, 'HF_ETIMEDOUT');
    assert.strictEqual(error.retryable, true);
    assert.strictEqual(error.key, scope.key);
    assert.match(error.message, /held by this process \(mine\)/);
    assert.ok(error.heldFor >= 95);
    assert.strictEqual(error.holder.token, lock.token);
    await assert.rejects(scope.hf.lock(scope.key, { wait: 0 }), LockTimeoutError);
    await lock.release();
  });

  it('is not re-entrant', async () => {
    await scope.hf.withLock(scope.key, async () => {
      await assert.rejects(scope.hf.lock(scope.key, { wait: 50 }), /held by this process/);
    });
  });

  it('serves waiters in order', async () => {
    const first = await scope.hf.lock(scope.key);
    const served = [];
    const all = Array.from({ length: 100 }, async (_, i) => {
      const lock = await scope.hf.lock(scope.key, { wait: Infinity });
      served.push(i);
      await lock.release();
    });
    await first.release();
    await Promise.all(all);
    assert.deepStrictEqual(served, served.map((_, i) => i));
    assert.strictEqual(served.length, 100);
  });

  it('1,000 waiters stay in order when 500 of them give up', async () => {
    const seed = Date.now() % 2 ** 32;
    const next = random(seed);
    const first = await scope.hf.lock(scope.key);
    const served = [];
    const waiters = Array.from({ length: 1000 }, (_, i) => {
      const controller = new AbortController();
      const done = scope.hf.lock(scope.key, { wait: Infinity, signal: controller.signal })
        .then((lock) => (served.push(i), lock.release()));
      return { i, controller, done };
    });
    const quitters = [...waiters].sort(() => next() - 0.5).slice(0, 500);
    const reason = new Error('changed my mind');
    const settled = Promise.allSettled(waiters.map(({ done }) => done));
    for (const { controller } of quitters) controller.abort(reason);
    await first.release();
    const outcomes = await settled;
    const gone = new Set(quitters.map(({ i }) => i));
    const rest = waiters.map(({ i }) => i).filter((i) => !gone.has(i));
    assert.deepStrictEqual(served, rest, `seed ${seed}`);
    for (const i of gone) assert.strictEqual(outcomes[i].reason, reason, `seed ${seed}`);
    assert.strictEqual(await scope.hf.inspect(scope.key), null);
  });

  it('an aborted signal refuses at once', async () => {
    const reason = new Error('too late');
    await assert.rejects(scope.hf.lock(scope.key, { signal: AbortSignal.abort(reason) }), reason);
    await assert.rejects(scope.hf.lock(scope.key, { signal: AbortSignal.abort() }), {
      name: 'AbortError',
    });
    assert.strictEqual(await scope.hf.inspect(scope.key), null);
  });

  it('a signal ends the wait', async () => {
    const lock = await scope.hf.lock(scope.key);
    const controller = new AbortController();
    const waiting = scope.hf.lock(scope.key, { wait: Infinity, signal: controller.signal });
    controller.abort();
    await assert.rejects(waiting, { name: 'AbortError' });
    assert.strictEqual(lock.held, true);
    await lock.release();
    assert.strictEqual(await scope.hf.inspect(scope.key), null);
  });

  it('a signal that aborts after the take does nothing', async () => {
    const controller = new AbortController();
    const lock = await scope.hf.lock(scope.key, { signal: controller.signal });
    controller.abort();
    assert.strictEqual(lock.held, true);
    assert.strictEqual(await lock.release(), true);
  });

  it('aborting in any moment leaves nothing held', async () => {
    const seed = Date.now() % 2 ** 32;
    const next = random(seed);
    for (let i = 0; i < 100; i++) {
      const controller = new AbortController();
      const taken = scope.hf.lock(scope.key, { wait: Infinity, signal: controller.signal })
        .then((lock) => lock.release(), () => undefined);
      for (let turns = Math.floor(next() * 4); turns > 0; turns--) await new Promise(setImmediate);
      controller.abort();
      await taken;
    }
    const lock = await scope.hf.lock(scope.key);
    assert.ok(lock.held, `seed ${seed}`);
    await lock.release();
  });
}

function losingTests(scope) {
  it('without renewal it ends when its time is up', async () => {
    const lock = await scope.hf.lock(scope.key, { ttl: 100, renew: false });
    const lost = deferred();
    lock.signal.addEventListener('abort', lost.resolve);
    await lost.promise;
    assert.ok(lock.signal.reason instanceof LockLostError);
    assert.strictEqual(lock.signal.reason.key, scope.key);
    assert.strictEqual(lock.held, false);
    assert.strictEqual(lock.remaining(), 0);
    assert.throws(() => lock.assertHeld(), LockLostError);
    assert.strictEqual(await lock.release(), false);
    const next = await scope.hf.lock(scope.key);
    assert.ok(next.fence > lock.fence);
    await next.release();
  });

  it('a signal asked for after the loss is aborted already', async () => {
    const lock = await scope.hf.lock(scope.key, { ttl: 100, renew: false });
    await until(() => !lock.held, 'it is lost');
    await (await scope.hf.lock(scope.key)).release();
    assert.ok(lock.signal.aborted);
    assert.ok(lock.signal.reason instanceof LockLostError);
  });

  it('renewal keeps it far beyond its time', async () => {
    const lock = await scope.hf.lock(scope.key, { ttl: 300 });
    const started = Date.now();
    await until(() => Date.now() - started > 3000, 'ten times its TTL has passed');
    assert.strictEqual(lock.held, true);
    assert.strictEqual(await scope.hf.tryLock(scope.key), null);
    assert.strictEqual(await lock.release(), true);
  });

  it('maxHold ends it', async () => {
    // Where the machine is busy a renewal may come late: the TTL leaves it time.
    const lock = await scope.hf.lock(scope.key, { ttl: 600, maxHold: 900 });
    const started = Date.now();
    await until(() => lock.signal.aborted, 'it is lost');
    assert.ok(Date.now() - started >= 750);
    assert.match(lock.signal.reason.message, /maxHold/);
  });

  it('losing hundreds at once reaches each', async () => {
    const locks = await Promise.all(Array.from({ length: 300 }, (_, i) =>
      scope.hf.lock(`${scope.key}-${i}`, { ttl: 200, renew: false })));
    await until(() => locks.every((lock) => lock.signal.aborted), 'all are lost');
    assert.ok(locks.every((lock) => lock.signal.reason instanceof LockLostError));
  });
}

function withLockTests(scope) {
  it('returns what the function returns, and releases', async () => {
    let used;
    const result = await scope.hf.withLock(scope.key, (lock) => {
      used = lock;
      assert.ok(lock.held);
      return 42;
    });
    assert.strictEqual(result, 42);
    assert.strictEqual(used.held, false);
    assert.strictEqual(await scope.hf.withLock(scope.key, { wait: 0 }, async () => 'x'), 'x');
  });

  it('the error of the function wins', async () => {
    const mine = new Error('mine');
    await assert.rejects(scope.hf.withLock(scope.key, { ttl: 100, renew: false }, async (lock) => {
      await until(() => lock.signal.aborted, 'it is lost');
      throw mine;
    }), mine);
    await assert.rejects(scope.hf.withLock(scope.key, () => {
      throw mine;
    }), mine);
    assert.strictEqual(await scope.hf.inspect(scope.key), null);
  });

  it('a loss becomes an error that carries the result', async () => {
    const error = await scope.hf.withLock(scope.key, { ttl: 100, renew: false }, async (lock) => {
      await until(() => !lock.held, 'it is lost');
      return 'late';
    }).then(assert.fail, (it) => it);
    assert.ok(error instanceof LockLostError);
    assert.strictEqual(error.result, 'late');
    assert.strictEqual(error.key, scope.key);
  });

  it('a release within the function is no loss', async () => {
    assert.strictEqual(await scope.hf.withLock(scope.key, (lock) => lock.release()), true);
  });
}

function onceTests(scope) {
  it('runs once and replays', async () => {
    let runs = 0;
    const run = () => scope.hf.once(scope.key, () => ({ n: ++runs }));
    assert.deepStrictEqual(await run(), { n: 1 });
    assert.deepStrictEqual(await run(), { n: 1 });
    const detail = await scope.hf.once(scope.key, { detail: true }, () => assert.fail());
    assert.deepStrictEqual(detail, { value: { n: 1 }, replayed: true, attempt: 1 });
  });

  it('duplicates wait for the winner', async () => {
    let runs = 0;
    const gate = deferred();
    const all = Array.from({ length: 50 }, () => scope.hf.once(scope.key, { detail: true },
      async () => {
        runs++;
        await gate.promise;
        return 'done';
      }));
    await until(() => runs === 1, 'one of them runs');
    gate.resolve();
    const outcomes = await Promise.all(all);
    assert.strictEqual(runs, 1);
    assert.ok(outcomes.every(({ value }) => value === 'done'));
    assert.strictEqual(outcomes.filter(({ replayed }) => replayed).length, 49);
  });

  it('tells the function of its run', async () => {
    await scope.hf.once(scope.key, (run) => {
      assert.strictEqual(run.key, scope.key);
      assert.strictEqual(run.attempt, 1);
      assert.ok(run.fence > 0);
      assert.match(run.token, /^[0-9a-f]{32}$/);
      assert.strictEqual(run.signal.aborted, false);
    });
  });

  it('keeps values of every kind', async () => {
    const values = [undefined, null, 0, '', 'ä💾', true, [1, [2]], { a: { b: null } },
      Buffer.from([0, 255, 1]), Buffer.alloc(0), 'x'.repeat(1 << 20)];
    for (const [i, value] of values.entries()) {
      const key = `${scope.key}-${i}`;
      assert.deepStrictEqual(await scope.hf.once(key, () => value), value);
      assert.deepStrictEqual(await scope.hf.once(key, () => assert.fail()), value);
    }
  });

  it('an error leaves no record', async () => {
    const mine = new Error('mine');
    await assert.rejects(scope.hf.once(scope.key, () => {
      throw mine;
    }), mine);
    assert.strictEqual(await scope.hf.record(scope.key), null);
    assert.strictEqual(await scope.hf.once(scope.key, () => 5), 5);
  });

  it('keepErrors keeps an error and throws an equal one', async () => {
    class OwnError extends Error {
      get name() { return 'OwnError'; }
    }
    const kinds = [new TypeError('bad'), new OwnError('own'), 'a string',
      Object.assign(new Error('coded'), { code: 'E_CODE' })];
    for (const [i, thrown] of kinds.entries()) {
      const key = `${scope.key}-${i}`;
      const run = (fn) =>
        scope.hf.once(key, { keepErrors: true }, fn).then(assert.fail, (it) => it);
      assert.strictEqual(await run(() => Promise.reject(thrown)), thrown);
      const again = await run(() => assert.fail());
      assert.ok(again instanceof Error);
      assert.strictEqual(again.message, thrown.message ?? thrown);
      assert.strictEqual(again.name, thrown.name ?? 'Error');
      assert.strictEqual(again.code, thrown.code);
      assert.strictEqual(again instanceof TypeError, thrown instanceof TypeError);
      const record = await scope.hf.record(key);
      assert.strictEqual(record.state, 'done');
      assert.strictEqual(record.error.message, again.message);
    }
  });

  it('record and forget', async () => {
    assert.strictEqual(await scope.hf.record(scope.key), null);
    assert.strictEqual(await scope.hf.forget(scope.key), false);
    await scope.hf.once(scope.key, { ttl: '1h' }, async () => {
      const running = await scope.hf.record(scope.key);
      assert.strictEqual(running.state, 'running');
      assert.ok(running.leaseLeft > 0);
      assert.ok(!('value' in running));
      return 'x';
    });
    const record = await scope.hf.record(scope.key);
    assert.strictEqual(record.state, 'done');
    assert.strictEqual(record.value, 'x');
    assert.strictEqual(record.attempt, 1);
    assert.strictEqual(record.leaseLeft, 0);
    assert.ok(record.storedAt <= new Date());
    assert.ok(record.expiresAt > new Date(Date.now() + 3000000));
    assert.strictEqual(await scope.hf.forget(scope.key), true);
    assert.strictEqual(await scope.hf.once(scope.key, { ttl: Infinity }, () => 'y'), 'y');
    assert.strictEqual((await scope.hf.record(scope.key)).expiresAt, null);
  });

  it('idempotent makes a function of it', async () => {
    const calls = [];
    const charge = scope.hf.idempotent(function double(id, amount) {
      calls.push([this.name, id, amount]);
      return amount * 2;
    }, { key: (id) => `${scope.key}-${id}`, ttl: '1m' });
    const shop = { name: 'shop', charge };
    assert.strictEqual(await shop.charge('a', 5), 10);
    assert.strictEqual(await shop.charge('a', 6), 10);
    assert.strictEqual(await shop.charge('b', 7), 14);
    assert.deepStrictEqual(calls, [['shop', 'a', 5], ['shop', 'b', 7]]);
  });
}

function onceLimitTests(scope) {
  it('another fingerprint is a mismatch', async () => {
    const run = (fingerprint) => scope.hf.once(scope.key, { fingerprint }, () => 1);
    await run({ a: 1, b: [2, { d: 4, c: 3 }] });
    assert.strictEqual(await run({ b: [2, { c: 3, d: 4 }], a: 1 }), 1);
    for (const other of [{ a: 1 }, 'a', Buffer.from('a'), 1, null]) {
      await assert.rejects(run(other), errors.MismatchError);
    }
  });

  it('a duplicate that does not wait is told that it runs', async () => {
    const gate = deferred();
    const running = deferred();
    const first = scope.hf.once(scope.key, { lease: '10s' }, () => {
      running.resolve();
      return gate.promise;
    });
    await running.promise;
    for (const wait of [0, 50]) {
      const error = await scope.hf.once(scope.key, { wait }, assert.fail)
        .then(assert.fail, (it) => it);
      assert.ok(error instanceof errors.InProgressError);
      assert.ok(error.retryable);
      assert.ok(error.retryAfter > 0 && error.retryAfter <= 10000);
    }
    const controller = new AbortController();
    const waiting = scope.hf.once(scope.key, { signal: controller.signal }, assert.fail);
    controller.abort();
    await assert.rejects(waiting, { name: 'AbortError' });
    gate.resolve('x');
    assert.strictEqual(await first, 'x');
  });

  it('a run that was forgotten meanwhile is refused and carries its result', async () => {
    const error = await scope.hf.once(scope.key, async () => {
      await scope.hf.forget(scope.key);
      return 'orphan';
    }).then(assert.fail, (it) => it);
    assert.ok(error instanceof LockLostError);
    assert.strictEqual(error.result, 'orphan');
    assert.strictEqual(await scope.hf.record(scope.key), null);
    assert.strictEqual(await scope.hf.once(scope.key, () => 'new'), 'new');
  });

  it('a result that cannot be kept is an error, and does not run again', async () => {
    const results = [1n, () => {}, NaN, 'x'.repeat(2 << 20), Buffer.alloc(2 << 20)];
    for (const [i, result] of results.entries()) {
      const key = `${scope.key}-${i}`;
      const error = await scope.hf.once(key, () => result).then(assert.fail, (it) => it);
      assert.ok(error instanceof errors.HoldfastError);
      assert.strictEqual(error.code, i > 2 ? 'HF_ETOOBIG' : 'HF_EINVAL');
      assert.strictEqual(error.result, result);
      const again = await scope.hf.once(key, () => assert.fail('again'))
        .then(assert.fail, (it) => it);
      assert.ok(again instanceof errors.HoldfastError);
      assert.strictEqual(again.code, error.code);
    }
  });
}

function kvTests(scope) {
  it('stores, reads and deletes', async () => {
    const { kv } = scope.hf;
    assert.strictEqual(await kv.get(scope.key), null);
    const version = await kv.put(scope.key, { a: [1, 'ä', null] });
    assert.deepStrictEqual(await kv.get(scope.key), { value: { a: [1, 'ä', null] }, version });
    const bytes = Buffer.from([0, 1, 255]);
    const stored = kv.put(scope.key, bytes);
    bytes.fill(7); // it was copied
    await stored;
    const { value } = await kv.get(scope.key);
    assert.ok(Buffer.isBuffer(value));
    assert.deepStrictEqual([...value], [0, 1, 255]);
    assert.strictEqual(await kv.delete(scope.key), true);
    assert.strictEqual(await kv.delete(scope.key), false);
    assert.strictEqual(await kv.get(scope.key), null);
  });

  it('versions never come again', async () => {
    const { kv } = scope.hf;
    const versions = [];
    for (let i = 0; i < 5; i++) {
      versions.push(await kv.create(scope.key, i));
      versions.push(await kv.put(scope.key, i));
      await kv.delete(scope.key);
    }
    const sorted = [...new Set(versions)].sort((a, b) => a - b);
    assert.deepStrictEqual(versions, sorted);
  });

  it('holds a value of 1 MiB and no more', async () => {
    const { kv } = scope.hf;
    const most = Buffer.alloc(1 << 20, 1);
    await kv.put(scope.key, most);
    assert.ok((await kv.get(scope.key)).value.equals(most));
    await assert.rejects(kv.put(scope.key, Buffer.alloc((1 << 20) + 1)), RangeError);
    await assert.rejects(kv.put(scope.key, 'ä'.repeat(1 << 19)), RangeError);
    assert.ok((await kv.get(scope.key)).value.equals(most));
  });

  it('expires', async () => {
    const { kv } = scope.hf;
    await kv.put(scope.key, 1, { ttl: 100 });
    await until(async () => await kv.get(scope.key) === null, 'it has expired');
    await kv.create(scope.key, 2, { ttl: '1h' });
    await kv.put(scope.key, 3);
    assert.strictEqual((await kv.get(scope.key)).value, 3);
  });

  it('values, locks and records of one name are three things', async () => {
    const { hf, key } = scope;
    await hf.withLock(key, async () => {
      await hf.kv.put(key, 'value');
      await hf.once(key, () => 'outcome');
    });
    await hf.forget(key);
    assert.strictEqual((await hf.kv.get(key)).value, 'value');
  });

  it('increments', async () => {
    const { kv } = scope.hf;
    assert.strictEqual(await kv.increment(scope.key), 1);
    assert.strictEqual(await kv.increment(scope.key, 5), 6);
    assert.strictEqual(await kv.increment(scope.key, -10, { min: -4 }), -4);
    await assert.rejects(kv.increment(scope.key, -1, { min: -4 }), errors.BoundsError);
    await assert.rejects(kv.increment(scope.key, 9, { max: 4 }), errors.BoundsError);
    assert.strictEqual((await kv.get(scope.key)).value, -4);
    assert.strictEqual(await kv.increment(`${scope.key}-i`, 2, { initial: 40 }), 42);
    await kv.put(scope.key, Number.MAX_SAFE_INTEGER);
    await assert.rejects(kv.increment(scope.key, 1), errors.BoundsError);
    await kv.put(scope.key, 'text');
    await assert.rejects(kv.increment(scope.key), { code: 'HF_ETYPE' });
    const sums = await Promise.all(Array.from({ length: 100 }, () => kv.increment('counter', 1)));
    assert.deepStrictEqual(sums.sort((a, b) => a - b), sums.map((_, i) => i + 1));
  });
}

function kvConditionTests(scope) {
  it('create only where there is none', async () => {
    const { kv } = scope.hf;
    const version = await kv.create(scope.key, 1);
    const error = await kv.create(scope.key, 2).then(assert.fail, (it) => it);
    assert.ok(error instanceof ConflictError);
    assert.strictEqual(error.version, version);
    assert.strictEqual((await kv.get(scope.key)).value, 1);
  });

  it('writes only onto the version that was read', async () => {
    const { kv } = scope.hf;
    await assert.rejects(kv.put(scope.key, 1, { version: 1 }), ConflictError);
    const old = await kv.put(scope.key, 1);
    const present = await kv.put(scope.key, 2, { version: old });
    const error = await kv.put(scope.key, 3, { version: old }).then(assert.fail, (it) => it);
    assert.strictEqual(error.version, present);
    await assert.rejects(kv.delete(scope.key, { version: old }), ConflictError);
    assert.strictEqual((await kv.get(scope.key)).value, 2);
    assert.strictEqual(await kv.delete(scope.key, { version: present }), true);
    assert.strictEqual(await kv.delete(scope.key, { version: present }), false);
  });

  it('update loses no write', async () => {
    const { kv } = scope.hf;
    await Promise.all(Array.from({ length: 20 }, async () => {
      for (let i = 0; i < 5; i++) {
        await kv.update(scope.key, (n = 0) => n + 1, { retries: 1000 });
      }
    }));
    const { value, version } = await kv.get(scope.key);
    assert.strictEqual(value, 100);
    const done = await kv.update(scope.key, async (n) => `${n}`);
    assert.strictEqual(done.value, '100');
    assert.ok(done.version > version);
  });

  it('update gives up after its retries, and on an error of the function', async () => {
    const { kv } = scope.hf;
    let tries = 0;
    await assert.rejects(kv.update(scope.key, async () => {
      tries++;
      await kv.put(scope.key, tries);
      return 'mine';
    }, { retries: 3 }), ConflictError);
    assert.strictEqual(tries, 4);
    const mine = new Error('mine');
    await assert.rejects(kv.update(scope.key, () => Promise.reject(mine)), mine);
    await assert.rejects(kv.update(scope.key, () => undefined), TypeError);
    assert.strictEqual((await kv.get(scope.key)).value, 4);
  });

  it('update keeps the time of a value unless told otherwise', async () => {
    const { kv } = scope.hf;
    await kv.put(scope.key, 1, { ttl: 300 });
    await kv.update(scope.key, (n) => n + 1);
    await until(async () => await kv.get(scope.key) === null, 'it has expired');
    await kv.put(scope.key, 1, { ttl: 100 });
    await kv.update(scope.key, (n) => n + 1, { ttl: Infinity });
    const started = Date.now();
    await until(() => Date.now() - started > 200, 'its first time is over');
    assert.strictEqual((await kv.get(scope.key)).value, 2);
  });

  it('a fence refuses what is stale', async () => {
    const { hf, key } = scope;
    const old = await hf.lock(key);
    await old.release();
    const lock = await hf.lock(key);
    await hf.kv.put('guarded', 1, { fence: lock });
    for (const fence of [old, { key, fence: old.fence }]) {
      const error = await hf.kv.put('guarded', 2, { fence }).then(assert.fail, (it) => it);
      assert.ok(error instanceof StaleFenceError);
      await assert.rejects(hf.kv.update('guarded', () => 2, { fence }), StaleFenceError);
      await assert.rejects(hf.kv.increment('guarded', 2, { fence }), StaleFenceError);
      await assert.rejects(hf.kv.delete('guarded', { fence }), StaleFenceError);
    }
    await hf.kv.put('guarded', 3, { fence: { key, fence: lock.fence } });
    assert.strictEqual((await hf.kv.get('guarded')).value, 3);
    await hf.withLock(`${key}-other`, async (other) => {
      await assert.rejects(hf.kv.put('guarded', 4, { fence: other }), ConflictError);
    });
    await hf.kv.delete('guarded', { fence: lock });
    await assert.rejects(hf.kv.create('guarded', 5, { fence: old }), StaleFenceError);
    await hf.kv.create('guarded', 6, { fence: lock });
    await lock.release();
  });

  it('sweeps what has expired', async () => {
    const { hf, key } = scope;
    await Promise.all(Array.from({ length: 30 }, (_, i) =>
      hf.kv.put(`${key}-${i}`, i, { ttl: 1 })));
    await until(async () => await hf.kv.get(`${key}-29`) === null, 'they have expired');
    const swept = await hf.sweep();
    assert.ok(Number.isSafeInteger(swept) && swept >= 0);
    assert.ok(await hf.ping() >= 0);
  });
}

function closeTests(url) {
  it('refuses new work and ends waiters', async () => {
    const hf = await open(url());
    const lock = await hf.lock('closing');
    const waiting = hf.lock('closing', { wait: Infinity });
    const closed = hf.close({ timeout: '10s' });
    await assert.rejects(waiting, { code: 'HF_ECLOSED' });
    await assert.rejects(hf.lock('other'), { code: 'HF_ECLOSED' });
    await assert.rejects(hf.kv.get('other'), { code: 'HF_ECLOSED' });
    assert.strictEqual(lock.held, true);
    assert.strictEqual(await lock.release(), true);
    await closed;
    await hf.close();
    for (const call of [() => hf.lock('a'), () => hf.tryLock('a'), () => hf.inspect('a'),
      () => hf.once('a', () => 1), () => hf.record('a'), () => hf.forget('a'), () => hf.sweep(),
      () => hf.ping(), () => hf.kv.get('a'), () => hf.kv.put('a', 1), () => hf.kv.delete('a')]) {
      await assert.rejects(call(), { code: 'HF_ECLOSED' });
    }
  });

  it('releases what is left when the time is up', async () => {
    const hf = await open(url());
    const lock = await hf.lock('left');
    await hf.close({ timeout: 50 });
    assert.strictEqual(lock.held, false);
    assert.ok(lock.signal.reason instanceof LockLostError);
    assert.strictEqual(await lock.release(), false);
  });

  it('a second close may shorten the time', async () => {
    const hf = await open(url());
    const lock = await hf.lock('short');
    const first = hf.close({ timeout: Infinity });
    await hf.close({ timeout: 0 });
    await first;
    assert.strictEqual(lock.held, false);
  });

  it('disposes of itself', async () => {
    const hf = await open(url());
    await hf[Symbol.asyncDispose]();
    await assert.rejects(hf.ping(), { code: 'HF_ECLOSED' });
  });
}

function closeRunTests(url) {
  it('lets a run finish', async () => {
    const hf = await open(url());
    const gate = deferred();
    const running = deferred();
    const run = hf.once('finishing', () => {
      running.resolve();
      return gate.promise;
    });
    await running.promise;
    const closed = hf.close();
    gate.resolve('done');
    assert.strictEqual(await run, 'done');
    await closed;
  });
}

module.exports = { conformance };
