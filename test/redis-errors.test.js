'use strict';

// What a Redis may answer instead of doing what it was asked for, and what users are told then:
// what happened, to which key, on which server, what to do. And that nothing is left half done.

const assert = require('node:assert/strict');
const { Holdfast } = require('..');
const { deferred, until } = require('./helpers');
const { startServer, stopAll, useDeployment } = require('./redis-servers');
const { failure, keysOf, useStores } = require('./redis-harness');

after(stopAll);

describe('a Redis that refuses', () => {
  const scope = useDeployment(() => startServer());
  const openStore = useStores();
  let server;
  let hf;
  before(() => { server = scope.deployment; });
  beforeEach(async () => {
    await server.send('FLUSHALL');
    hf = await openStore(server.url({ commandTimeout: 2000 }));
  });

  /** Takes the state of the server back, also after a failure. */
  async function within(begin, end, run) {
    await begin();
    try {
      await run();
    } finally {
      await end();
    }
  }

  // A put or a get would go on trying for a while: an increment is tried once.
  async function assertRefused(promise, { code, message }, key = 'a key') {
    const error = await failure(promise);
    assert.equal(error.code, code, error.message);
    assert.equal(error.retryable, true);
    assert.equal(error.outcomeUnknown, false, error.message);
    assert.match(error.message, message);
    assert.ok(error.message.includes(server.address), error.message);
    assert.equal(error.key ?? null, key);
  }

  it('READONLY: it has become a replica', async () => {
    const master = await startServer();
    await within(() => server.send('REPLICAOF', master.host, master.port),
      () => server.send('REPLICAOF', 'NO', 'ONE'), async () => {
        const expected = { code: 'HF_EREADONLY', message: /READONLY.*replica.*master/ };
        await assertRefused(hf.tryLock('a key'), expected);
        await assertRefused(hf.kv.increment('a key'), expected, null);
        await assertRefused(hf.once('a key', { wait: 0 }, assert.fail), expected);
      });
    await hf.withLock('a key', () => hf.kv.put('a key', 1));
    await master.stop();
  });

  it('READONLY: one who waits has it when the server is a master again', async () => {
    const master = await startServer();
    let waiting;
    await within(() => server.send('REPLICAOF', master.host, master.port),
      () => server.send('REPLICAOF', 'NO', 'ONE'), async () => {
        waiting = hf.lock('a key', { wait: '1m' });
        const error = await failure(hf.tryLock('another'));
        assert.match(error.message, /READONLY/);
      });
    await (await waiting).release();
    await master.stop();
  });

  it('OOM: its memory is full, and a refused take changes nothing', async () => {
    await hf.kv.put('there', 'x');
    const held = await hf.lock('held', { ttl: '1m' });
    const before = await keysOf(server);
    await within(() => server.configSet({ maxmemory: 1, 'maxmemory-policy': 'noeviction' }),
      () => server.configSet({ maxmemory: 0 }), async () => {
        const expected = { code: 'HF_EFULL', message: /OOM.*maxmemory/ };
        await assertRefused(hf.tryLock('a key'), expected);
        await assertRefused(hf.tryLock(['a key', 'another']), expected);
        await assertRefused(hf.tryLock('a key', { mode: 'shared' }), expected);
        await assertRefused(hf.tryLock('a key', { permits: 3 }), expected);
        await assertRefused(hf.kv.increment('a key'), expected, null);
        await assertRefused(hf.once('a key', { wait: 0 }, assert.fail), expected);
        assert.deepEqual(await keysOf(server), before);
        // What frees memory is never refused.
        assert.equal(await held.release(), true);
        assert.equal(await hf.kv.delete('there'), true);
      });
    await (await hf.lock('a key')).release();
  });

  it('BUSY: somebody\'s script runs; who waits has the lock when it has ended', async () => {
    await server.configSet({ 'busy-reply-threshold': 20 });
    const held = await hf.lock('held', { ttl: '1m' });
    const other = server.connect();
    const ended = other.send('EVAL', 'while true do end', 0).catch(() => {});
    await until(() => server.send('PING').then(() => false, ({ code }) => code === 'BUSY'),
      'the script is found to be busy');
    let waiting;
    await within(() => {}, () => server.send('SCRIPT', 'KILL'), async () => {
      waiting = hf.lock('waited for', { wait: '1m' });
      const expected = { code: 'HF_EBUSY', message: /BUSY.*SCRIPT KILL/ };
      await assertRefused(hf.tryLock('a key'), expected);
      await assertRefused(hf.kv.increment('a key'), expected, null);
    });
    await ended;
    other.close();
    assert.equal(await held.release(), true);
    assert.equal(await (await waiting).release(), true);
    await (await hf.lock('a key')).release();
  });

  it('NOREPLICAS: too few replicas are there to write to', async () => {
    await within(() => server.configSet({ 'min-replicas-to-write': 1 }),
      () => server.configSet({ 'min-replicas-to-write': 0 }), async () => {
        await assertRefused(hf.tryLock('a key'),
          { code: 'HF_EUNAVAIL', message: /NOREPLICAS.*min-replicas-to-write/ });
      });
  });

  it('a cluster, which the URL does not call one, is told of', async () => {
    const cluster = await startServer({ config: { 'cluster-enabled': 'yes' } });
    const plain = await openStore(cluster.url());
    const error = await failure(plain.lock('a key', { wait: 0 }));
    assert.match(error.message, /CLUSTERDOWN|MOVED/);
    await cluster.stop();
  });

  it('LOADING: it has data to load, and who waits has the lock when it has', async () => {
    // So slowly that it is seen: so many microseconds for each key.
    const config = {
      'key-load-delay': 10_000, 'loading-process-events-interval-bytes': 1024, appendonly: 'no',
    };
    const slow = await startServer({ config });
    await Promise.all(Array.from({ length: 200 }, (_, i) =>
      slow.send('SET', `filler-${i}`, 'x'.repeat(100))));
    await slow.send('SAVE');
    await slow.restart({ ready: false });
    const lazy = new Holdfast(slow.url());
    const error = await failure(lazy.lock('a key', { wait: 0 }));
    assert.equal(error.code, 'HF_EUNAVAIL');
    assert.match(error.message, new RegExp(`${slow.address}.*LOADING.*wait`));
    assert.equal(error.key, 'a key');
    await slow.configSet({ 'key-load-delay': 0 }).catch(() => {});
    await (await lazy.lock('a key', { wait: '1m' })).release();
    await lazy.close();
    await slow.stop();
  });

  it('forgets scripts in the midst of work: nobody notices', async () => {
    const state = { over: false, flushed: 0 };
    const flushing = (async () => {
      while (!state.over) {
        await server.send('SCRIPT', 'FLUSH');
        state.flushed += 1;
        await new Promise(setImmediate);
      }
    })();
    const counts = {};
    await Promise.all(Array.from({ length: 400 }, async (_, i) => {
      const key = `key-${i % 20}`;
      await hf.withLock(key, { wait: '1m' }, async () => {
        const seen = counts[key] ?? 0;
        await hf.kv.increment('all');
        counts[key] = seen + 1;
      });
    }));
    state.over = true;
    await flushing;
    assert.ok(state.flushed > 10, `${state.flushed}`);
    assert.ok(Object.values(counts).every((count) => count === 20));
    assert.equal((await hf.kv.get('all')).value, 400);
  });
});

describe('a Redis that may evict', () => {
  const scope = useDeployment(() => startServer({
    config: { maxmemory: '100mb', 'maxmemory-policy': 'allkeys-lru' },
  }));
  const openStore = useStores();

  /** A store that has told what it has to warn of, once a lock was taken. */
  async function warnedStore(options) {
    const hf = new Holdfast(scope.url(), options);
    const warnings = [];
    const first = deferred();
    hf.on('error', (error) => {
      warnings.push(error);
      first.resolve();
    });
    for (let i = 0; i < 3; i++) await hf.withLock('key', () => {});
    await first.promise;
    return { hf, warnings };
  }

  it('is warned of once, for leases', async () => {
    const { hf, warnings } = await warnedStore();
    await scope.deployment.send('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await hf.withLock('key', { wait: '1m' }, () => {});
    assert.equal(warnings.length, 1);
    assert.match(warnings[0].message, /allkeys-lru/);
    assert.match(warnings[0].message, /noeviction/);
    assert.ok(warnings[0].message.includes(scope.deployment.address), warnings[0].message);
    await hf.close();
  });

  it('keeps no values and records, unless told so', async () => {
    const { hf } = await warnedStore();
    for (const work of [() => hf.kv.put('key', 1), () => hf.kv.increment('key'),
      () => hf.kv.create('key', 1), () => hf.once('key', assert.fail)]) {
      const error = await failure(work());
      assert.equal(error.code, 'HF_ENOTSUP', error.message);
      assert.match(error.message, /allkeys-lru/);
      assert.match(error.message, /maxmemory-policy/);
      assert.match(error.message, /allowEviction/);
    }
    await hf.close();
    for (const [url, options] of [[scope.url(), { allowEviction: true }],
      [scope.url({ allowEviction: true }), undefined]]) {
      const allowed = await openStore(url, options);
      await allowed.kv.put('key', 1);
      assert.equal(await allowed.once('key', () => 2), 2);
    }
  });
});

describe('a Redis with replicas', () => {
  const scope = useDeployment(() => startServer());
  const openStore = useStores();
  let replica;
  before(async () => {
    const { host, port } = scope.deployment;
    replica = await startServer({ config: { replicaof: `${host} ${port}` } });
    await scope.deployment.configSet({ 'repl-diskless-sync-delay': 0 });
    await until(async () => (await replica.info('replication')).master_link_status === 'up',
      'the replica has its master\'s data');
  });

  it('has the lock on as many of them as it was told to', async () => {
    const hf = await openStore(scope.url({ prefix: 'r:' }), { waitReplicas: 1 });
    const lock = await hf.lock('key');
    assert.equal(await replica.send('GET', 'r:key'), lock.token);
    await lock.release();
    const shared = await hf.lock('key', { mode: 'shared' });
    assert.equal(await replica.send('EXISTS', 'r:key'), 1);
    await shared.release();
  });

  it('gives no lock that they do not have, and leaves none behind', async () => {
    const hf = await openStore(scope.url({ prefix: 'r:', commandTimeout: 300 }),
      { waitReplicas: 2 });
    const error = await failure(hf.tryLock('key', { ttl: '1h' }));
    assert.equal(error.code, 'HF_EUNAVAIL', error.message);
    assert.equal(error.retryable, true);
    assert.match(error.message, /replica/);
    assert.match(error.message, /1/);
    await until(async () => await scope.deployment.send('EXISTS', 'r:key') === 0,
      'the take has been undone');
    assert.ok(await openStore(scope.url({ prefix: 'r:' })).then((other) => other.tryLock('key')));
  });

  it('waits for one that stands still', async () => {
    const hf = await openStore(scope.url({ prefix: 's:', commandTimeout: 300, waitReplicas: 1 }));
    replica.freeze();
    const waiting = hf.lock('key', { wait: '1m' });
    await until(async () => await scope.deployment.send('EXISTS', 's:key') === 1, 'it was tried');
    replica.thaw();
    const lock = await waiting;
    assert.equal(lock.held, true);
    await lock.release();
  });
});
