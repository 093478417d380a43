'use strict';

// The other process of the suite `wake`. It ends when its parent lets go of it, or dies.

const { setTimeout: sleep } = require('node:timers/promises');

const { closeLockers } = require('./contenders');
const { turn } = require('./load');
const { openAsLockers, openWakers } = require('./wakers');
const { followSteps } = require('./waiters');

const KEY = 'crowd';
// A holder lets the others come to wait again before it lets go, and comes back after them.
const HOLD_MS = 2;
const AWAY_MS = 1;

async function takeTurns(waker, end, count) {
  while (performance.now() < end) {
    const lock = await waker.acquire(KEY);
    await sleep(HOLD_MS);
    await waker.release(lock);
    count();
    await sleep(AWAY_MS);
  }
}

async function takeOwn(waker, lane, end, count) {
  while (performance.now() < end) {
    await waker.release(await waker.acquire(`own-${lane}`));
    count();
    await turn();
  }
}

/** One holds, all others wait, until the end; then each that still waits has it once more. */
async function contend(wakers, end) {
  let pairs = 0;
  await Promise.all(wakers.map((waker) => takeTurns(waker, end, () => pairs++)));
  return pairs;
}

/** Pairs of keys for which nobody waits. */
async function alone(waker, lanes, end) {
  let pairs = 0;
  await Promise.all(Array.from({ length: lanes }, (_, lane) => (
    takeOwn(waker, lane, end, () => pairs++)
  )));
  return pairs;
}

/** One holds and renews, as one would that works for longer; all others wait. */
async function renew([holder, ...others], end) {
  const lock = await holder.acquire(KEY);
  const waiting = others.map(async (waker) => waker.release(await waker.acquire(KEY)));
  let renewals = 0;
  while (performance.now() < end) {
    await sleep(HOLD_MS);
    await holder.renew(lock);
    renewals++;
  }
  const told = others.reduce((sum, { woken }) => sum + woken, 0);
  await holder.release(lock);
  await Promise.all(waiting);
  return { pairs: renewals, told };
}

async function main(port) {
  const lockers = await openAsLockers(port);
  const crowds = new Map();

  async function crowdOf(name, size) {
    const key = `${name} ${size}`;
    if (!crowds.has(key)) crowds.set(key, await openWakers(new Array(size).fill(name), port));
    return crowds.get(key);
  }

  followSteps(lockers, {
    async open({ name, size }) {
      await crowdOf(name, size);
      process.send({});
    },
    async crowd({ name, size, lanes, renewed, seconds }) {
      const wakers = await crowdOf(name, size);
      for (const waker of wakers) waker.woken = 0;
      const end = performance.now() + 1000 * seconds;
      if (renewed) {
        process.send(await renew(wakers, end));
        return;
      }
      const pairs = await (size === 1 ? alone(wakers[0], lanes, end) : contend(wakers, end));
      process.send({ pairs, told: wakers.reduce((sum, { woken }) => sum + woken, 0) });
    },
  });
  process.on('disconnect', () => {
    closeLockers(lockers);
    for (const waker of [...crowds.values()].flat()) waker.close();
  });
  process.send('ready');
}

main(Number(process.argv[2]));
