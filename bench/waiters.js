'use strict';

// Who holds a key and who waits for it, in one process or two, and how long it takes from the one
// to the other.

const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');

const { openAsyncMutex } = require('./peers/async-mutex');
const { openHoldfast, openHoldfastMemory } = require('./peers/holdfast');
const { openProperLockfile, FAST_RETRIES, OWN_RETRIES } = require('./peers/proper-lockfile');
const { openRedisSemaphore } = require('./peers/redis-semaphore');
const { ask, nextMessage } = require('./child');
const { Samples } = require('./stats');

const KEY = 'handed-over';
// How long a holder keeps the lock: long enough for the other to have begun to wait, and over 10 ms
// of difference, so that a release comes at any time between two looks of those who look again.
const HOLD_MIN_MS = 2;
const HOLD_MAX_MS = 12;

const MEMORY = 'Holdfast memory';
const SQLITE = 'Holdfast sqlite';
const ASYNC_MUTEX = 'async-mutex';
const REDIS = 'redis-semaphore, 10 ms';
const REDIS_FAST = 'redis-semaphore, 1 ms';
const FILE = 'proper-lockfile, 1 s';
const FILE_FAST = 'proper-lockfile, 1 ms';

/** Those who work within one process only. */
const LOCAL = [MEMORY, ASYNC_MUTEX];
/** Those whose hand-overs take so long that a round has only a few. */
const SLOW = [FILE];

/**
 * Opens them all, ours first. A time in a name is the pause of a peer that waits by looking again:
 * once as it comes, once as short as it goes.
 *
 * @param {string} folder
 * @param {number | null} port of Redis; without one its clients are left out
 * @returns {Promise<Record<string, object>>}
 */
async function openWaiters(folder, port) {
  const redis = port === null ? {} : {
    [REDIS]: openRedisSemaphore(port),
    [REDIS_FAST]: openRedisSemaphore(port, { retryInterval: 1 }),
  };
  return {
    [MEMORY]: await openHoldfastMemory(),
    [SQLITE]: await openHoldfast(folder),
    [ASYNC_MUTEX]: openAsyncMutex(),
    ...redis,
    [FILE]: openProperLockfile(path.join(folder, 'slow'), OWN_RETRIES),
    [FILE_FAST]: openProperLockfile(path.join(folder, 'fast'), FAST_RETRIES),
  };
}

/** The clock that all processes of a machine share, in ns. */
function now() {
  return Number(process.hrtime.bigint());
}

function hold() {
  return sleep(HOLD_MIN_MS + Math.random() * (HOLD_MAX_MS - HOLD_MIN_MS));
}

/** Asks for the key; resolves with the lock and when it was there. */
async function take(locker) {
  const lock = await locker.acquire(KEY, true);
  return { at: now(), lock };
}

/** Begins to release the key; returns when that was, and what resolves when it is done. */
function letGo(locker, lock) {
  const at = now();
  return { at, done: locker.release(lock) };
}

function add(times, released, taken) {
  if (taken <= released) throw new Error('two hold one lock');
  times.add((taken - released) / 1e6);
}

async function passOn(locker, times, end) {
  let { lock } = await take(locker);
  do {
    const next = take(locker);
    await hold();
    const released = letGo(locker, lock);
    const taken = await next;
    add(times, released.at, taken.at);
    await released.done;
    lock = taken.lock;
  } while (performance.now() < end);
  await locker.release(lock);
}

// There and back again. Only who does not hold the key asks for it: who looks again and again
// would else find it free before the other process does. And nothing is sent to the other process
// between a release and what it leads to.
async function passBetween(locker, child, name, times, end) {
  let { lock } = await take(locker);
  do {
    await ask(child, { step: 'take', name });
    const there = nextMessage(child);
    await hold();
    const released = letGo(locker, lock);
    add(times, released.at, (await there).at);
    await released.done;
    const back = take(locker);
    child.send({ step: 'release' });
    const taken = await back;
    add(times, (await ask(child, { step: 'released' })).at, taken.at);
    lock = taken.lock;
  } while (performance.now() < end);
  await locker.release(lock);
}

/** What the other process does, told step by step by passBetween(), and what `more` it can do. */
function followSteps(waiters, more = {}) {
  let locker = null;
  let lock = null;
  let released = null;
  const steps = {
    async take({ name }) {
      locker = waiters[name];
      const taken = take(locker);
      process.send({ step: 'asked' });
      const { at, lock: one } = await taken;
      lock = one;
      process.send({ step: 'taken', at });
    },
    async release() {
      await hold();
      released = letGo(locker, lock);
    },
    async released() {
      await released.done;
      process.send({ step: 'released', at: released.at });
    },
    ...more,
  };
  process.on('message', (message) => steps[message.step](message));
}

/**
 * Hands a key over for `seconds`, at least once.
 *
 * @param {{ name: string, locker: object, child?: object, few?: boolean }} who `child`: to that
 *   process and back, instead of to another waiter of this one; `few`: a round has only a few
 * @returns {Promise<{ count: number, p50: number, p99?: number }>} ms; no p99 of a few
 */
async function handOver({ name, locker, child, few = SLOW.includes(name) }, seconds) {
  const times = new Samples();
  const end = performance.now() + 1000 * seconds;
  await (child === undefined ? passOn(locker, times, end)
    : passBetween(locker, child, name, times, end));
  const figures = { count: times.length, p50: times.quantile(0.5) };
  return few ? figures : { ...figures, p99: times.quantile(0.99) };
}

module.exports = { handOver, hold, followSteps, openWaiters, LOCAL };
