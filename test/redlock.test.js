'use strict';

// What users of redlock 5 and 4 rely on: the same tests run with the packages themselves and with
// holdfast/redlock.

const assert = require('node:assert/strict');
const bluebird = require('bluebird');
const redlock5 = require('redlock');
const redlock4 = require('redlock4');
const drop = require('holdfast/redlock');
const { until } = require('./helpers');
const { QUICK, useServers } = require('./redlock-harness');
const { failure } = require('./redis-harness');
const { stopAll } = require('./redis-servers');

after(stopAll);

const NO_QUORUM = 'The operation was unable to achieve a quorum during its retry window.';

for (const count of [1, 3]) {
  const majority = Math.floor(count / 2) + 1;

  for (const [name, module] of [['redlock 5', redlock5], ['holdfast/redlock', drop]]) {
    describe(`${name}, as redlock 5, ${count} server${count > 1 ? 's' : ''}`, () => {
      const { default: Redlock, ExecutionError, ResourceLockedError, Lock } = module;
      const scope = useServers(count);
      const make = (settings) => scope.connected(Redlock, { ...QUICK, ...settings });

      it('keeps each resource under its name, all or none', async () => {
        const redlock = await make();
        const before = Date.now();
        const lock = await redlock.acquire(['locks:a', 'locks:b'], 20_000);
        assert.ok(lock instanceof Lock);
        assert.equal(lock.redlock, redlock);
        assert.deepEqual(lock.resources, ['locks:a', 'locks:b']);
        assert.match(lock.value, /^[0-9a-f]{32}$/);
        assert.ok(lock.expiration >= before + 20_000 - 202 - 2);
        assert.ok(lock.expiration <= Date.now() + 20_000 - 202);
        for (const key of lock.resources) await scope.has(key, lock.value);
        await assert.rejects(redlock.acquire(['locks:c', 'locks:b'], 1000, { retryCount: 0 }),
          { name: 'ExecutionError', message: NO_QUORUM });
        await scope.gone('locks:c');
        await lock.release();
        assert.equal(lock.expiration, 0);
        await scope.gone(...lock.resources);
      });

      it('tells who voted how', async () => {
        const redlock = await make();
        const heard = [];
        redlock.on('error', (error) => heard.push(error));
        const lock = await redlock.acquire(['a'], 20_000);
        assert.equal(lock.attempts.length, 1);
        const won = await lock.attempts[0];
        assert.equal(won.membershipSize, count);
        assert.equal(won.quorumSize, majority);
        assert.ok(won.votesFor.size >= majority);
        assert.ok([...won.votesFor].every((client) => scope.clients.includes(client)));
        assert.equal(won.votesAgainst.size, 0);
        assert.equal(heard.length, 0);

        const error = await failure(redlock.acquire(['a'], 20_000, { retryCount: 1 }));
        assert.ok(error instanceof ExecutionError);
        assert.equal(error.attempts.length, 2);
        const votes = await Promise.all(error.attempts);
        for (const { votesFor, votesAgainst } of votes) {
          assert.equal(votesFor.size, 0);
          assert.ok(votesAgainst.size >= majority);
          assert.ok([...votesAgainst.keys()].every((client) => scope.clients.includes(client)));
          for (const each of votesAgainst.values()) {
            assert.ok(each instanceof ResourceLockedError);
            assert.equal(each.name, 'ResourceLockedError');
            assert.equal(each.message,
              'The operation was applied to: 0 of the 1 requested resources.');
          }
        }
        // Of those that only a release could not find anything to be of, too, in redlock itself.
        const told = votes.flatMap(({ votesAgainst }) => [...votesAgainst.values()]);
        assert.deepEqual(told.filter((each) => !heard.includes(each)), []);
        const { attempts } = await lock.release();
        assert.ok((await attempts[0]).votesFor.size >= majority);
      });

      it('tries again until it is free', async () => {
        const redlock = await make({ retryCount: -1 });
        const lock = await redlock.acquire(['a'], 20_000);
        const tried = new Promise((resolve) => { redlock.once('error', resolve); });
        const waiting = redlock.acquire(['a'], 20_000);
        await tried;
        await lock.release();
        const next = await waiting;
        assert.ok(next.attempts.length > 1);
        assert.notEqual(next.value, lock.value);
        const after = Date.now();
        assert.ok(next.expiration <= after + 20_000 - 202);
        await next.release();
      });

      it('extends with another Lock of the same value', async () => {
        const redlock = await make();
        const first = await redlock.acquire(['a', 'b'], 1000);
        const before = Date.now();
        const second = await first.extend(60_000);
        assert.ok(second instanceof Lock);
        assert.notEqual(second, first);
        assert.equal(first.expiration, 0);
        assert.equal(second.value, first.value);
        assert.deepEqual(second.resources, ['a', 'b']);
        assert.ok(second.expiration >= before + 60_000 - 602 - 2);
        await scope.each(['PTTL', 'b'], (left) => left > 1000, 'it lasts longer');
        const third = await redlock.extend(second, 2000, { retryCount: 0 });
        await scope.each(['PTTL', 'a'], (left) => left <= 2000, 'it is shorter again');
        await third.release();
      });

      it('neither extends nor releases what is over', async () => {
        const redlock = await make({ retryCount: 0 });
        const lock = await redlock.acquire(['a'], 60);
        await until(() => lock.expiration < Date.now(), 'its time is over');
        await scope.gone('a'); // the servers say so, too
        const error = await failure(lock.extend(1000));
        assert.equal(error.name, 'ExecutionError');
        assert.equal(error.message, 'Cannot extend an already-expired lock.');
        assert.deepEqual(error.attempts, []);
        const other = await redlock.acquire(['a'], 60_000);
        await assert.rejects(lock.release(), { name: 'ExecutionError', message: NO_QUORUM });
        await scope.has('a', other.value);
        await other.release();
        await assert.rejects(other.release(), { name: 'ExecutionError', message: NO_QUORUM });
        await assert.rejects(other.extend(1000), { name: 'ExecutionError' });
      });

      it('using: holds on while the routine runs, and releases', async () => {
        const redlock = await make({ automaticExtensionThreshold: 400 });
        const started = Date.now();
        const result = await redlock.using(['a', 'b'], 600, async (signal) => {
          assert.ok(signal instanceof AbortSignal);
          const [value] = await scope.all('GET', 'a');
          await until(() => Date.now() > started + 1500, 'more than two durations have passed');
          assert.equal(signal.aborted, false);
          await scope.has('b', value);
          return 'done';
        });
        assert.equal(result, 'done');
        await scope.gone('a', 'b');
        assert.equal(await redlock.using(['a'], 600, { retryCount: 1 }, async () => 7), 7);
        const error = new Error('of the routine');
        assert.equal(await failure(redlock.using(['a'], 600, () => Promise.reject(error))), error);
        await scope.gone('a');
      });

      it('using: tells the routine when the lock is gone', async () => {
        const redlock = await make({ retryCount: 0 });
        const error = await failure(redlock.using(['a'], 300, async (signal) => {
          await scope.all('SET', 'a', 'another\'s');
          await until(() => signal.aborted, 'the signal aborts');
          assert.equal(signal.error.name, 'ExecutionError');
          throw signal.error;
        }));
        assert.ok(error instanceof ExecutionError);
        await assert.rejects(redlock.using(['b'], 300, async (signal) => {
          await scope.all('SET', 'b', 'another\'s');
          await until(() => signal.aborted, 'the signal aborts');
        }), { name: 'ExecutionError' });
        await scope.has('a', 'another\'s');
      });

      it('using: wants a duration that leaves room for the threshold', async () => {
        const redlock = await make({ automaticExtensionThreshold: 1000 });
        const routine = () => assert.fail('it ran');
        await assert.rejects(redlock.using(['a'], 1099, routine), /at least 100ms greater than/);
        await assert.rejects(redlock.using(['a'], 1100.5, routine), /integer value/);
        await assert.rejects(redlock.using(['a'], 2000, {}), /routine is not a function/);
        const settings = { automaticExtensionThreshold: 1901 };
        await assert.rejects(redlock.using(['a'], 2000, settings, routine), /at least 100ms/);
      });

      it('wants whole milliseconds, and a client', async () => {
        const redlock = await make();
        assert.throws(() => new Redlock([]), /at least one redis client/);
        await assert.rejects(redlock.acquire(['a'], 100.5), /^\w*Error: Duration must be an integer/);
        const lock = await redlock.acquire(['a'], 1000);
        await assert.rejects(lock.extend(100.5), /^\w*Error: Duration must be an integer/);
        await lock.release();
      });

      it('has settings', () => {
        const redlock = scope.redlock(Redlock);
        assert.deepEqual({ ...redlock.settings }, {
          driftFactor: 0.01,
          retryCount: 10,
          retryDelay: 200,
          retryJitter: 100,
          automaticExtensionThreshold: 500,
        });
        assert.deepEqual([...redlock.clients], scope.clients);
        const mine = { ...redlock.settings, retryCount: 0, driftFactor: 0 };
        assert.deepEqual({ ...scope.redlock(Redlock, mine).settings }, mine);
      });

      it('quit ends the clients', async () => {
        const redlock = await make({ retryCount: 0 });
        await (await redlock.acquire(['a'], 1000)).release();
        await redlock.quit();
        await until(() => scope.clients.every(({ status }) => status === 'end'), 'they have ended');
        await assert.rejects(redlock.acquire(['a'], 1000), { name: 'ExecutionError' });
      });
    });
  }

  for (const [name, Redlock] of [['redlock 4', redlock4], ['holdfast/redlock', drop]]) {
    describe(`${name}, as redlock 4, ${count} server${count > 1 ? 's' : ''}`, () => {
      const scope = useServers(count);
      const make = (settings) => scope.connected(Redlock, { ...QUICK, ...settings });
      // Calls with a callback, and gives what it got.
      const called = (call) => new Promise((resolve) => { call((...args) => resolve(args)); });

      it('locks and unlocks', async () => {
        const redlock = await make();
        const before = Date.now();
        const lock = await redlock.lock('locks:a', 20_000);
        assert.ok(lock instanceof Redlock.Lock);
        assert.equal(lock.redlock, redlock);
        assert.deepEqual(lock.resource, ['locks:a']);
        assert.match(lock.value, /^[0-9a-f]{32}$/);
        assert.equal(lock.attempts, 1);
        assert.equal(lock.attemptsRemaining, 1);
        assert.ok(lock.expiration >= before + 20_000 - 202 - 2);
        await scope.has('locks:a', lock.value);
        assert.equal(await lock.unlock(), undefined);
        assert.equal(lock.expiration, 0);
        await scope.gone('locks:a');
        const several = await redlock.acquire(['locks:a', 'locks:b'], 20_000, () => {});
        await scope.each(['EXISTS', 'locks:a', 'locks:b'], (n) => n === 2, 'both are there');
        await redlock.release(several);
      });

      it('fails with a LockError that says how often it was tried', async () => {
        const redlock = await make({ retryCount: 1 });
        const lock = await redlock.acquire('a', 20_000);
        for (const call of ['lock', 'acquire']) {
          const error = await failure(redlock[call]('a', 20_000));
          assert.ok(error instanceof Redlock.LockError);
          assert.equal(error.name, 'LockError');
          assert.equal(error.message, 'Exceeded 1 attempts to lock the resource "a".');
          assert.equal(error.attempts, 2);
        }
        await lock.unlock();
      });

      it('calls back', async () => {
        const redlock = await make({ retryCount: 1 });
        const [none, lock] = await called((callback) => redlock.lock('a', 20_000, callback));
        assert.equal(none, null);
        const [error, nothing] = await called((callback) => redlock.acquire('a', 1000, callback));
        assert.equal(error.name, 'LockError');
        assert.equal(nothing, undefined);
        const [, same] = await called((callback) => lock.extend(60_000, callback));
        assert.equal(same, lock);
        assert.deepEqual(await called((callback) => lock.unlock(callback)), [null]);
        const [failed] = await called((callback) => redlock.unlock(lock, callback));
        assert.equal(failed.message, 'Unable to fully release the lock on resource "a".');
        const [late] = await called((callback) => redlock.extend(lock, 1000, callback));
        assert.equal(late.name, 'LockError');
        assert.equal(late.message,
          'Cannot extend lock on resource "a" because the lock has already expired.');
        assert.equal(late.attempts, 0);
        const options = { retryCount: 3 };
        for (const call of ['lockWithOptions', 'acquireWithOptions']) {
          const [, other] = await called((callback) => redlock[call]('a', 1000, options, callback));
          assert.equal(other.attemptsRemaining, 2);
          assert.deepEqual(await called((callback) => redlock.release(other, callback)), [null]);
        }
      });

      it('extends the lock itself', async () => {
        const redlock = await make();
        const lock = await redlock.lock(['a', 'b'], 1000);
        const { value } = lock;
        const before = Date.now();
        assert.equal(await lock.extend(60_000), lock);
        assert.equal(lock.value, value);
        assert.ok(lock.expiration >= before + 60_000 - 602 - 2);
        await scope.each(['PTTL', 'b'], (left) => left > 1000, 'it lasts longer');
        assert.equal(await redlock.extend(lock, 30_000), lock);
        await scope.each(['PTTL', 'b'], (left) => left <= 30_000, 'it is shorter again');
        await lock.unlock();
      });

      it('tries again until it is free', async () => {
        const redlock = await make({ retryCount: -1 });
        const lock = await redlock.lock('a', 60);
        const next = await redlock.lock('a', 20_000);
        assert.ok(next.attempts > 1);
        await assert.rejects(lock.unlock(), { name: 'LockError' });
        await scope.has('a', next.value);
        await next.unlock();
      });

      it('gives bluebird\'s using a disposer', async () => {
        const redlock = await make({ retryCount: 0 });
        const { using } = bluebird;
        const result = await using(redlock.disposer('a', 20_000), async (lock) => {
          await scope.has('a', lock.value);
          await lock.extend(60_000);
          return 'done';
        });
        assert.equal(result, 'done');
        await scope.gone('a');

        const thrown = new Error('thrown');
        assert.equal(await failure(using(redlock.disposer(['a', 'b'], 20_000), () => {
          throw thrown;
        })), thrown);
        await scope.gone('a', 'b');
      });

      it('a disposer of what cannot be had releases the others', async () => {
        const redlock = await make({ retryCount: 0 });
        const { using } = bluebird;
        const lock = await redlock.lock('b', 20_000);
        const error = await failure(using(redlock.disposer('a', 20_000),
          redlock.disposer('b', 20_000), () => assert.fail('it ran')));
        assert.equal(error.name, 'LockError');
        await scope.gone('a');
        await lock.unlock();
        assert.equal(await using(redlock.disposer('a', 20_000), redlock.disposer('b', 20_000),
          async (a, b) => `${a.resource} ${b.resource}`), 'a b');
      });

      it('a disposer tells of a lock that could not be released', async () => {
        const redlock = await make({ retryCount: 0 });
        const heard = [];
        const lose = () => scope.all('DEL', 'a');
        await bluebird.using(redlock.disposer('a', 20_000, (error) => heard.push(error)), lose);
        assert.equal(heard.length, 1);
        assert.equal(heard[0].name, 'LockError');
        await bluebird.using(redlock.disposer('a', 20_000), lose);
      });

      it('quit ends the clients', async () => {
        const redlock = await make({ retryCount: 0 });
        await (await redlock.lock('a', 1000)).unlock();
        const [none, results] = await called((callback) => redlock.quit(callback));
        assert.equal(none, null);
        assert.deepEqual(results, scope.clients.map(() => 'OK'));
        await until(() => scope.clients.every(({ status }) => status === 'end'), 'they have ended');
      });

      it('has settings', () => {
        const redlock = scope.redlock(Redlock);
        const { driftFactor, retryCount, retryDelay, retryJitter } = redlock;
        assert.deepEqual({ driftFactor, retryCount, retryDelay, retryJitter },
          { driftFactor: 0.01, retryCount: 10, retryDelay: 200, retryJitter: 100 });
        assert.deepEqual(redlock.servers, scope.clients);
      });
    });
  }
}
