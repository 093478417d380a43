'use strict';

// A lock that goes from one process to another and back: how long after its release the other one,
// which waits for it, has it.

const { setTimeout: sleep } = require('node:timers/promises');
const { milliseconds } = require('../words');

const TIMES = 20;
const TTL_MS = 30_000;
const WAIT_MS = 20_000;
const PINGS = 20;
const PAUSE_MS = 10; // before a PING: a server that has slept is slower to answer
// How long it is held, so that the other process has begun to wait, and a release comes at any time
// between two looks of those who look again and again.
const HOLD_MIN_MS = 30;
const HOLD_MAX_MS = 60;

/** Milliseconds of a clock that every process of this machine shares. */
const now = () => Number(process.hrtime.bigint()) / 1e6;

let lock; // of this process

const acts = {
  async redlockTake({ rival, key }) {
    lock = await rival.take(key, TTL_MS);
    return now();
  },

  async redlockRelease({ rival }) {
    const at = now();
    await rival.release(lock);
    return at;
  },

  async holdfastTake({ hf, key }) {
    lock = await hf.lock(key, { ttl: TTL_MS, wait: WAIT_MS });
    return now();
  },

  async holdfastRelease() {
    const at = now();
    await lock.release();
    return at;
  },

  /** How long a PING takes, there and back. */
  async ping({ hf }) {
    const times = [];
    while (times.length < PINGS) {
      await sleep(PAUSE_MS);
      const asked = now();
      await hf.ping();
      times.push(now() - asked);
    }
    return median(times);
  },
};

function median(times) {
  return times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)];
}

async function play(stage, side) {
  const players = await stage.start(2);
  const [first] = players;
  const key = stage.key(side, 'lock');
  const roundTripMs = await first.perform('ping', {});
  const times = [];
  await first.perform(`${side}Take`, { key });
  while (times.length < TIMES) {
    const [holder, next] = times.length % 2 === 0 ? players : players.toReversed();
    const taking = next.perform(`${side}Take`, { key });
    await sleep(HOLD_MIN_MS + Math.random() * (HOLD_MAX_MS - HOLD_MIN_MS));
    const released = await holder.perform(`${side}Release`, {});
    times.push(await taking - released);
  }
  await first.perform(`${side}Release`, {});
  await stage.dismiss(players);
  return {
    handOvers: times.length,
    roundTripMs,
    medianMs: median(times),
    mostMs: Math.max(...times),
    tooEarly: times.some((ms) => ms <= 0),
  };
}

module.exports = {
  name: 'handover',
  title: `A lock that passes ${TIMES} times between two processes`,
  code: { redlock: 'acquire(key), release()', holdfast: 'lock(key), release()' },
  acts,

  async run(stage) {
    const [rival, ours] = stage.sides;
    return { [rival]: await play(stage, rival), [ours]: await play(stage, ours) };
  },

  check({ tooEarly }) {
    return tooEarly ? ['two processes had the lock at once'] : [];
  },

  tell({ roundTripMs, medianMs, mostMs }) {
    const trips = (medianMs / roundTripMs).toFixed(1);
    return [
      ['half take up to', `${milliseconds(medianMs)}, ${trips} round trips`],
      ['the slowest', milliseconds(mostMs)],
    ];
  },
};
