'use strict';

// A lock that goes from one process to another and back: how long after its release the other one,
// which waits for it, has it.

const { setTimeout: sleep } = require('node:timers/promises');
const { milliseconds } = require('../words');

const TIMES = 20;
const TTL_MS = 30_000;
const WAIT_MS = 20_000;
// How long it is held, so that the other process has begun to wait, and a release comes at any time
// between two looks of those who look again and again.
const HOLD_MIN_MS = 30;
const HOLD_MAX_MS = 60;
const PAUSE_MS = 10; // before a PING, and after it: a server that has slept is slower to answer

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
    const asked = now();
    await hf.ping();
    return now() - asked;
  },
};

function median(times) {
  return times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)];
}

async function play(stage, side, pings) {
  const players = await stage.start(2);
  const [first] = players;
  const key = stage.key(side, 'lock');
  const times = [];
  await first.perform(`${side}Take`, { key });
  while (times.length < TIMES) {
    const [holder, next] = times.length % 2 === 0 ? players : players.toReversed();
    const taking = next.perform(`${side}Take`, { key });
    await sleep(HOLD_MIN_MS + Math.random() * (HOLD_MAX_MS - HOLD_MIN_MS));
    pings.push(await holder.perform('ping', {}));
    await sleep(PAUSE_MS);
    const released = await holder.perform(`${side}Release`, {});
    times.push(await taking - released);
  }
  await first.perform(`${side}Release`, {});
  await stage.dismiss(players);
  return {
    handOvers: times.length,
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
    const pings = []; // of both sides, for one unit
    const facts = {};
    // One after the other, so that neither is in the other's way.
    for (const side of stage.sides) facts[side] = await play(stage, side, pings);
    for (const side of stage.sides) facts[side].roundTripMs = median(pings);
    return facts;
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
