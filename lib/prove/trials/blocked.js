'use strict';

// A process holds a lock with a TTL of one second, reads a balance, and then its event loop
// stands still for five: a long JSON.parse, a big PDF, a virtual machine that was paused. No
// timer of it can renew anything. Two others come along and want to deposit too.

const { setTimeout: sleep } = require('node:timers/promises');
const { naiveLock, naiveUnlock } = require('../naive-lock');
const { count, seconds } = require('../words');

const TTL_MS = 1000;
const BLOCK_MS = 5000;
const WAIT_MS = 20_000;
const LATER = 2; // processes that come while the first is stuck
const OPENING = 100;
const DEPOSIT = 10;

/**
 * Blocks this thread, and with it the event loop. It sleeps and does not spin, so that a small
 * machine can run both sides at once; to the loop it is the same.
 */
function block(ms) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** Read, think, write: right as long as nobody else is in here. */
async function deposit({ hf, sink, notify, account, slow }, lock) {
  sink.append({ what: 'in', pid: process.pid, at: Date.now(), fence: lock?.fence });
  const { value: balance } = await hf.kv.get(account);
  await notify('in');
  if (slow) block(BLOCK_MS);
  else await sleep(100);
  await hf.kv.put(account, balance + DEPOSIT, lock && { fence: lock });
  sink.append({ what: 'out', pid: process.pid });
}

const acts = {
  async naive(scene) {
    await naiveLock(scene.hf, scene.key, { ttl: TTL_MS });
    await deposit(scene);
    await naiveUnlock(scene.hf, scene.key);
  },

  redlock(scene) {
    return scene.rival.hold(scene.key, TTL_MS, () => deposit(scene));
  },

  holdfast(scene) {
    return scene.hf.withLock(scene.key, { ttl: TTL_MS, wait: WAIT_MS }, async (lock) => {
      await deposit(scene, lock);
      return lock.held;
    });
  },
};

/** The greatest number of processes that were inside at one time. */
function crowd(effects) {
  let inside = 0;
  let most = 0;
  for (const { what } of effects) {
    inside += what === 'in' ? 1 : -1;
    most = Math.max(most, inside);
  }
  return most;
}

async function play(stage, side) {
  const [first, ...later] = await stage.start(1 + LATER);
  const sink = stage.sink(side);
  const account = stage.key(side, 'balance');
  const wishes = { sink: sink.file, key: stage.key(side, 'lock'), account };
  await stage.hf.kv.put(account, OPENING);
  const inside = first.report('in');
  const slow = first.perform(side, { ...wishes, slow: true });
  await Promise.race([inside, slow]);
  const ends = await Promise.all([slow, ...later.map((player) => player.perform(side, wishes))]);
  const { value: balance } = await stage.hf.kv.get(account);
  await stage.dismiss([first, ...later]);
  const effects = sink.read();
  const [firstIn, nextIn] = effects.filter(({ what }) => what === 'in');
  return {
    ttlMs: TTL_MS,
    blockedMs: BLOCK_MS,
    nextAfterMs: nextIn.at - firstIn.at,
    insideAtOnce: crowd(effects),
    deposits: ends.length,
    depositsLost: ends.length - (balance - OPENING) / DEPOSIT,
    balance,
    lost: ends.includes(false),
    fences: effects.filter(({ fence }) => fence != null).map(({ fence }) => fence),
  };
}

module.exports = {
  name: 'blocked',
  title: `A holder whose event loop blocks for ${BLOCK_MS / 1000} s, with a TTL of 1 s`,
  code: {
    naive: 'create(lock, { ttl }), work',
    redlock: 'acquire(key), extend, work',
    holdfast: 'withLock(key, { ttl }, work)',
  },
  acts,

  run(stage) {
    return stage.onBothSides((side) => play(stage, side));
  },

  check({ insideAtOnce, depositsLost, deposits, lost, fences }) {
    const broken = [];
    if (insideAtOnce > 1) broken.push(`${insideAtOnce} processes were inside at once`);
    if (depositsLost !== 0) broken.push(`${depositsLost} of ${deposits} deposits were lost`);
    if (lost) broken.push('a holder lost its lock');
    if (fences.some((fence, i) => i > 0 && fence <= fences[i - 1])) {
      broken.push('the fences did not grow');
    }
    return broken;
  },

  tell({ nextAfterMs, insideAtOnce, deposits, depositsLost, balance }) {
    return [
      ['the next got in', `after ${seconds(nextAfterMs)}`],
      ['inside at once', insideAtOnce === 1 ? '1 process' : `${insideAtOnce} processes`],
      [`${OPENING} + ${deposits} x ${DEPOSIT}`, `${balance}${depositsLost ?
        `, ${count(depositsLost, 'deposit')} lost` : ''}`],
    ];
  },
};
