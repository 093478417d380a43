'use strict';

// Who still holds a lock after the event loop of its holder has stood still for longer than the
// time to live: each holder in a process of its own, and somebody else who wants the same key.

const { ask, endChild, nextMessage, startChild } = require('./child');
const { OPEN } = require('./redis-lockers');

const TTL_MS = 1000;
const STALL_MS = 3000;
const TIMES = 3;

// Holds and stalls once; resolves with when the next one had the lock, relative to the stall.
async function stallOnce(child, next, key) {
  const held = await ask(child, { key, ttl: TTL_MS, stall: STALL_MS });
  if (held !== 'held') throw new Error(`${key} was not held`);
  const stood = nextMessage(child);
  const lock = await next.acquire(key, true);
  const taken = Number(process.hrtime.bigint());
  const { from, until, believed } = await stood;
  await next.release(lock);
  const ms = (at) => (at - from) / 1e6;
  return { taken: ms(taken), stall: ms(until), kept: taken > until, believed };
}

async function stallsOf(name, port) {
  const child = startChild('stall-child.js', [String(port), name]);
  const next = await OPEN[name](port);
  try {
    await nextMessage(child);
    const stalls = [];
    while (stalls.length < TIMES) {
      stalls.push(await stallOnce(child, next, `stalled-${name}-${stalls.length}`));
    }
    return stalls;
  } finally {
    await next.close();
    await endChild(child);
  }
}

/**
 * Lets the holders of all who renew their locks stand still, a few times each.
 *
 * @param {number} port
 * @returns {Promise<Record<string, Array<{ taken: number, stall: number, kept: boolean,
 *   believed: boolean }>>>} `taken`: ms from the beginning of the stall until the next one had the
 *   lock; `kept`: that was not before its end; `believed`: what the holder's library said after it
 */
async function measureStalls(port) {
  const names = Object.keys(OPEN);
  const all = await Promise.all(names.map((name) => stallsOf(name, port)));
  return Object.fromEntries(names.map((name, i) => [name, all[i]]));
}

function stallText(stalls) {
  const lost = stalls.filter(({ kept }) => !kept);
  if (lost.length === 0) return `held in ${stalls.length} of ${stalls.length} stalls`;
  const longest = Math.max(...lost.map(({ taken, stall }) => stall - taken));
  const believed = lost.filter((one) => one.believed).length;
  return `taken by another in ${lost.length} of ${stalls.length} stalls, so that two had it for up `
    + `to ${Math.round(longest)} ms; ${believed} times the first took it for held after that`;
}

/** What came of measureStalls(), in a line for each. */
function stallsText(all) {
  const width = Math.max(...Object.keys(all).map((name) => name.length));
  return [
    `a holder's event loop stands still for ${STALL_MS} ms, ttl ${TTL_MS} ms`,
    ...Object.entries(all).map(([name, stalls]) => `  ${name.padEnd(width)}  ${stallText(stalls)}`),
  ].join('\n');
}

module.exports = { measureStalls, stallsText };
