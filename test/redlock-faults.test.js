'use strict';

// Faults of redlock that holdfast/redlock must not have, and what only it has.

const assert = require('node:assert/strict');
const { EventEmitter } = require('node:events');
const { createClient } = require('redis');
const Redlock = require('holdfast/redlock');
const { Guard } = require('../lib/redlock-guard');
const { block, endChildren, start, until } = require('./helpers');
const { Proxy } = require('./proxy');
const { QUICK, useServers } = require('./redlock-harness');
const { failure } = require('./redis-harness');
const { stopAll } = require('./redis-servers');

after(stopAll);

const { ExecutionError, Lock, LockError, ResourceLockedError } = Redlock;
const FOR_EVER = { retryCount: -1, retryDelay: 5, retryJitter: 2 };

describe('holdfast/redlock on two servers', () => {
  const scope = useServers(2);

  it('a split vote settles, as a refusal', async () => {
    const redlock = await scope.connected(Redlock, { ...QUICK, retryCount: 1 });
    await scope.servers[0].send('SET', 'a', 'another\'s', 'PX', 60_000);
    const error = await failure(redlock.acquire(['a'], 20_000));
    assert.ok(error instanceof ExecutionError);
    const { votesFor, votesAgainst, quorumSize } = await error.attempts[1];
    assert.equal(quorumSize, 2);
    assert.ok(!votesFor.has(scope.clients[0]));
    assert.ok(votesAgainst.get(scope.clients[0]) instanceof ResourceLockedError);
    await until(async () => await scope.servers[1].send('EXISTS', 'a') === 0, 'its vote is undone');
  });
});

describe('holdfast/redlock on three servers', () => {
  const scope = useServers(3);

  it('keeps no minority while it waits for the next attempt', async () => {
    const redlock = await scope.connected(Redlock, { retryCount: 1, retryDelay: 2 ** 30 });
    for (const server of scope.servers.slice(0, 2)) {
      await server.send('SET', 'a', 'another\'s', 'PX', 600_000);
    }
    const refused = new Promise((resolve) => { redlock.once('error', resolve); });
    const waiting = failure(redlock.acquire(['a', 'b'], 60_000));
    await refused;
    await until(async () => await scope.servers[2].send('EXISTS', 'a', 'b') === 0, 'it is undone');
    // Who waits is woken by quit, and told.
    await redlock.quit();
    const error = await waiting;
    assert.ok(error instanceof ExecutionError);
    assert.equal(error.cause.code, 'HF_ECLOSED');
    assert.equal(error.attempts.length, 2);
  });

  it('holds on while JavaScript is busy for longer than the duration', async () => {
    const redlock = await scope.connected(Redlock, QUICK);
    const other = await scope.connected(Redlock, { ...QUICK, retryCount: 0 });
    await redlock.using(['a'], 600, async (signal) => {
      const [value] = await scope.all('GET', 'a');
      block(2500);
      assert.equal(signal.aborted, false);
      await scope.has('a', value);
      await assert.rejects(other.acquire(['a'], 1000), ExecutionError);
      await new Promise(setImmediate);
      assert.equal(signal.aborted, false);
    });
    await (await other.acquire(['a'], 1000)).release();
  });

  it('goes on with one server down, and names the client of it', async () => {
    const redlock = await scope.connected(Redlock, FOR_EVER);
    const heard = [];
    redlock.on('clientError', (error) => heard.push(error));
    await scope.servers[1].kill();
    try {
      const lock = await redlock.acquire(['a'], 20_000);
      const stats = await lock.attempts.at(-1);
      assert.ok(!stats.votesFor.has(scope.clients[1]));
      for (const [client, error] of stats.votesAgainst) {
        assert.equal(client, scope.clients[1]);
        assert.ok(error instanceof Error);
        assert.ok(heard.includes(error));
      }
      await lock.release();
    } finally {
      await scope.servers[1].restart({ data: false });
    }
  });

  it('with a majority down, attempts end, and who is patient is served in the end', async () => {
    const redlock = await scope.connected(Redlock, FOR_EVER);
    for (const server of scope.servers.slice(1)) server.freeze();
    try {
      const error = await failure(redlock.acquire(['a'], 200, { retryCount: 2 }));
      assert.equal(error.attempts.length, 3);
      for (const attempt of error.attempts) {
        const { votesFor, votesAgainst } = await attempt;
        assert.ok(votesFor.size < 2);
        assert.ok(votesAgainst.size >= 2);
      }
      assert.ok(['HF_EQUORUM', 'HF_EUNAVAIL'].includes(error.cause.code), error.cause.code);
    } finally {
      for (const server of scope.servers.slice(1)) server.thaw();
    }
    const lock = await redlock.acquire(['a'], 1000);
    await lock.release();
  });

  it('using: tells the routine that the servers are gone before the time is over', async () => {
    const redlock = await scope.connected(Redlock, { ...QUICK, automaticExtensionThreshold: 600 });
    const error = await failure(redlock.using(['a'], 1000, async (signal) => {
      for (const server of scope.servers) server.freeze();
      await until(() => signal.aborted, 'the signal aborts');
      assert.ok(signal.error instanceof ExecutionError);
      assert.equal(signal.error.message, 'The lock could not be extended.');
      throw signal.error;
    }).finally(() => { for (const server of scope.servers) server.thaw(); }));
    assert.ok(error instanceof ExecutionError);
  });
});

describe('holdfast/redlock behind a slow network', () => {
  const scope = useServers(1);
  let proxy;
  before(async () => { proxy = await Proxy.start(scope.servers[0]); });
  after(() => proxy.stop());
  afterEach(() => proxy.calm());

  const make = (settings) =>
    scope.redlock(Redlock, settings, [`redis://${proxy.address}`]);

  it('never returns a lock whose time is over', async () => {
    const redlock = make({ ...QUICK, retryCount: 0 });
    await (await redlock.acquire(['a'], 1000)).release();
    proxy.slow = { toServer: [0, 0], toClient: [400, 400] };
    const error = await failure(redlock.acquire(['a'], 100));
    assert.ok(error instanceof ExecutionError);
    assert.equal((await error.attempts[0]).votesFor.size, 0);
    proxy.calm();
    await scope.gone('a');
  });

  it('and none that is over by the drift that was asked for', async () => {
    const redlock = make({ ...QUICK, retryCount: 0, driftFactor: 0.999 });
    const error = await failure(redlock.acquire(['a'], 1000));
    assert.ok(error instanceof ExecutionError);
    await scope.gone('a');
  });

  it('counts the time from the attempt that won, not from the call', async () => {
    const redlock = make({ ...FOR_EVER });
    const before = Date.now();
    await scope.servers[0].send('SET', 'a', 'another\'s', 'PX', 300);
    const lock = await redlock.acquire(['a'], 20_000);
    assert.ok(lock.attempts.length > 1);
    assert.ok(lock.expiration >= before + 300 - 2 + 20_000 - 202 - 2);
    await lock.release();
  });
});

describe('holdfast/redlock on one server', () => {
  const scope = useServers(1);
  const SLOW = { retryCount: 10, retryDelay: 2 ** 30, automaticExtensionThreshold: 100 };

  it('tries nothing again that cannot succeed', async () => {
    const redlock = await scope.connected(Redlock, SLOW);
    const lock = await redlock.acquire(['a'], 60);
    await scope.gone('a');
    const late = await failure(lock.release());
    assert.equal(late.attempts.length, 1);
    assert.ok((await late.attempts[0]).votesAgainst.get(scope.clients[0])
      instanceof ResourceLockedError);
    const lost = await redlock.acquire(['a'], 60_000);
    await scope.all('DEL', 'a');
    const error = await failure(lost.extend(1000));
    assert.equal(error.attempts.length, 1);
    assert.equal(error.cause.code, 'HF_ELOST');
  });

  it('using: an error of the routine wins, whatever becomes of the lock', async () => {
    const redlock = await scope.connected(Redlock, SLOW);
    const error = new Error('of the routine');
    assert.equal(await failure(redlock.using(['a'], 10_000, async () => {
      await scope.all('DEL', 'a');
      throw error;
    })), error);
    assert.equal(await failure(redlock.using(['a'], 10_000, () => {
      throw error;
    })), error);
  });

  it('using: a lock that was lost is told, though the routine has ended well', async () => {
    const redlock = await scope.connected(Redlock, SLOW);
    const error = await failure(redlock.using(['a'], 10_000, () => scope.all('DEL', 'a')));
    assert.ok(error instanceof ExecutionError);
    assert.match(error.message, /lost/);
    assert.equal(error.cause.code, 'HF_ELOST');
  });

  it('the same Lock can be extended twice, and released by any of its names', async () => {
    const redlock = await scope.connected(Redlock, SLOW);
    const first = await redlock.acquire(['a'], 1000);
    const second = await first.extend(2000);
    const third = await first.extend(30_000);
    assert.equal(second.expiration, 0);
    assert.ok(third.expiration > 0);
    await scope.each(['PTTL', 'a'], (left) => left > 2000, 'it lasts longer');
    await second.release();
    assert.equal(third.expiration, 0);
    await scope.gone('a');
    await assert.rejects(third.extend(1000), { message: 'Cannot extend an already-expired lock.' });
  });

  it('a Lock of redlock 5 takes a callback, and is then of redlock 4', async () => {
    const redlock = await scope.connected(Redlock, SLOW);
    const lock = await redlock.acquire(['a'], 10_000);
    const same = await new Promise((resolve, reject) => {
      lock.extend(20_000, (error, value) => (error ? reject(error) : resolve(value)));
    });
    assert.equal(same, lock);
    assert.ok(lock.expiration > Date.now());
    await lock.unlock();
    await assert.rejects(lock.unlock(), LockError);
  });

  it('a resource that is named twice is one', async () => {
    const redlock = await scope.connected(Redlock, SLOW);
    const lock = await redlock.acquire(['a', 'b', 'a'], 10_000);
    assert.deepEqual(lock.resources, ['a', 'b', 'a']);
    await (await lock.extend(20_000)).release();
    await scope.gone('a', 'b');
  });

  it('a lock has a fence where the store has some', async () => {
    const redlock = await scope.connected(Redlock, SLOW);
    const one = await redlock.acquire(['a'], 10_000);
    const extended = await one.extend(10_000);
    assert.equal(extended.fence, one.fence);
    await extended.release();
    const two = await redlock.acquire(['a'], 10_000);
    assert.ok(two.fence > one.fence);
    await two.release();
  });

  it('says when a key is in use for something else', async () => {
    const redlock = await scope.connected(Redlock, { ...QUICK, retryCount: 0 });
    await scope.all('RPUSH', 'a', 'data');
    const heard = [];
    redlock.on('clientError', (error) => heard.push(error.code));
    const error = await failure(redlock.acquire(['a'], 10_000));
    assert.equal(error.cause.code, 'HF_ETYPE');
    assert.deepEqual(heard, ['HF_ETYPE']);
  });

  it('a client of node-redis need not be connected, nor be told to quit', async () => {
    const [{ host, port }] = scope.servers;
    const client = createClient({ url: `redis://${host}:${port}` });
    const redlock = scope.redlock(Redlock, SLOW, [client]);
    const lock = await redlock.acquire(['a'], 10_000);
    assert.equal((await lock.attempts[0]).votesFor.has(client), true);
    await lock.release();
    await redlock.quit();
    await client.connect();
    const other = new Redlock([client], SLOW);
    await other.quit();
    assert.equal(client.isOpen, false);
  });

  it('takes a URL, and names it in votes', async () => {
    const [server] = scope.servers;
    const redlock = scope.redlock(Redlock, SLOW, [server.url()]);
    const lock = await redlock.acquire(['a'], 24 * 3600 * 1000);
    assert.deepEqual([...(await lock.attempts[0]).votesFor], [server.url()]);
    await scope.has('a', lock.value);
    await lock.release();
    assert.deepEqual(await redlock.quit(), []);
  });

  it('puts the keys behind the prefix of the client', async () => {
    const [{ host, port }] = scope.servers;
    const redlock = scope.redlock(Redlock, SLOW, [`redis://${host}:${port}?prefix=app:`]);
    const lock = await redlock.acquire(['a'], 10_000);
    await scope.has('app:a', lock.value);
    await lock.release();
  });

  it('what a listener throws is not taken for a failure of the call', async () => {
    const redlock = await scope.connected(Redlock, { ...QUICK, retryCount: 0 });
    const lock = await redlock.acquire(['a'], 10_000);
    const thrown = new Error('of the listener');
    redlock.once('error', () => { throw thrown; });
    const listeners = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    const caught = new Promise((resolve) => { process.once('uncaughtException', resolve); });
    try {
      await assert.rejects(redlock.acquire(['a'], 10_000), ExecutionError);
      assert.equal(await caught, thrown);
    } finally {
      for (const each of listeners) process.on('uncaughtException', each);
    }
    await lock.release();
  });
});

describe('holdfast/redlock without servers', () => {
  endChildren();

  it('is one class, however it is loaded', async () => {
    const imported = await import('holdfast/redlock');
    assert.equal(imported.default, Redlock);
    for (const name of ['Redlock', 'Lock', 'LockError', 'ExecutionError', 'ResourceLockedError']) {
      assert.equal(imported[name], Redlock[name], name);
      assert.equal(typeof imported[name], 'function');
    }
    assert.equal(Redlock.default, Redlock);
    assert.ok(new ExecutionError('m', []) instanceof LockError);
    assert.ok(new Redlock(['memory:']) instanceof EventEmitter);
  });

  it('works on any store of Holdfast, as in tests', async () => {
    const redlock = new Redlock(['memory:'], { retryCount: 0, automaticExtensionThreshold: 100 });
    const lock = await redlock.acquire(['a'], 10_000);
    await assert.rejects(redlock.acquire(['a'], 10_000), ExecutionError);
    await lock.release();
    assert.equal(await redlock.using(['a'], 10_000, () => 7), 7);
    await redlock.quit();
  });

  it('refuses bad arguments, of every call', async () => {
    const redlock = new Redlock(['memory:']);
    const lock = await redlock.acquire(['a'], 10_000);
    const calls = [
      [() => redlock.acquire(['a'], '5s'), TypeError, /^duration must be a number/],
      [() => redlock.acquire(['a'], NaN), RangeError, /integer value/],
      [() => redlock.acquire(['a'], 49), RangeError, /^duration must be at least 50 ms; got 49/],
      [() => redlock.acquire(['a'], 24 * 3600 * 1000 + 1), RangeError, /at most 24 h/],
      [() => redlock.acquire([], 1000), RangeError, /^resources must be 1 to 64; got 0/],
      [() => redlock.acquire(Array.from({ length: 65 }, (_, i) => `${i}`), 1000), RangeError, /64/],
      [() => redlock.acquire([''], 1000), RangeError, /^resources\[0\] must not be empty/],
      [() => redlock.acquire(['a', 7], 1000), TypeError, /^resources\[1\] must be a string/],
      [() => redlock.acquire('x'.repeat(1025), 1000), RangeError, /^resource must be at most 1024/],
      [() => redlock.acquire({}, 1000), TypeError, /^resources must be an array of strings/],
      [() => redlock.lock(undefined, 1000), TypeError, /^resources must be an array of strings/],
      [() => redlock.acquire(['a'], 1000, 7), TypeError, /^settings must be an object/],
      [() => redlock.acquire(['a'], 1000, { retryCount: '1' }), TypeError, /^settings\.retryCount/],
      [() => redlock.acquire(['a'], 1000, { retryCount: -2 }), RangeError, /^settings\.retryCount/],
      [() => redlock.acquire(['a'], 1000, { retryDelay: NaN }), RangeError, /retryDelay/],
      [() => redlock.extend(lock, 10), RangeError, /^duration must be at least 50 ms/],
      [() => redlock.extend(lock), TypeError, /^duration must be a number/],
      [() => redlock.extend({}, 1000), TypeError, /^lock must be a Lock that this Redlock gave/],
      [() => redlock.release(undefined), TypeError, /^lock must be .*; got undefined/],
      [() => redlock.unlock(new Lock(redlock, ['a'], 'value', [], 0)), TypeError, /of another/],
      [() => new Redlock(['memory:']).release(lock), TypeError, /^lock must be/],
      [() => redlock.using(['a'], 1000), TypeError, /routine is not a function; got undefined/],
      [() => redlock.using(['a'], 1000, { retryCount: '1' }, () => {}), TypeError, /retryCount/],
    ];
    for (const [call, type, pattern] of calls) {
      const error = await failure(call());
      assert.equal(error.constructor, type, error.stack);
      assert.match(error.message, pattern);
    }
    const [error] = await new Promise((resolve) => {
      redlock.lock('a', 1, (...args) => resolve(args));
    });
    assert.ok(error instanceof RangeError);
    await lock.release();
    await redlock.quit();
  });

  it('refuses bad settings', () => {
    const clients = ['redis://127.0.0.1:1', 'redis://127.0.0.1:2'];
    for (const [given, type, pattern] of [
      [7, TypeError, /^settings must be an object/],
      [{ driftFactor: 1 }, RangeError, /^settings\.driftFactor must be from 0, and below 1/],
      [{ retryCount: 1.5 }, RangeError, /^settings\.retryCount must be a whole number/],
      [{ retryDelay: -1 }, RangeError, /^settings\.retryDelay/],
      [{ retryJitter: Infinity }, RangeError, /^settings\.retryJitter/],
      [{ automaticExtensionThreshold: '1' }, TypeError, /^settings\.automaticExtensionThreshold/],
      [{ maxTtl: '1 week' }, RangeError, /^settings\.maxTtl must be/],
      [{ maxTtl: 49 }, RangeError, /^settings\.maxTtl must be from 50 ms to 24 h/],
      [{ lockScript: (script) => script }, TypeError, /^settings\.lockScript cannot be used/],
      [{ connection: { colour: 'red' } }, TypeError, /unknown option 'colour'/],
    ]) {
      assert.throws(() => new Redlock(clients, given),
        (error) => error.constructor === type && pattern.test(error.message), String(pattern));
    }
    assert.throws(() => new Redlock(clients, {}, { acquireScript: '' }), /scripts\.acquireScript/);
    for (const given of [undefined, null, 7, 'redis://a', {}]) {
      assert.throws(() => new Redlock(given), /^TypeError: clients must be an array/);
    }
    assert.throws(() => new Redlock(Array.from({ length: 16 }, (_, i) => `redis://n${i}`)),
      /^RangeError: clients must be 15 at most/);
  });

  it('names the setting that a longer duration needs', async () => {
    const clients = ['redis://127.0.0.1:1', 'redis://127.0.0.1:2', 'redis://127.0.0.1:3'];
    const settings = { retryCount: 0 };
    const redlock = new Redlock(clients, settings);
    await assert.rejects(redlock.acquire(['a'], 300_001), (error) => error instanceof RangeError &&
      /setting maxTtl, which is 300000 ms; got 300001: .*maxTtl: '24h'/.test(error.message));
    const patient = new Redlock(clients, { ...settings, maxTtl: '1h' });
    assert.ok(await failure(patient.acquire(['a'], 3600_000)) instanceof ExecutionError);
    await assert.rejects(patient.acquire(['a'], 3600_001), RangeError);
    const short = new Redlock(['memory:'], { maxTtl: 1000 });
    await assert.rejects(short.acquire(['a'], 1001), RangeError);
    await Promise.all([redlock, patient, short].map((each) => each.quit()));
  });

  it('leaves no rejection that nobody handles, and no process alive', async () => {
    const child = start(`
      const Redlock = require('holdfast/redlock');
      const clients = [1, 2, 3].map((port) => 'redis://127.0.0.1:' + port);
      const redlock = new Redlock(clients, { retryCount: 1, retryDelay: 5, retryJitter: 0 });
      redlock.lock('a', 1000, (error) => say('four', { name: error.name }));
      redlock.acquire(['a'], 1000, (error) => say('five', { name: error.name }));
      redlock.lock('a', 1, (error) => say('bad', { name: error.name }));
      redlock.disposer('a', 1000);
      redlock.acquire(['a'], 1000).catch((error) => {
        say('promise', { attempts: error.attempts.length });
      });
      process.on('unhandledRejection', (error) => {
        say('unhandled', { error: String(error) });
        process.exit(1);
      });
    `, '');
    assert.deepEqual(await child.ended, { code: 0, signal: null }, child.stderr);
    assert.equal(child.stderr, '');
    assert.deepEqual(child.said.sort((a, b) => (a.event < b.event ? -1 : 1)), [
      { event: 'bad', name: 'RangeError' },
      { event: 'five', name: 'LockError' },
      { event: 'four', name: 'LockError' },
      { event: 'promise', attempts: 2 },
    ]);
  });
});

describe('holdfast/redlock: the signal of using', () => {
  class Hold {
    #controller = new AbortController();
    held = true;

    constructor(left) {
      this.left = left;
    }

    get signal() {
      return this.#controller.signal;
    }

    remaining() {
      return this.left;
    }

    lose(reason) {
      this.held = false;
      this.left = 0;
      this.#controller.abort(reason);
    }
  }
  const explain = (cause) => new ExecutionError('explained', [], { cause });
  const aborted = (signal) => new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', resolve);
  });

  it('aborts while the lock is still held', async () => {
    const hold = new Hold(30);
    const guard = new Guard(hold, 20, explain);
    assert.equal(guard.signal.aborted, false);
    hold.left = 20;
    await aborted(guard.signal);
    assert.ok(hold.held && hold.remaining() > 0);
    assert.equal(guard.signal.error.message, 'explained');
    assert.equal(guard.signal.reason.name, 'AbortError');
    guard.stop();
  });

  it('does not while the lock is extended, and is still at its end', async () => {
    const hold = new Hold(21);
    let looks = 0;
    hold.remaining = () => {
      looks += 1;
      return 21;
    };
    const guard = new Guard(hold, 20, explain);
    await until(() => looks > 5, 'it has looked several times');
    assert.equal(guard.signal.aborted, false);
    guard.stop();
    hold.lose(new Error('too late'));
    assert.equal(guard.signal.aborted, false);
  });

  it('aborts with what the lock was lost for', async () => {
    const cause = new Error('taken away');
    const hold = new Hold(10_000);
    const guard = new Guard(hold, 20, explain);
    hold.lose(cause);
    await aborted(guard.signal);
    assert.equal(guard.signal.error.cause, cause);
    assert.equal(new Guard(hold, 20, explain).signal.error.cause, cause);
    guard.stop();
  });
});
