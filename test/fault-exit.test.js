'use strict';

// Holders that end, in every way a process can, and when the next one gets the lock.

const assert = require('node:assert/strict');
const {
  NEVER_MS, PATIENCE_MS, endAll, freezeAtRest, start, startAgent, temporaryPath, until,
} = require('./fault-harness');

const TTL = 1000;

describe('a holder that ends', function () {
  this.timeout(3 * PATIENCE_MS);
  afterEach(endAll);

  let url;
  beforeEach(() => { url = `sqlite:${temporaryPath()}`; });

  /** Another process, which has found the key taken and waits for it as long as it takes. */
  async function waiter(key) {
    const other = await startAgent(url);
    assert.equal(await other.call('tryLock', { key, options: { ttl: NEVER_MS } }), null);
    const won = other.call('lock', { key, options: { ttl: NEVER_MS, wait: NEVER_MS } });
    return { other, won };
  }

  /** Another process, which does not wait for the time to come but tries without end. */
  async function contender(key) {
    const other = await startAgent(url);
    const won = other.call('contend', { key, options: { ttl: NEVER_MS } });
    await until(async () => await other.call('attempts') > 0, 'an attempt');
    return { won };
  }

  describe('without a chance to release', () => {
    for (const signal of ['SIGKILL', 'SIGTERM']) {
      it(`${signal}: the next gets the lock when the TTL ends, never before`, async () => {
        const holder = await startAgent(url);
        const held = await holder.call('lock', { key: 'k', options: { ttl: TTL } });
        const { won } = await contender('k');
        holder.signal(signal);
        assert.equal((await holder.ended).signal, signal);
        const { t, fence } = await won;
        assert.ok(t >= held.asked + TTL, `${t - held.asked} ms after it was asked for`);
        assert.ok(t >= held.until, `${held.until - t} ms before the holder's own deadline`);
        assert.ok(fence > held.fence, `${fence} after ${held.fence}`);
      });
    }

    it('SIGKILL after renewals: not before the last deadline that the holder knew', async () => {
      const holder = await startAgent(url);
      await holder.call('watchRenewals', { name: 'k' });
      const held = await holder.call('lock', { key: 'k', options: { ttl: TTL } });
      let deadline = held.until;
      for (let i = 0; i < 3; i++) {
        const renewed = await holder.next('renewed');
        assert.ok(renewed.until > deadline, 'a renewal makes it longer');
        deadline = renewed.until;
      }
      const { won } = await contender('k');
      await holder.kill();
      const { t } = await won;
      assert.ok(t >= deadline, `${deadline - t} ms before the holder's deadline`);
    });

    it('SIGKILL of a frozen process: the TTL applies to it as well', async () => {
      const holder = await startAgent(url);
      const held = await holder.call('lock', { key: 'k', options: { ttl: TTL } });
      const { other, won } = await waiter('k');
      await freezeAtRest(holder, other);
      const { t } = await won;
      assert.ok(t >= held.until, `${held.until - t} ms before the holder's deadline`);
      await holder.kill();
    });
  });

  // The leases would outlast the test by a day: whoever gets the lock gets it by a release.
  describe('in an orderly way', () => {
    async function handsOver(holder, held, won, expected) {
      const { code, signal } = await holder.ended;
      assert.deepEqual([code, signal], [expected, null]);
      const { fence } = await won;
      assert.ok(fence > held.fence, `${fence} after ${held.fence}`);
    }

    for (const [title, how, code] of [
      ['process.exit', 'exit', 0],
      ['an uncaught exception', 'throw', 1],
      ['an unhandled rejection', 'reject', 1],
    ]) {
      it(`${title}: the next gets the lock right away`, async () => {
        const holder = await startAgent(url);
        const held = await holder.call('lock', { key: 'k', options: { ttl: NEVER_MS } });
        const { won } = await waiter('k');
        holder.tell('end', { how });
        await handsOver(holder, held, won, code);
      });
    }

    it('the normal end of the program: the next gets the lock right away', async () => {
      const holder = await startAgent(url);
      const held = await holder.call('lock', { key: 'k', options: { ttl: NEVER_MS } });
      const { won } = await waiter('k');
      holder.finish();
      await handsOver(holder, held, won, 0);
    });

    it('process.exit in the tick in which it got the lock: nothing stays held', async () => {
      const holder = await startAgent(url);
      holder.tell('end', { how: 'exit', key: 'k', options: { ttl: NEVER_MS } });
      assert.equal((await holder.ended).code, 0);
      const other = await startAgent(url);
      assert.ok(await other.call('lock', { key: 'k', options: { wait: NEVER_MS } }));
    });

    it('process.exit with 500 locks: all are released', async () => {
      const keys = Array.from({ length: 500 }, (_, i) => `k${i}`);
      const holder = await startAgent(url);
      const options = { ttl: NEVER_MS };
      await Promise.all(keys.map((key) => holder.call('lock', { key, options })));
      holder.tell('end', { how: 'exit' });
      assert.equal((await holder.ended).code, 0);
      const other = await startAgent(url);
      const taken = await Promise.all(keys.map((key) => other.call('tryLock', { key, options })));
      assert.equal(taken.filter((lock) => lock === null).length, 0);
    });

    it('process.exit while it waits in line: nobody waits for it', async () => {
      const first = await startAgent(url);
      const held = await first.call('lock', { key: 'k', options: { ttl: NEVER_MS } });
      const second = await waiter('k');
      second.won.catch(() => {});
      second.other.tell('end', { how: 'exit' });
      assert.equal((await second.other.ended).code, 0);
      const { won } = await waiter('k');
      await first.call('release', { name: 'k' });
      assert.ok((await won).fence > held.fence);
    });
  });

  it('SIGTERM with a handler that closes: holders may finish, the rest is released', async () => {
    const holder = await startAgent(url);
    const options = { ttl: NEVER_MS };
    await holder.call('onSigterm', { timeout: 700 });
    await holder.call('lock', { key: 'held for ever', options });
    const work = holder.call('workUntilClosing', { key: 'finishes' });
    await holder.next('working');
    const forEver = await waiter('held for ever');
    const finishes = await waiter('finishes');
    await forEver.other.call('lock', { key: 'elsewhere', options });
    const waits = holder.call('lock', { key: 'elsewhere', options: { wait: NEVER_MS } });
    const loss = holder.call('loss', { name: 'held for ever' });

    holder.signal('SIGTERM');
    await holder.next('closing');
    // New work is refused, and those who wait are sent away.
    await assert.rejects(holder.call('lock', { key: 'new' }), { code: 'HF_ECLOSED' });
    await assert.rejects(waits, { code: 'HF_ECLOSED' });
    // Who holds finishes its work, and holds it to the end.
    assert.equal(await work, true);
    await finishes.won;
    // What nobody releases is lost to its holder when the time is up, and free.
    assert.equal((await loss).name, 'LockLostError');
    await forEver.won;
    assert.deepEqual(await holder.ended, { code: 0, signal: null, stderr: '' });
  });

  it('close: the process goes on without its locks, and without the store', async () => {
    const holder = await startAgent(url);
    const held = await holder.call('lock', { key: 'k', options: { ttl: NEVER_MS } });
    const { won } = await waiter('k');
    await holder.call('close', { timeout: 0 });
    assert.equal((await holder.call('state', { name: 'k' })).held, false);
    assert.ok((await won).fence > held.fence);
    await assert.rejects(holder.call('tryLock', { key: 'other' }), { code: 'HF_ECLOSED' });
    holder.finish();
    assert.equal((await holder.ended).code, 0);
  });

  for (const use of [false, true]) {
    it(`a process that only ${use ? 'used' : 'opened'} a store exits by itself`, async () => {
      const process = start('opener', { url, use });
      await process.next('opened');
      assert.deepEqual(await process.ended, { code: 0, signal: null, stderr: '' });
    });
  }
});
