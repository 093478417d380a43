'use strict';

// What only a Cluster and a deployment with Sentinels can do to their users.

const assert = require('node:assert/strict');
const { Holdfast, open } = require('..');
const { until } = require('./helpers');
const {
  startCluster, startSentinels, startServer, stopAll, useDeployment,
} = require('./redis-servers');
const { failure, useStores } = require('./redis-harness');

after(stopAll);

describe('a Cluster', () => {
  const scope = useDeployment(() => startCluster());
  const openStore = useStores();
  let cluster;
  let serial = 0;
  let prefix;
  before(() => { cluster = scope.deployment; });
  beforeEach(() => { prefix = `p${++serial}:`; });

  it('keeps keys where their slots are', async () => {
    const hf = await openStore(cluster.url({ prefix }));
    const keys = Array.from({ length: 30 }, (_, i) => `key-${i}`);
    const locks = await Promise.all(keys.map((key) => hf.lock(key)));
    await Promise.all(keys.map((key) => hf.kv.put(key, key)));
    await Promise.all(keys.map((key) => hf.once(key, () => key)));
    const used = new Set();
    for (const [i, key] of keys.entries()) {
      const node = await cluster.nodeOf(await cluster.slotOf(prefix + key));
      used.add(node);
      assert.equal(await node.send('GET', prefix + key), locks[i].token);
      assert.equal((await hf.kv.get(key)).value, key);
    }
    assert.equal(used.size, 3);
    const listed = [];
    for await (const { key } of hf.locks()) listed.push(key);
    assert.deepEqual(listed, [...keys].sort());
    assert.deepEqual(await Promise.all(locks.map((lock) => lock.release())), keys.map(() => true));
    await hf.sweep();
  });

  it('takes several keys of one slot, and says what to do about others', async () => {
    const hf = await openStore(cluster.url({ prefix }));
    for (const keys of [['a', 'b'], ['{one}a', '{two}b'], ['x', '{one}a', '{one}b']]) {
      for (const options of [{}, { mode: 'shared' }]) {
        const error = await failure(hf.lock(keys, { wait: 0, ...options }));
        assert.equal(error.code, 'HF_ENOTSUP', error.message);
        assert.match(error.message, /hash tag/);
        assert.ok(keys.filter((key) => error.message.includes(key)).length >= 2, error.message);
      }
    }
    const lock = await hf.lock(['{order:1}a', '{order:1}b', '{order:1}']);
    assert.equal(await hf.tryLock('{order:1}b'), null);
    assert.equal(await lock.release(), true);
    const tagged = await openStore(cluster.url({ prefix: `{${prefix}}` }));
    await (await tagged.lock(['a', 'b'])).release();
  });

  it('is followed while a slot moves, and after', async () => {
    const hf = await openStore(cluster.url({ prefix, commandTimeout: 2000 }));
    // Some are there before, some come while the slot moves; all in the same slot.
    const [there, later] = ['{moving}there', '{moving}later'];
    const held = await hf.lock(there, { ttl: '20s' });
    await hf.kv.put(there, 1);
    const move = await cluster.moveSlot(await cluster.slotOf(prefix + there));
    await held.extend('21s');
    assert.equal(await hf.tryLock(there), null);
    // A new value is asked for at the other server (ASK). A new lock, which is more than one key
    // there, has to wait for the end (TRYAGAIN).
    await hf.kv.put(later, 2);
    assert.equal((await hf.kv.get(later)).value, 2);
    const waiting = hf.lock(later, { ttl: '20s', wait: '1m' });
    const error = await failure(hf.tryLock('{moving}too'));
    assert.match(error.message, /TRYAGAIN/);
    assert.equal(error.retryable, true);
    await move.finish();
    const lock = await waiting;
    assert.equal(await hf.tryLock(there), null);
    await held.extend('22s');
    assert.equal((await hf.kv.get(there)).value, 1);
    assert.equal((await hf.kv.get(later)).value, 2);
    assert.equal(await move.to.send('GET', prefix + there), held.token);
    const fresh = await openStore(cluster.url({ prefix }));
    assert.equal(await fresh.tryLock(there), null);
    assert.equal(await held.release(), true);
    assert.equal(await lock.release(), true);
    assert.ok((await fresh.lock(there)).fence > held.fence);
  });

  it('wakes who waits on another of its servers', async () => {
    const url = cluster.url({ prefix });
    const [hf, other] = [await openStore(url), await openStore(url)];
    const keys = Array.from({ length: 9 }, (_, i) => `key-${i}`);
    const locks = await Promise.all(keys.map((key) => hf.lock(key)));
    const waiting = keys.map((key) => other.lock(key, { wait: '1m' }));
    await Promise.all(locks.map((lock) => lock.release()));
    for (const lock of await Promise.all(waiting)) await lock.release();
  });

  it('goes on without one of its servers where that is not needed', async () => {
    await Promise.all(cluster.nodes.map((node) =>
      node.configSet({ 'cluster-require-full-coverage': 'no' })));
    const hf = await openStore(cluster.url({ prefix, commandTimeout: 500, connectTimeout: 500 }));
    const keys = Array.from({ length: 12 }, (_, i) => `key-${i}`);
    const dead = await cluster.nodeOf(await cluster.slotOf(`${prefix}${keys[0]}`));
    const places = await Promise.all(keys.map(async (key) =>
      cluster.nodeOf(await cluster.slotOf(prefix + key))));
    await dead.kill();
    try {
      for (const [i, key] of keys.entries()) {
        if (places[i] === dead) continue;
        await hf.withLock(key, { wait: '30s' }, () => hf.kv.put(key, 1));
      }
      const error = await failure(hf.tryLock(keys[0]));
      assert.equal(error.code, 'HF_EUNAVAIL', error.message);
    } finally {
      await dead.restart();
    }
    await (await hf.lock(keys[0], { wait: '1m' })).release();
  });

  it('is found by any of its servers, and only by what is one', async () => {
    const [node, other] = cluster.nodes;
    for (const each of [node, other]) {
      const hf = await openStore(`redis+cluster://${each.address}?prefix=${prefix}`);
      await Promise.all(['a', 'b', 'c', 'd'].map((key) => hf.withLock(key, () => {})));
    }
    const single = await startServer();
    const error = await failure(open(`redis+cluster://${single.address}`));
    assert.match(error.message, /no cluster|not a cluster/i);
    const plain = new Holdfast(node.url({ prefix }));
    const refused = await failure(Promise.all(['a', 'b', 'c', 'd', 'e', 'f'].map((key) =>
      plain.lock(key, { wait: 0 }))));
    assert.match(refused.message, /redis\+cluster:\/\//);
    await plain.close({ timeout: 0 });
    await single.stop();
  });
});

describe('a deployment with Sentinels', () => {
  const scope = useDeployment(() => startSentinels());
  const openStore = useStores();
  const QUICK = { commandTimeout: 500, connectTimeout: 500 };

  for (const how of ['kill', 'freeze', 'ask']) {
    it(`is followed to the new master (${how})`, async () => {
      const { deployment } = scope;
      const url = scope.url(QUICK);
      const [hf, other] = [await openStore(url), await openStore(url)];
      const fence = await hf.withLock('key', (lock) => lock.fence);
      await hf.kv.put('value', 1);
      const blocker = await other.lock('waited for', { ttl: 1000, renew: false });
      const waiting = hf.lock('waited for', { wait: '1m' });
      // What the replica has not got yet is lost with its master.
      await until(async () => {
        const [one, two] = await Promise.all(deployment.servers.map((each) =>
          each.info('replication')));
        return one.master_repl_offset === two.master_repl_offset;
      }, 'the replica has it all');
      const { from, to } = await deployment.failover(how);
      // One that lives goes on until it is told.
      if (how === 'ask') await deployment.rejoin(from);
      const lock = await hf.lock('key', { wait: '1m' });
      assert.ok(lock.fence > fence, `${lock.fence} after ${fence}`);
      assert.ok((await waiting).fence > blocker.fence);
      assert.equal((await hf.kv.get('value')).value, 1);
      const prefix = new URLSearchParams(url.split('?')[1]).get('prefix');
      assert.equal(await to.send('GET', `${prefix}key`), lock.token);
      await lock.release();
      if (how !== 'ask') await deployment.rejoin(from);
    });
  }

  it('is found by any of its Sentinels, by the name of the master', async () => {
    const { deployment } = scope;
    const [dead, , alive] = deployment.sentinels;
    const { address } = alive;
    dead.freeze();
    const hf = await openStore(scope.url({ connectTimeout: 300 }));
    await hf.withLock('key', () => {});
    dead.thaw();
    const one = await openStore(`redis+sentinel://${address}/holdfast`);
    await one.ping();
    const error = await failure(open(`redis+sentinel://${address}/other`));
    assert.equal(error.code, 'HF_EUNAVAIL', error.message);
    assert.match(error.message, /other/);
  });
});
