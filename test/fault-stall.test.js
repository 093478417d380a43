'use strict';

// A holder whose JavaScript stands still, and what other processes may then do.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const {
  PATIENCE_MS, endAll, freezeAtRest, now, startAgent, temporaryPath, until,
} = require('./fault-harness');

const TTL = 500;

describe('a stalled holder', function () {
  this.timeout(3 * PATIENCE_MS);
  afterEach(endAll);

  /** A holder of the key 'k', and another process that never stops trying to get it. */
  async function rivals(options) {
    const file = temporaryPath();
    const holder = await startAgent(`sqlite:${file}`);
    const other = await startAgent(`sqlite:${file}`);
    const held = await holder.call('lock', { key: 'k', options });
    const won = other.call('contend', { key: 'k', options: { ttl: '1h' } });
    return { file, holder, other, held, won };
  }

  /** Waits until the rival has been refused once more. */
  async function refusedAgain(other) {
    const before = await other.call('attempts');
    await until(async () => await other.call('attempts') > before, 'another attempt');
  }

  it('keeps its lock while JavaScript is blocked for 10 x TTL [slow]', async () => {
    const { holder, other, held, won } = await rivals({ ttl: TTL });
    await refusedAgain(other);
    const after = await holder.call('block', { ms: 10 * TTL, name: 'k' });
    assert.equal(after.held, true);
    assert.ok(after.remaining > 0 && after.remaining <= TTL, `${after.remaining} ms`);
    assert.equal(after.refusal, null);
    await refusedAgain(other);

    const released = await holder.call('release', { name: 'k' });
    assert.equal(released.held, true);
    const { t, fence } = await won;
    assert.ok(t >= released.t, 'the other had it before it was released');
    assert.ok(fence > held.fence, `${fence} after ${held.fence}`);
  });

  it('loses it at maxStall, and knows so in the same tick', async () => {
    const { file, holder, held, won } = await rivals({ ttl: TTL, maxStall: 1000 });
    // It stays blocked until the other has the lock, however long that takes.
    const flag = path.join(path.dirname(file), 'won');
    const blocked = holder.call('block', { ms: 0, file: flag, name: 'k' });
    const { t, fence } = await won;
    fs.writeFileSync(flag, '');
    const { from, ...state } = await blocked;
    assert.deepEqual(state, { held: false, remaining: 0, refusal: 'LockLostError' });
    assert.ok(t >= from + 1000, `lost ${t - from} ms after its loop last turned`);
    assert.ok(fence > held.fence, `${fence} after ${held.fence}`);

    const loss = await holder.call('loss', { name: 'k' });
    assert.deepEqual([loss.name, loss.code], ['LockLostError', 'HF_ELOST']);
    assert.match(loss.message, /maxStall/);
    assert.equal((await holder.call('release', { name: 'k' })).held, false);
  });

  it('keeps its lock while its loop has nothing to do [slow]', async () => {
    // With a maxStall so short that a loop at rest, taken for a stuck one, would show.
    const { holder, other, won } = await rivals({ ttl: TTL, maxStall: 2 * TTL });
    const from = now();
    await until(() => now() - from >= 10 * TTL, 'the time');
    await refusedAgain(other);
    const state = await holder.call('state', { name: 'k' });
    assert.equal(state.held, true);
    assert.ok(state.remaining > 0, `${state.remaining} ms`);
    const released = await holder.call('release', { name: 'k' });
    assert.equal(released.held, true);
    const { t } = await won;
    assert.ok(t >= released.t, 'the other had it before it was released');
  });

  it('keeps and loses its lock in memory alike', async () => {
    const holder = await startAgent('memory:');
    await holder.call('lock', { key: 'kept', options: { ttl: TTL } });
    const kept = await holder.call('block', { ms: 3 * TTL, name: 'kept' });
    assert.equal(kept.held, true);
    await holder.call('lock', { key: 'lost', options: { ttl: TTL, maxStall: 200 } });
    const lost = await holder.call('block', { ms: 3 * TTL, name: 'lost' });
    assert.deepEqual([lost.held, lost.remaining, lost.refusal], [false, 0, 'LockLostError']);
    assert.equal((await holder.call('state', { name: 'kept' })).held, true);
    const again = await holder.call('tryLock', { name: 'again', key: 'lost' });
    assert.ok(again.fence > 0);
  });

  it('knows at once of a lease that ended while it was frozen', async () => {
    const { holder, other, held, won } = await rivals({ ttl: TTL });
    await freezeAtRest(holder, other);
    // What it is told meanwhile it reads when it wakes.
    const look = holder.call('block', { ms: 0, name: 'k' });
    const { fence } = await won;
    holder.thaw();
    const { held: stillHeld, remaining, refusal } = await look;
    assert.deepEqual([stillHeld, remaining, refusal], [false, 0, 'LockLostError']);
    assert.ok(fence > held.fence, `${fence} after ${held.fence}`);
  });
});
