'use strict';

// A Redis that is gone, stands still or cannot be reached, and answers that come late or never:
// what was promised is kept, and what is not known is undone.

const assert = require('node:assert/strict');
const { LockLostError, LockTimeoutError, UnavailableError } = require('..');
const { block, random, until } = require('./helpers');
const { Proxy } = require('./proxy');
const { startServer, stopAll, useDeployment } = require('./redis-servers');
const { failure, keysOf, untilClients, useStores } = require('./redis-harness');

after(stopAll);

// What is tried again soon makes a test short.
const QUICK = { commandTimeout: 300, connectTimeout: 300 };

/** Waits until so much time has passed, however it is spent. */
function passed(ms, from = Date.now()) {
  return until(() => Date.now() - from > ms, `${ms} ms have passed`);
}

describe('a Redis that is gone', () => {
  const scope = useDeployment(() => startServer());
  const openStore = useStores();
  let server;
  before(() => { server = scope.deployment; });
  afterEach(() => (server.alive ? undefined : server.restart()));

  it('and back with its data: what was held is held, and renewed', async () => {
    const url = scope.url(QUICK);
    const hf = await openStore(url);
    const [lock, shared] = [await hf.lock('key', { ttl: '20s' }),
      await hf.lock('shared', { mode: 'shared', ttl: '20s' })];
    await hf.kv.put('value', 1);
    await server.kill();
    await server.restart();
    const other = await openStore(url);
    assert.equal(await other.tryLock('key'), null);
    assert.equal(await other.tryLock('shared'), null);
    assert.equal((await other.kv.get('value')).value, 1);
    await lock.extend('21s');
    await shared.extend('21s');
    assert.ok(lock.held && shared.held);
    const { fence } = lock;
    assert.equal(await lock.release(), true);
    // Its counter is not to be trusted now, but for being behind.
    assert.ok((await other.lock('key')).fence > fence);
  });

  it('and back without them: the holder is told, the next fence is greater', async () => {
    const url = scope.url(QUICK);
    const hf = await openStore(url);
    const lock = await hf.lock('key', { ttl: 1000 });
    await server.kill();
    await server.restart({ data: false });
    const other = await openStore(url);
    const taken = await other.lock('key');
    assert.ok(taken.fence > lock.fence);
    await until(() => lock.signal.aborted, 'the holder is told');
    assert.ok(lock.signal.reason instanceof LockLostError);
    assert.equal(lock.held, false);
    assert.equal(taken.held, true);
    assert.equal(await lock.release(), false);
    assert.equal(taken.held, true);
    assert.equal(await other.tryLock('key'), null);
  });

  it('tryLock says so early; lock waits until it is back', async () => {
    const hf = await openStore(scope.url(QUICK));
    await server.kill();
    const error = await failure(hf.tryLock('key'));
    assert.ok(error instanceof UnavailableError, error.message);
    assert.equal(error.retryable, true);
    assert.match(error.message, new RegExp(server.address));
    const waiting = hf.lock('key', { wait: '1m' });
    const kept = hf.withLock('other', { wait: '1m' }, () => 'worked');
    await failure(hf.tryLock('yet another'));
    await server.restart();
    const lock = await waiting;
    assert.equal(lock.held, true);
    assert.equal(await kept, 'worked');
  });

  it('a wait for it ends when its time is up', async () => {
    const hf = await openStore(scope.url(QUICK));
    await server.kill();
    const from = Date.now();
    const error = await failure(hf.lock('key', { wait: 400 }));
    assert.ok(Date.now() - from >= 395);
    assert.ok(error instanceof UnavailableError, `${error.name}: ${error.message}`);
  });

  it('waiters are served afterwards, in this process and in others', async () => {
    const url = scope.url(QUICK);
    const [hf, other] = [await openStore(url), await openStore(url)];
    const lock = await hf.lock('key', { ttl: '1m' });
    const waiting = [hf.lock('key', { wait: '1m' }), other.lock('key', { wait: '1m' })];
    await server.kill();
    await server.restart();
    await lock.release();
    const first = await Promise.race(waiting);
    await first.release();
    for (const each of await Promise.all(waiting)) await each.release();
  });

  it('a release that does not get through masks no result', async () => {
    const hf = await openStore(scope.url(QUICK));
    const errors = [];
    hf.on('error', (error) => errors.push(error));
    const result = await hf.withLock('key', { ttl: '1m' }, async () => {
      await server.kill();
      return 'result';
    });
    assert.equal(result, 'result');
    assert.ok(errors.length > 0);
  });

  it('held is false at the deadline, and signal aborts in the first turn after it', async () => {
    const hf = await openStore(scope.url(QUICK));
    const lock = await hf.lock('key', { ttl: 600 });
    await server.kill();
    assert.equal(lock.held, true);
    // Within one long synchronous function there is no turn, but the truth.
    const left = lock.remaining();
    const from = Date.now();
    const seen = [];
    while (lock.held) seen.push(lock.remaining());
    const after_ = Date.now() - from;
    assert.ok(seen.every((each, i) => each >= 0 && (i === 0 || each <= seen[i - 1])));
    assert.ok(after_ >= left - 1, `${after_} of ${left} ms`);
    assert.equal(lock.remaining(), 0);
    assert.throws(() => lock.assertHeld(), LockLostError);
    assert.equal(lock.signal.aborted, false, 'no turn has begun yet');
    await new Promise(setImmediate);
    await new Promise(setImmediate);
    assert.equal(lock.signal.aborted, true);
    assert.ok(lock.signal.reason instanceof LockLostError);
    assert.equal(await lock.release(), false);
  });

  it('close ends all the same, with what is held and what is under way', async () => {
    const hf = await openStore(scope.url(QUICK));
    await hf.lock('key', { ttl: '1h' });
    await server.kill();
    const ended = [failure(hf.kv.put('key', 2)), failure(hf.lock('key', { wait: Infinity })),
      failure(hf.lock('other', { wait: Infinity })), failure(hf.once('key', () => 1))];
    await hf.close({ timeout: 100 });
    for (const error of await Promise.all(ended)) assert.match(error.code, /HF_ECLOSED|HF_EUNAVAIL/);
  });
});

describe('a loop that is blocked', () => {
  const scope = useDeployment(() => startServer());
  const openStore = useStores();

  it('for five times the TTL: the lock is still held [slow]', async () => {
    const url = scope.url();
    const [hf, other] = [await openStore(url), await openStore(url)];
    const lock = await hf.lock('key', { ttl: '1s' });
    const reader = await hf.lock('shared', { ttl: '1s', mode: 'shared' });
    block(5000);
    assert.ok(lock.held && reader.held);
    assert.ok(lock.remaining() > 0 && lock.remaining() <= 1000);
    assert.equal(await other.tryLock('key'), null);
    assert.equal(await other.tryLock('shared'), null);
    assert.equal(await lock.release(), true);
    assert.equal(await reader.release(), true);
  });

  it('does not keep what `renew: false` ends', async () => {
    const hf = await openStore(scope.url());
    const lock = await hf.lock('key', { ttl: 300, renew: false });
    block(400);
    assert.equal(lock.held, false);
    assert.equal(await lock.release(), false);
  });
});

describe('a Redis behind a network that fails', () => {
  const scope = useDeployment(() => startServer());
  const openStore = useStores();
  let server;
  let proxy;
  let serial = 0;
  let prefix;

  before(() => { server = scope.deployment; });
  beforeEach(async () => {
    await server.send('FLUSHALL');
    proxy = await Proxy.start({ port: server.port }, { random: random(3) });
    prefix = `n${++serial}:`;
  });
  afterEach(async () => {
    assert.equal(proxy.trouble, null);
    await proxy.stop();
    await untilClients(server, []);
  });

  const direct = () => openStore(server.url({ prefix, ...QUICK }));
  const through = (options) => openStore(
    `redis://${proxy.address}?${new URLSearchParams({ prefix, ...QUICK, ...options })}`);
  const isScript = (command) => command !== null && /^EVAL/i.test(command[0]);
  const token = () => server.send('GET', `${prefix}key`);
  const untilFree = () => until(async () => await token() === null, 'the lease is undone');

  /** Does something to the answer of the next script, and tells what that was asked for. */
  function onNextScript(fate) {
    return new Promise((resolve) => {
      proxy.fate = ({ command, reply }) => {
        if (!isScript(command)) return 'pass';
        proxy.fate = null;
        resolve({ command, reply });
        return fate;
      };
    });
  }

  it('an answer that is later than the validity gives no lock', async () => {
    const hf = await through({ commandTimeout: 5000 });
    const late = onNextScript({ delay: 700 });
    const waiting = hf.lock('key', { ttl: 300, wait: '30s' });
    await late;
    const first = await token();
    assert.match(first, /^[0-9a-f]{32}$/);
    const lock = await waiting;
    assert.notEqual(lock.token, first, 'another attempt has another token');
    assert.ok(lock.held && lock.remaining() > 0);
    assert.equal(await token(), lock.token);
    assert.equal(await lock.release(), true);
  });

  it('nor does it to one who tries once', async () => {
    const hf = await through({ commandTimeout: 5000 });
    onNextScript({ delay: 700 });
    const result = await hf.tryLock('key', { ttl: 300 }).catch((error) => error);
    assert.ok(result === null || result instanceof Error, `${result}`);
    await untilFree();
  });

  for (const fate of ['drop', 'cut', { tear: 3 }]) {
    it(`a take without an answer (${JSON.stringify(fate)}) is undone by its token`, async () => {
      const hf = await through();
      const lost = onNextScript(fate);
      const result = failure(hf.tryLock('key', { ttl: '1h' }));
      await lost;
      assert.match(await token() ?? 'undone', /^[0-9a-f]{32}$|^undone$/);
      const error = await result;
      assert.ok(error instanceof UnavailableError, `${error.name}: ${error.message}`);
      assert.equal(error.outcomeUnknown, true);
      await untilFree();
      await (await (await direct()).lock('key', { wait: 0 })).release();
    });
  }

  it('one who waits gets it with another token', async () => {
    const hf = await through();
    const lost = onNextScript('cut');
    const waiting = hf.lock('key', { ttl: '1h', wait: '1m' });
    await lost;
    const first = await token();
    const lock = await waiting;
    assert.notEqual(lock.token, first);
    assert.equal(await token(), lock.token);
  });

  it('an undo that comes late takes nothing from who has it by then', async () => {
    const hf = await through();
    const other = await direct();
    const lost = onNextScript('drop');
    const unknown = failure(hf.tryLock('key', { ttl: 500 }));
    await lost;
    proxy.blackhole();
    assert.ok((await unknown).outcomeUnknown);
    // Nobody hears of the undo; the lease ends by itself.
    const lock = await other.lock('key', { ttl: '1m', wait: '30s' });
    const before = proxy.connections;
    const undone = [];
    proxy.heal();
    proxy.fate = ({ command }) => {
      if (isScript(command)) undone.push(command);
      return 'pass';
    };
    await until(() => proxy.connections > before && undone.length > 0, 'it has been tried');
    assert.equal(await token(), lock.token);
    await lock.extend();
    assert.equal(lock.held, true);
    assert.equal(await lock.release(), true);
  });

  it('bytes that stood still and come after all hurt nobody', async () => {
    const hf = await through();
    const other = await direct();
    proxy.hold();
    const held = failure(hf.tryLock('key', { ttl: 400 }));
    assert.ok(await held instanceof UnavailableError);
    const lock = await other.lock('key', { ttl: '1m' });
    proxy.resume();
    await hf.kv.put('through', 1);
    assert.equal(await token(), lock.token);
    assert.equal(await lock.release(), true);
    await untilFree();
  });

  it('answers that come twice, or not at all, belong to nothing else', async () => {
    const hf = await through();
    for (const fate of ['repeat', 'drop']) {
      for (let i = 0; i < 3; i++) {
        onNextScript(fate);
        const results = await Promise.allSettled(Array.from({ length: 20 }, (_, n) =>
          hf.kv.put(`value-${n}`, `${fate} ${i} ${n}`)));
        await Promise.all(results.map(async ({ status }, n) => {
          const found = await hf.kv.get(`value-${n}`);
          if (status === 'fulfilled') assert.equal(found.value, `${fate} ${i} ${n}`);
        }));
      }
    }
    assert.ok(proxy.connections > 1, 'who was out of step began anew');
  });

  it('answers in small pieces, slowly, are answers', async () => {
    const hf = await through({ commandTimeout: '10000' });
    proxy.drip = { bytes: 97, ms: 0 };
    assert.equal(await hf.withLock('key', () => hf.once('once', () => 'done')), 'done');
    proxy.drip = null;
    proxy.pieces = true;
    await hf.kv.put('long', 'x'.repeat(100_000));
    assert.equal((await hf.kv.get('long')).value.length, 100_000);
  });

  it('a half-open connection is noticed, by who works and by who waits', async () => {
    const [hf, other] = [await through(), await direct()];
    const lock = await other.lock('key', { ttl: '1m' });
    const waiting = hf.lock('key', { wait: '1m' });
    await until(async () => (await keysOf(server)).some((key) => key.endsWith('w')),
      'it has said that it waits');
    proxy.blackhole();
    proxy.heal();
    assert.ok(await failure(hf.kv.increment('value')) instanceof UnavailableError);
    assert.equal(await hf.kv.increment('value'), 1);
    await lock.release();
    // The connection that was to wake it says nothing any more.
    await (await waiting).release();
  });

  it('renewals that do not get through cost the lock at its deadline, not before', async () => {
    const hf = await through();
    const other = await direct();
    const lock = await hf.lock('key', { ttl: 900 });
    await passed(400);
    assert.equal(lock.held, true);
    proxy.blackhole();
    const taken = other.lock('key', { wait: '1m' }).then((it) => {
      assert.equal(lock.held, false, 'there are never two');
      return it;
    });
    await until(() => lock.signal.aborted, 'the holder is told');
    assert.ok((await taken).fence > lock.fence);
  });

  it('an outage that is shorter than the lease costs nothing', async () => {
    const hf = await through();
    const lock = await hf.lock('key', { ttl: '3s' });
    for (const begin of [() => proxy.cut(), () => proxy.blackhole(), () => proxy.refuse()]) {
      await begin();
      await passed(500);
      proxy.heal();
      await proxy.allow();
      await lock.extend('3s').catch(() => lock.extend('3s'));
      assert.equal(lock.held, true);
    }
    assert.equal(await lock.release(), true);
  });

  it('a lock that nobody can reach is not free', async () => {
    const hf = await through();
    const other = await direct();
    const lock = await hf.lock('key', { ttl: '1m' });
    await proxy.refuse();
    await assert.rejects(other.lock('key', { wait: 100 }), LockTimeoutError);
    await assert.rejects(hf.lock('key', { wait: 100 }));
    assert.equal(lock.held, true);
  });
});
