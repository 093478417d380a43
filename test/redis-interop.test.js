'use strict';

// Redlock clients and Holdfast exclude each other on the same key, where the prefix is ''.

const assert = require('node:assert/strict');
const { Redis } = require('ioredis');
const { default: Redlock } = require('redlock');
const { until } = require('./helpers');
const { startServer, stopAll, useDeployment } = require('./redis-servers');
const { failure, keysOf, useStores } = require('./redis-harness');

after(stopAll);

describe('Redlock on the same keys', () => {
  const scope = useDeployment(() => startServer());
  const openStore = useStores();
  let server;
  let client;
  let redlock;
  let hf;

  before(() => {
    server = scope.deployment;
    client = new Redis({ host: server.host, port: server.port });
    redlock = new Redlock([client], { retryCount: 0, automaticExtensionThreshold: 100 });
    redlock.on('error', () => {}); // it tells of each key that is locked
  });
  after(() => client.disconnect());
  beforeEach(async () => {
    await server.send('FLUSHALL');
    hf = await openStore(server.url({ prefix: '' }));
  });

  const modes = {
    exclusive: {}, shared: { mode: 'shared' }, counted: { permits: 3 },
  };

  it('its lock excludes ours, of every kind, and those of several keys', async () => {
    const theirs = await redlock.acquire(['key'], 60_000);
    for (const options of Object.values(modes)) {
      assert.equal(await hf.tryLock('key', options), null);
      assert.equal(await hf.tryLock(['other', 'key'], options), null);
    }
    assert.deepEqual(await keysOf(server, 'other'), []);
    await theirs.release();
    for (const options of Object.values(modes)) {
      await (await hf.lock('key', { wait: 0, ...options })).release();
    }
  });

  it('is named as what it is by a timeout, which does not claim to know since when', async () => {
    const theirs = await redlock.acquire(['key'], 60_000);
    const error = await failure(hf.lock('key', { wait: 0 }));
    assert.equal(error.code, 'HF_ETIMEDOUT');
    assert.match(error.message, /: held by another program than Holdfast$/);
    assert.equal(error.heldFor, null);
    assert.equal(error.holder.pid, null);
    await theirs.release();
  });

  for (const [name, options] of Object.entries(modes)) {
    it(`our ${name} lock excludes its lock`, async () => {
      const lock = await hf.lock('key', options);
      await assert.rejects(redlock.acquire(['key'], 1000), /unable to achieve a quorum/);
      await assert.rejects(redlock.acquire(['free', 'key'], 1000), /unable to achieve a quorum/);
      assert.equal(lock.held, true);
      await lock.extend('1m');
      await lock.release();
      await (await redlock.acquire(['key'], 1000)).release();
    });
  }

  it('who waits with us has it after them, whose release nobody tells of', async () => {
    const theirs = await redlock.acquire(['key'], 60_000);
    const waiting = hf.lock('key', { wait: '30s' });
    await until(async () => (await hf.inspect('key'))?.waiting === 1, 'it waits');
    await theirs.release();
    const lock = await waiting;
    assert.equal(lock.held, true);
    assert.ok(lock.fence > 0);
    await lock.release();
  });

  it('who waits with them has it after us', async () => {
    const patient = new Redlock([client], { retryCount: -1, retryDelay: 20, retryJitter: 10 });
    patient.on('error', () => {});
    const lock = await hf.lock('key');
    const waiting = patient.acquire(['key'], 5000);
    await assert.rejects(redlock.acquire(['key'], 1000));
    await lock.release();
    const theirs = await waiting;
    assert.equal(await hf.tryLock('key'), null);
    await theirs.release();
  });

  it('its lock that has ended harms none of ours', async () => {
    const theirs = await redlock.acquire(['key'], 100);
    const lock = await hf.lock('key', { wait: '30s' });
    await assert.rejects(theirs.release());
    await assert.rejects(theirs.extend(1000));
    await lock.extend('1m');
    assert.equal(lock.held, true);
    assert.equal(await lock.release(), true);
  });

  it('ours that has ended harms none of its', async () => {
    const lock = await hf.lock('key', { ttl: 100, renew: false });
    await until(() => lock.signal.aborted, 'it has ended');
    // Its holder may rely on it for a little less than the server keeps it.
    await until(async () => await server.send('EXISTS', 'key') === 0, 'the server says so too');
    const theirs = await redlock.acquire(['key'], 60_000);
    assert.equal(await lock.release(), false);
    await theirs.extend(60_000);
    await theirs.release();
  });

  it('takes by turns, and nobody overlaps', async () => {
    const patient = new Redlock([client], { retryCount: -1, retryDelay: 5, retryJitter: 5 });
    patient.on('error', () => {});
    let inside = 0;
    let turns = 0;
    const work = async () => {
      assert.equal(++inside, 1);
      await new Promise(setImmediate);
      inside -= 1;
      turns += 1;
    };
    const ours = async () => {
      for (let i = 0; i < 20; i++) await hf.withLock('key', { wait: '1m' }, work);
    };
    const theirs = async () => {
      for (let i = 0; i < 20; i++) await patient.using(['key'], 5000, work);
    };
    await Promise.all([ours(), theirs(), ours(), theirs()]);
    assert.equal(turns, 80);
  });

  it('and so does SET NX PX, by whoever', async () => {
    await server.send('SET', 'key', 'something of theirs', 'NX', 'PX', 60_000);
    for (const options of Object.values(modes)) {
      assert.equal(await hf.tryLock('key', options), null);
    }
    const info = await hf.inspect('key');
    assert.equal(info === null || info.holders.length === 1, true);
    const waiting = hf.lock('key', { wait: '30s' });
    await until(async () => (await hf.inspect('key'))?.waiting === 1, 'it waits');
    await server.send('DEL', 'key');
    const lock = await waiting;
    assert.equal(await server.send('SET', 'key', 'x', 'NX', 'PX', 1000), null);
    await lock.release();
    assert.equal(await server.send('SET', 'key', 'x', 'NX', 'PX', 60_000), 'OK');
    assert.equal(await hf.tryLock('key'), null);
  });

  it('a key without an expiry stays locked until somebody removes it', async () => {
    await server.send('SET', 'key', 'for ever');
    assert.equal(await hf.tryLock('key'), null);
    const error = await hf.lock('key', { wait: 50 }).then(assert.fail, (it) => it);
    assert.equal(error.name, 'LockTimeoutError');
    const waiting = hf.lock('key', { wait: '30s' });
    await server.send('DEL', 'key');
    await (await waiting).release();
  });

  it('a token that is taken from us is a loss', async () => {
    const lock = await hf.lock('key', { ttl: 600 });
    await server.send('SET', 'key', 'stolen', 'PX', 60_000);
    await until(() => lock.signal.aborted, 'the loss is found');
    assert.equal(lock.held, false);
    assert.equal(await lock.release(), false);
    assert.equal(await server.send('GET', 'key'), 'stolen');
  });
});
