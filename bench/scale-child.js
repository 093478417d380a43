'use strict';

// The process of the suite `scale`: it holds many locks on one file, and tells what that takes.

const { setTimeout: sleep } = require('node:timers/promises');
const { setFlagsFromString } = require('node:v8');
const { runInNewContext } = require('node:vm');

const { open } = require('holdfast');

const { startedThreads, threadSeconds, threads } = require('./threads');

const TOGETHER = 1000; // in flight while they are taken and released
const OPTIONS = { ttl: '30s', wait: Infinity };

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');

/** What the process takes, without what is garbage already. */
function memory() {
  collectGarbage();
  const { rss, heapUsed } = process.memoryUsage();
  return { rss, heap: heapUsed };
}

async function takeAll(hf, locks, prefix, count) {
  for (let n = 0; n < count; n += TOGETHER) {
    const some = Array.from({ length: Math.min(TOGETHER, count - n) }, (_, i) => (
      hf.lock(`${prefix}-${n + i}`, OPTIONS)
    ));
    locks.push(...await Promise.all(some));
  }
}

/** Resolves with how many had been lost. */
async function releaseAll(locks) {
  let lost = 0;
  for (let n = 0; n < locks.length; n += TOGETHER) {
    const some = locks.slice(n, n + TOGETHER).map((lock) => lock.held && lock.release());
    for (const kept of await Promise.all(some)) lost += kept ? 0 : 1;
  }
  return lost;
}

// The keeper is the thread that comes with the first lock that renews. The others that Holdfast and
// Node.js use are all there once a lock has been taken that does not.
async function startKeeper(hf) {
  await (await hf.lock('first', { ...OPTIONS, renew: false })).release();
  const before = threads();
  const lock = await hf.lock('second', OPTIONS);
  const started = startedThreads(before);
  if (started.length !== 1) throw new Error(`${started.length} threads started with the keeper`);
  await lock.release();
  return started[0];
}

/** Waits for `seconds`; resolves with what the keeper and the locks did meanwhile. */
async function watch(locks, keeper, before, seconds) {
  const started = performance.now();
  const end = started + 1000 * seconds;
  const worked = threadSeconds(keeper);
  let left = Infinity;
  while (performance.now() < end) {
    await sleep(Math.min(1000, Math.max(0, end - performance.now())));
    for (const lock of locks) left = Math.min(left, lock.remaining());
  }
  const took = (performance.now() - started) / 1000;
  const share = (threadSeconds(keeper) - worked) / took;
  const after = memory();
  return {
    keeper: 100 * share,
    left: left / 1000,
    rss: (after.rss - before.rss) / locks.length,
    heap: (after.heap - before.heap) / locks.length,
  };
}

async function main(url, count, rounds, seconds) {
  const hf = await open(url);
  const keeper = await startKeeper(hf);
  const few = [];
  await takeAll(hf, few, 'warm', 2 * TOGETHER);
  await releaseAll(few.splice(0));
  const before = memory();

  const locks = [];
  const started = performance.now();
  await takeAll(hf, locks, 'key', count);
  process.send({ taken: (performance.now() - started) / 1000 });
  for (let round = 0; round < rounds; round++) {
    process.send({ round: await watch(locks, keeper, before, seconds) });
  }
  process.send({ lost: await releaseAll(locks) });
  await hf.close();
  process.disconnect();
}

process.on('disconnect', () => process.exit()); // at its end, or when its parent dies
const [url, ...numbers] = process.argv.slice(2);
main(url, ...numbers.map(Number));
