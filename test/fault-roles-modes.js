'use strict';

// Processes that hold locks together with others: counted, shared, and of several keys. What
// happens they write down, see fault-notes.js.

const { setTimeout: sleep } = require('node:timers/promises');
const { open } = require('../lib');
const { PATIENCE_MS, SELFISH, seeded } = require('./fault-harness');
const { Notes } = require('./fault-notes');

/** Holds a lock, from its grant to its end, for up to `ms`. */
async function hold(lock, notes, ms, details) {
  if (!notes.taken(lock, details)) return;
  await sleep(ms);
  notes.holding(lock);
  await notes.release(lock);
}

/** Takes one of the permits over and over, until it is killed. */
async function permitted({ url, key, permits, ttl, history, seed, low, high }, { say, now }) {
  const hf = await open(url);
  const notes = new Notes(history, now);
  const random = seeded(seed);
  say('ready');
  for (;;) {
    const asked = now();
    const lock = await hf.lock(key, { permits, ttl, wait: Infinity });
    say('has');
    await hold(lock, notes, random.between(low, high), {
      key, permits, asked, worker: process.pid,
    });
    say('had');
  }
}

/** As many readers at a time as there are lanes, until it is told to stop, or killed. */
async function reader({ url, key, ttl, history, seed, lanes, low, high }, { say, now, serve }) {
  const hf = await open(url);
  const notes = new Notes(history, now);
  const random = seeded(seed);
  const state = { stopped: false };
  serve({ stop: () => { state.stopped = true; } });
  say('ready');
  const lane = async () => {
    while (!state.stopped) {
      const asked = now();
      const lock = await hf.lock(key, { mode: 'shared', ttl, wait: PATIENCE_MS });
      await hold(lock, notes, random.between(low, high), { key, mode: 'shared', asked });
      await sleep(random.between(0, 5));
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  await hf.close();
  process.stdin.destroy();
}

/**
 * One reader that never waits, and so sees when readers are barred. It is alone in its process, and
 * leaves the turn to nobody: else nobody could tell whether the store was asked.
 */
async function prober({ url, key, ttl, history, seed, low, high }, { say, now, serve }) {
  const hf = await open(url, SELFISH);
  const notes = new Notes(history, now);
  const random = seeded(seed);
  const state = { stopped: false };
  serve({ stop: () => { state.stopped = true; } });
  say('ready');
  while (!state.stopped) {
    const asked = now();
    const lock = await hf.tryLock(key, { mode: 'shared', ttl });
    if (lock === null) notes.note('barred', { key, from: asked, t: now() });
    else await hold(lock, notes, random.between(low, high), { key, mode: 'shared', asked });
    await sleep(random.between(1, 8));
  }
  await hf.close();
  process.stdin.destroy();
}

/** Has its turns, one after the other, and ends. */
async function writer({ url, key, ttl, history, seed, turns, low, high }, { say, now }) {
  const hf = await open(url);
  const notes = new Notes(history, now);
  const random = seeded(seed);
  say('ready');
  for (let i = 0; i < turns; i++) {
    await sleep(random.between(0, 2 * high));
    const asked = now();
    const lock = await hf.lock(key, { ttl, wait: PATIENCE_MS });
    await hold(lock, notes, random.between(low, high), { key, asked });
  }
  await hf.close();
  say('done');
}

/** Which forks a philosopher needs: the two beside the seat, or any three to five. */
function forksFor(random, forks) {
  if (random.chance(0.7)) {
    const seat = random.between(0, forks - 1);
    return [seat, (seat + 1) % forks];
  }
  const chosen = new Set();
  const count = random.between(3, 5);
  while (chosen.size < count) chosen.add(random.between(0, forks - 1));
  return [...chosen]; // in no order
}

/** Philosophers that sit at one table with those of other processes, and leave when they ate. */
async function diners({ url, forks, names, meals, ttl, history, seed }, { say, now }) {
  const hf = await open(url);
  const notes = new Notes(history, now);
  const dine = async (who) => {
    const random = seeded(seed + who);
    for (let i = 0; i < meals; i++) {
      const keys = forksFor(random, forks).map((fork) => `fork-${fork}`);
      const asked = now();
      const lock = await hf.lock(keys, { ttl, wait: PATIENCE_MS });
      await hold(lock, notes, random.between(0, 4), { keys, asked, who });
    }
  };
  await Promise.all(names.map(dine));
  await hf.close();
  say('sated');
}

module.exports = { permitted, reader, prober, writer, diners };
