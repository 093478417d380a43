'use strict';

// What every store must do with locks that several may hold, and with locks of several keys: the
// parts of test/conformance.js that are about these.

const assert = require('node:assert');
const { open, LockLostError, LockTimeoutError } = require('..');
const { deferred, random, until } = require('./helpers');

const SHARED = { mode: 'shared' };

const failure = (promise) => promise.then(assert.fail, (it) => it);
const releaseAll = (locks) => Promise.all(locks.map((lock) => lock.release()));

/** Waits until `count` callers wait for `key`. */
function untilWaiting(hf, key, count) {
  return until(async () => {
    const info = await hf.inspect(key);
    return info?.waiting === count && info;
  }, `${count} wait for ${key}`);
}

async function assertFree(hf, keys) {
  for (const key of keys) assert.strictEqual(await hf.inspect(key), null, `${key} is free`);
}

/** Asks for a lock; `served` is told when it comes, and it is released then. */
function ask(hf, key, options, served, name) {
  return hf.lock(key, { wait: Infinity, ...options }).then((lock) => {
    served.push(name);
    return lock.release();
  });
}

function leaveOut() {}

/** In place of `it`, for what needs counted locks. */
function counted(scope) {
  return scope.permits ? it : leaveOut;
}

function modeTests(scope) {
  it('shared holders hold it together, and exclude an exclusive one', async () => {
    const { hf, key } = scope;
    const first = await hf.lock(key, SHARED);
    const second = await hf.tryLock(key, SHARED);
    assert.strictEqual(second.held, true);
    assert.ok(second.fence > first.fence);
    assert.notStrictEqual(second.token, first.token);
    assert.strictEqual(await hf.tryLock(key), null);
    await first.release();
    assert.strictEqual(await hf.tryLock(key, { mode: 'exclusive' }), null);
    await second.release();
    const alone = await hf.tryLock(key);
    assert.strictEqual(await hf.tryLock(key, SHARED), null);
    await alone.release();
    await assertFree(hf, [key]);
  });

  counted(scope)('permits admit so many', async () => {
    const { hf } = scope;
    for (const permits of [1, 2, 7]) {
      const key = `${scope.key}-${permits}`;
      const held = [];
      for (let i = 0; i < permits; i++) held.push(await hf.lock(key, { permits, wait: 0 }));
      assert.strictEqual(await hf.tryLock(key, { permits }), null);
      await held.pop().release();
      held.push(await hf.tryLock(key, { permits }));
      assert.ok(held.every((lock) => lock.held));
      assert.strictEqual((await hf.inspect(key)).holders.length, permits);
      await releaseAll(held);
    }
  });

  counted(scope)('the smallest limit of holders and newcomer counts', async () => {
    const { hf, key } = scope;
    const held = [await hf.lock(key, { permits: 3 }), await hf.lock(key, { permits: 3 })];
    assert.strictEqual(await hf.tryLock(key, { permits: 2 }), null);
    assert.strictEqual(await hf.tryLock(key, { permits: 1 }), null);
    held.push(await hf.tryLock(key, SHARED));
    assert.strictEqual(held[2].held, true);
    // The limit of those who hold it binds newcomers that would allow more.
    for (const options of [SHARED, { permits: 100 }, { permits: 3 }]) {
      assert.strictEqual(await hf.tryLock(key, options), null);
    }
    await releaseAll(held);
    const readers = await Promise.all([1, 2, 3].map(() => hf.lock(key, SHARED)));
    assert.strictEqual(await hf.tryLock(key, { permits: 3 }), null);
    readers.push(await hf.tryLock(key, { permits: 4 }));
    assert.strictEqual(await hf.tryLock(key, SHARED), null);
    await releaseAll(readers);
  });

  counted(scope)('a waiter of another size gets it when enough have gone', async () => {
    const { hf, key } = scope;
    const held = [await hf.lock(key, { permits: 3 }), await hf.lock(key, { permits: 3 })];
    const waiting = hf.lock(key, { permits: 2, wait: Infinity });
    await untilWaiting(hf, key, 1);
    await held[0].release();
    const newcomer = await waiting;
    assert.ok(held[1].held && newcomer.held);
    await releaseAll([held[1], newcomer]);
  });

  it('admits by that rule alone, whatever the keys and sizes', async () => {
    const seed = Date.now() % 2 ** 32;
    const next = random(seed);
    const alone = (limit) => (scope.permits ? { permits: limit } : {});
    const pick = (list) => list[Math.floor(next() * list.length)];
    const limits = scope.permits ? [1, 2, 3, 5, Infinity] : [1, Infinity];
    const names = ['a', 'b', 'c'].map((name) => `${scope.key}-${name}`);
    const held = [];
    const outcomes = { taken: 0, refused: 0 };
    for (let step = 0; step < 400; step++) {
      if (held.length > 0 && next() < 0.45) {
        const [{ lock }] = held.splice(Math.floor(next() * held.length), 1);
        await lock.release();
      }
      const limit = pick(limits);
      const keys = names.filter(() => next() < 0.5);
      if (keys.length === 0) continue;
      const admitted = keys.every((key) => {
        const there = held.filter((each) => each.keys.includes(key));
        return there.length + 1 <= Math.min(limit, ...there.map((each) => each.limit));
      });
      const lock = await scope.hf.tryLock(keys, limit === Infinity ? SHARED : alone(limit));
      assert.strictEqual(lock !== null, admitted, `seed ${seed}, step ${step}`);
      if (lock !== null) held.push({ lock, keys, limit });
      outcomes[admitted ? 'taken' : 'refused']++;
    }
    await releaseAll(held.map(({ lock }) => lock));
    assert.ok(outcomes.taken > 20 && outcomes.refused > 20, `seed ${seed}`);
    await assertFree(scope.hf, names);
  });

  (scope.entries ? it : leaveOut)('a write may be guarded by a lock of one permit', async () => {
    const { hf, key } = scope;
    await hf.withLock([key], { permits: 1 }, async (fence) => {
      await hf.kv.put(key, 1, { fence });
    });
    await assert.rejects(hf.withLock(key, SHARED, (fence) => hf.kv.put(key, 2, { fence })),
      TypeError);
    assert.strictEqual((await hf.kv.get(key)).value, 1);
  });
}

function togetherTests(scope) {
  it('all who may share it get it at once', async () => {
    const { hf, key } = scope;
    const locks = await Promise.all(Array.from({ length: 50 }, () =>
      hf.lock(key, { ...SHARED, wait: 0 })));
    assert.ok(locks.every((lock) => lock.held));
    assert.strictEqual((await hf.inspect(key)).holders.length, 50);
    assert.strictEqual(new Set(locks.map((lock) => lock.token)).size, 50);
    assert.strictEqual(new Set(locks.map((lock) => lock.fence)).size, 50);
    await releaseAll(locks);
  });

  counted(scope)('of 10 that try at once, 5 permits let in 5', async () => {
    const { hf, key } = scope;
    const tries = await Promise.all(Array.from({ length: 10 }, () =>
      hf.tryLock(key, { permits: 5 })));
    const locks = tries.filter((lock) => lock !== null);
    assert.strictEqual(locks.length, 5);
    assert.strictEqual(await hf.tryLock(key, { permits: 5 }), null);
    await releaseAll(locks);
    await assertFree(hf, [key]);
  });

  counted(scope)('permits are all used, and never one more', async () => {
    const { hf, key } = scope;
    let inside = 0;
    let most = 0;
    const full = deferred();
    const work = async () => {
      most = Math.max(most, ++inside);
      // Nobody leaves before three are in.
      if (inside === 3) full.resolve();
      await full.promise;
      await new Promise(setImmediate);
      inside--;
    };
    await Promise.all(Array.from({ length: 30 }, () => hf.withLock(key, { permits: 3 }, work)));
    assert.strictEqual(most, 3);
  });

  it('a release lets in all readers that wait', async () => {
    const { hf, key } = scope;
    const writer = await hf.lock(key);
    const readers = Array.from({ length: 20 }, () => hf.lock(key, { ...SHARED, wait: Infinity }));
    await untilWaiting(hf, key, 20);
    await writer.release();
    const locks = await Promise.all(readers);
    assert.ok(locks.every((lock) => lock.held));
    await releaseAll(locks);
  });

  it('a writer is alone, readers are together', async () => {
    const { hf, key } = scope;
    const seed = Date.now() % 2 ** 32;
    const next = random(seed);
    const inside = { readers: 0, writers: 0 };
    let together = 0;
    await Promise.all(Array.from({ length: 120 }, (_, i) => {
      const kind = i % 20 < 2 || next() > 0.2 ? 'readers' : 'writers';
      return hf.withLock(key, kind === 'readers' ? SHARED : {}, async () => {
        inside[kind]++;
        together = Math.max(together, inside.readers);
        assert.ok(inside.writers === 0 || inside.writers + inside.readers === 1, `seed ${seed}`);
        for (let turns = Math.floor(next() * 4); turns >= 0; turns--) {
          await new Promise(setImmediate);
        }
        inside[kind]--;
      });
    }));
    assert.ok(together > 1, `seed ${seed}`);
  });
}

function orderTests(scope) {
  it('later readers do not overtake a writer that waits', async () => {
    const { hf, key } = scope;
    const served = [];
    const reader = await hf.lock(key, SHARED);
    const writer = ask(hf, key, {}, served, 'writer');
    const later = ask(hf, key, SHARED, served, 'reader');
    await untilWaiting(hf, key, 2);
    assert.strictEqual(await hf.tryLock(key, SHARED), null);
    assert.deepStrictEqual(served, []);
    await reader.release();
    await Promise.all([writer, later]);
    assert.deepStrictEqual(served, ['writer', 'reader']);
  });

  it('readers that keep coming do not starve a writer', async () => {
    const { hf, key } = scope;
    const state = { over: false };
    let reads = 0;
    const reading = Array.from({ length: 3 }, async () => {
      while (!state.over) {
        await hf.withLock(key, { ...SHARED, wait: Infinity }, async () => {
          reads++;
          for (let turns = 0; turns < 5; turns++) await new Promise(setImmediate);
        });
      }
    });
    await until(() => reads > 3, 'there are readers');
    for (let i = 0; i < 10; i++) {
      const before = reads;
      await hf.withLock(key, { wait: Infinity }, () => undefined);
      await until(() => reads > before, 'readers go on');
    }
    state.over = true;
    await Promise.all(reading);
  });

  it('who waits for two keys is not overtaken at the free one', async () => {
    const { hf, key } = scope;
    const [a, b] = [`${key}-a`, `${key}-b`];
    const served = [];
    const held = await hf.lock(a);
    const both = ask(hf, [a, b], {}, served, 'both');
    await untilWaiting(hf, b, 1);
    const later = ask(hf, b, {}, served, 'later');
    const info = await untilWaiting(hf, b, 2);
    assert.deepStrictEqual(info.holders, []);
    assert.strictEqual(await hf.tryLock(b), null);
    assert.deepStrictEqual(served, []);
    await held.release();
    await Promise.all([both, later]);
    assert.deepStrictEqual(served, ['both', 'later']);
    await assertFree(hf, [a, b]);
  });

  it('who is compatible with all ahead goes along with them', async () => {
    const { hf, key } = scope;
    const [a, b] = [`${key}-a`, `${key}-b`];
    const held = await hf.lock(b);
    const both = hf.lock([a, b], { ...SHARED, wait: Infinity });
    await untilWaiting(hf, a, 1);
    assert.strictEqual(await hf.tryLock(a), null);
    const along = await hf.tryLock(a, SHARED);
    assert.ok(along !== null, 'it takes nothing from the one ahead');
    await held.release();
    await releaseAll([await both, along]);
    await assertFree(hf, [a, b]);
  });

  it('who gives up is in nobody\'s way any more', async () => {
    const { hf, key } = scope;
    const [a, b] = [`${key}-a`, `${key}-b`];
    const held = await hf.lock(a);
    const controller = new AbortController();
    const quitter = hf.lock([a, b], { wait: Infinity, signal: controller.signal });
    const impatient = hf.lock([b, a], { wait: 100 });
    const last = hf.lock(b, { wait: Infinity });
    await untilWaiting(hf, b, 3);
    controller.abort();
    await assert.rejects(quitter, { name: 'AbortError' });
    await assert.rejects(impatient, LockTimeoutError);
    await (await last).release();
    await held.release();
    await assertFree(hf, [a, b]);
  });

  it('waiters of one key are served in order, however many more they wait for', async () => {
    const seed = Date.now() % 2 ** 32;
    const next = random(seed);
    const names = Array.from({ length: 5 }, (_, i) => `${scope.key}-${i}`);
    const gates = await Promise.all(names.map((name) => scope.hf.lock(name)));
    const inside = new Set();
    const served = [];
    const excludes = (one, other) => (one.options !== SHARED || other.options !== SHARED) &&
      one.keys.some((key) => other.keys.includes(key));
    const tickets = Array.from({ length: 150 }, (_, number) => {
      const first = Math.floor(next() * names.length);
      const keys = names.filter((_name, i) => i === first || next() < 0.25);
      if (next() < 0.5) keys.reverse();
      return { number, keys, options: next() < 0.4 ? SHARED : {} };
    });
    const done = tickets.map((ticket) =>
      scope.hf.withLock(ticket.keys, { ...ticket.options, wait: Infinity }, async () => {
        served.push(ticket);
        for (const other of inside) assert.ok(!excludes(ticket, other), `seed ${seed}`);
        inside.add(ticket);
        await new Promise(setImmediate);
        inside.delete(ticket);
      }));
    await releaseAll(gates);
    await Promise.all(done);
    assert.strictEqual(served.length, tickets.length);
    for (const [i, one] of served.entries()) {
      for (const later of served.slice(i + 1)) {
        assert.ok(later.number > one.number || !excludes(one, later),
          `${one.number} overtook ${later.number}; seed ${seed}`);
      }
    }
    await assertFree(scope.hf, names);
  });

  counted(scope)('inspect tells of those who wait, in order', async () => {
    const { hf, key } = scope;
    const other = `${key}-other`;
    const held = await hf.lock(key, { permits: 5, note: 'one of five' });
    const served = [];
    const asked = [[key, {}], [[other, key], SHARED], [key, { permits: 7 }]];
    const all = asked.map(([keys, options], i) =>
      ask(hf, keys, { ...options, note: `waiter ${i}` }, served, i));
    const { holders, waiters } = await untilWaiting(hf, key, 3);
    const [{ mode, permits, note }] = holders;
    assert.deepStrictEqual({ mode, permits, note },
      { mode: 'shared', permits: 5, note: 'one of five' });
    assert.ok(waiters.every(({ waited }) => Number.isSafeInteger(waited) && waited >= 0));
    assert.deepStrictEqual(waiters.map(({ waited: _, ...rest }) => rest), [
      { note: 'waiter 0', mode: 'exclusive', permits: 1 },
      { note: 'waiter 1', mode: 'shared', permits: null },
      { note: 'waiter 2', mode: 'shared', permits: 7 },
    ]);
    const waited = waiters.map((each) => each.waited);
    assert.deepStrictEqual(waited, [...waited].sort((x, y) => y - x));
    assert.deepStrictEqual((await hf.inspect(other)).waiters.map((each) => each.note),
      ['waiter 1']);
    await held.release();
    await Promise.all(all);
    assert.strictEqual(served[0], 0);
    await assertFree(hf, [key, other]);
  });

  it('inspect lists the first 1,000 of those who wait, and counts all', async () => {
    const { hf, key } = scope;
    const held = await hf.lock(key);
    const controller = new AbortController();
    const all = Promise.allSettled(Array.from({ length: 1010 }, (_, i) =>
      hf.lock(key, { wait: Infinity, signal: controller.signal, note: `${i}` })));
    const { waiting, waiters } = await untilWaiting(hf, key, 1010);
    assert.strictEqual(waiting, 1010);
    assert.deepStrictEqual(waiters.map(({ note }) => note),
      Array.from({ length: 1000 }, (_, i) => `${i}`));
    controller.abort();
    assert.ok((await all).every(({ status }) => status === 'rejected'));
    await held.release();
  });
}

function severalTests(scope) {
  const named = (...names) => names.map((name) => `${scope.key}-${name}`);

  it('takes all or nothing', async () => {
    const { hf } = scope;
    const keys = named('a', 'b', 'c');
    const held = await hf.lock(keys[1]);
    assert.strictEqual(await hf.tryLock(keys), null);
    await assert.rejects(hf.lock(keys, { wait: 50 }), LockTimeoutError);
    await assert.rejects(hf.withLock(keys, { wait: 0 }, assert.fail), LockTimeoutError);
    await assertFree(hf, [keys[0], keys[2]]);
    await held.release();
    await hf.withLock(keys, async (lock) => {
      assert.deepStrictEqual([...lock.keys], keys);
      for (const key of keys) {
        assert.strictEqual(await hf.tryLock(key), null);
        const [holder] = (await hf.inspect(key)).holders;
        assert.strictEqual(holder.token, lock.token);
        assert.strictEqual(holder.fence, lock.fence);
      }
    });
    await assertFree(hf, keys);
  });

  it('a release frees all', async () => {
    const { hf } = scope;
    const keys = named('a', 'b', 'c');
    const lock = await hf.lock(keys, { note: 'three' });
    const waiting = keys.map((key) => hf.lock(key, { wait: Infinity }));
    for (const key of keys) await untilWaiting(hf, key, 1);
    assert.strictEqual(await lock.release(), true);
    assert.strictEqual(lock.held, false);
    assert.strictEqual(await lock.release(), false);
    assert.throws(() => lock.assertHeld(), {
      message: `lock of "${keys[0]}", "${keys[1]}" and 1 more was released`, key: keys[0],
    });
    await releaseAll(await Promise.all(waiting));
    const tried = await hf.tryLock(keys);
    await tried[Symbol.asyncDispose]();
    await assertFree(hf, keys);
  });

  it('has a fence greater than each key had', async () => {
    const { hf } = scope;
    const keys = named('a', 'b', 'c');
    let newest = 0;
    for (let i = 0; i < 20; i++) {
      newest = Math.max(newest, await hf.withLock(keys[i % 2], (lock) => lock.fence));
    }
    const fence = await hf.withLock(keys, (lock) => lock.fence);
    assert.ok(fence > newest);
    for (const key of keys) assert.ok(await hf.withLock(key, (lock) => lock.fence) > fence);
  });

  it('a list of one key is that key', async () => {
    const { hf, key } = scope;
    await hf.withLock([key], async (lock) => {
      assert.deepStrictEqual([...lock.keys], [key]);
      assert.strictEqual(await hf.tryLock(key), null);
      const error = await failure(hf.lock([key], { wait: 0 }));
      assert.ok(error.message.startsWith(`the lock "${key}" was not free`), error.message);
    });
  });

  it('does not deadlock, in whatever order keys are named', async () => {
    const { hf } = scope;
    const forks = named('0', '1', '2', '3', '4');
    const taken = new Set();
    let meals = 0;
    await Promise.all(Array.from({ length: 50 }, (_, i) => {
      const pair = [forks[i % 5], forks[(i + 1) % 5]];
      if (i % 3 === 0) pair.reverse();
      return hf.withLock(pair, { wait: Infinity }, async () => {
        for (const fork of pair) {
          assert.ok(!taken.has(fork), 'a fork has one user');
          taken.add(fork);
        }
        await new Promise(setImmediate);
        for (const fork of pair) taken.delete(fork);
        meals++;
      });
    }));
    assert.strictEqual(meals, 50);
    await assertFree(hf, forks);
  });

  it('is renewed, extended and timed as one', async () => {
    const { hf } = scope;
    const keys = Array.from({ length: 64 }, (_, i) => `${scope.key}-${i}`);
    const lock = await hf.lock(keys, { ttl: 300 });
    const started = Date.now();
    await until(() => Date.now() - started > 1000, 'three times its TTL have passed');
    assert.strictEqual(lock.held, true);
    assert.ok(lock.remaining() > 0 && lock.remaining() <= 300);
    assert.strictEqual(await hf.tryLock(keys[63]), null);
    await lock.extend('1h');
    assert.ok(lock.remaining() > 300);
    for (const key of [keys[0], keys[31], keys[63]]) {
      const [{ remaining }] = (await hf.inspect(key)).holders;
      assert.ok(remaining > 300, key);
    }
    assert.strictEqual(await lock.release(), true);
    assert.strictEqual(lock.remaining(), 0);
    await assert.rejects(lock.extend(1000), LockLostError);
    await assertFree(hf, keys);
  });

  it('is lost as one', async () => {
    const { hf } = scope;
    const keys = named('a', 'b', 'c');
    const lock = await hf.lock(keys, { ttl: 100, renew: false });
    await until(() => lock.signal.aborted, 'it is lost');
    assert.ok(lock.signal.reason instanceof LockLostError);
    assert.strictEqual(lock.signal.reason.key, keys[0]);
    assert.strictEqual(lock.held, false);
    assert.strictEqual(lock.remaining(), 0);
    assert.throws(() => lock.assertHeld(), LockLostError);
    assert.strictEqual(await lock.release(), false);
    const next = await hf.lock([...keys].reverse());
    assert.ok(next.fence > lock.fence);
    await next.release();

    const error = await failure(hf.withLock(keys, { ttl: 100, renew: false }, async (held) => {
      await until(() => !held.held, 'it is lost');
      return 'late';
    }));
    assert.ok(error instanceof LockLostError);
    assert.strictEqual(error.result, 'late');
    assert.strictEqual(error.key, keys[0]);
  });

  it('shared holders of overlapping keys hold them together', async () => {
    const { hf } = scope;
    const [a, b, c] = named('a', 'b', 'c');
    const locks = [await hf.lock([a, b], SHARED), await hf.tryLock([b, c], SHARED)];
    assert.ok(locks.every((lock) => lock?.held));
    assert.strictEqual((await hf.inspect(b)).holders.length, 2);
    for (const key of [a, b, c]) assert.strictEqual(await hf.tryLock(key), null);
    assert.strictEqual(await hf.tryLock([a, c]), null);
    await locks[0].release();
    await (await hf.tryLock(a)).release();
    assert.strictEqual(await hf.tryLock([a, b]), null);
    await locks[1].release();
    await assertFree(hf, [a, b, c]);
  });
}

function vainTests(scope) {
  const named = (...names) => names.map((name) => `${scope.key}-${name}`);
  const HELD = 'held by this process \\(mine\\) for \\d+ ms \\(locks are not re-entrant\\)$';

  it('a timeout names the first keys, and who has one of them', async () => {
    const { hf } = scope;
    const [a, b, c, d] = named('a', 'b', 'c', 'd');
    const held = await hf.lock(b, { note: 'mine' });
    for (const [keys, name] of [
      [[a, b], `"${a}", "${b}"`],
      [[b, a, c], `"${b}", "${a}" and 1 more`],
      [[a, c, d, b], `"${a}", "${c}" and 2 more`],
    ]) {
      const error = await failure(hf.lock(keys, { wait: 50 }));
      assert.ok(error instanceof LockTimeoutError);
      assert.match(error.message,
        new RegExp(`^the lock of ${name} was not free within 50 ms: ${HELD}`));
      assert.strictEqual(error.key, keys[0]);
      assert.strictEqual(error.holder.token, held.token);
      assert.ok(error.heldFor >= 45);
    }
    await held.release();
  });

  it('and of a shared lock one of those who hold it', async () => {
    const { hf, key } = scope;
    const readers = [await hf.lock(key, { ...SHARED, note: 'mine' }),
      await hf.lock(key, { ...SHARED, note: 'mine' })];
    const error = await failure(hf.lock(key, { wait: 50 }));
    const start = `^the lock "${key}" was not free within 50 ms: `;
    assert.match(error.message, new RegExp(start + HELD));
    assert.ok(readers.some((lock) => lock.token === error.holder.token));
    assert.deepStrictEqual([error.holder.mode, error.holder.permits], ['shared', null]);
    await releaseAll(readers);

    if (!scope.permits) return;
    const workers = [await hf.lock(key, { permits: 2 }), await hf.lock(key, { permits: 2 })];
    const full = await failure(hf.lock(key, { permits: 2, wait: 0 }));
    assert.deepStrictEqual([full.holder.mode, full.holder.permits], ['shared', 2]);
    await releaseAll(workers);
  });

  it('and of those who hold some of the keys one who is in the way', async () => {
    const { hf } = scope;
    const [a, b] = named('a', 'b');
    const asked = [[a, { ...SHARED, note: 'a reader' }], [b, { note: 'mine' }]];
    for (const order of [asked, asked.toReversed()]) {
      const locks = [];
      for (const args of order) locks.push(await hf.lock(...args));
      const error = await failure(hf.lock([a, b], { ...SHARED, wait: 0 }));
      assert.strictEqual(error.holder.note, 'mine');
      assert.match(error.message, new RegExp(HELD));
      await releaseAll(locks);
    }
  });

  it('close ends those who wait for several keys', async () => {
    const hf = await open(scope.url());
    const lock = await hf.lock(['a', 'b']);
    const waiting = [hf.lock(['b', 'c'], { wait: Infinity }),
      hf.lock(['c', 'd'], { ...SHARED, wait: Infinity })];
    const ended = Promise.all(waiting.map((each) => assert.rejects(each, { code: 'HF_ECLOSED' })));
    const closed = hf.close({ timeout: '10s' });
    await ended;
    assert.strictEqual(lock.held, true);
    assert.strictEqual(await lock.release(), true);
    await closed;
  });
}

/** The parts, to be declared within the conformance suite of a store. */
function modesConformance(scope) {
  describe('modes', () => modeTests(scope));
  describe('together', () => togetherTests(scope));
  describe('order', () => orderTests(scope));
  describe('several keys', () => severalTests(scope));
  describe('waiting in vain', () => vainTests(scope));
}

module.exports = { modesConformance };
