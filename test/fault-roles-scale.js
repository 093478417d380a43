'use strict';

// A process that holds very many locks, and measures what that costs it.

const fs = require('node:fs');
const v8 = require('node:v8');
const vm = require('node:vm');
const { subscribe } = require('node:diagnostics_channel');
const { setTimeout: sleep } = require('node:timers/promises');
const { open } = require('../lib');

const TOGETHER = 2000; // asked for at a time
const TICKS = 100; // of the kernel's accounting, in a second

/** Processor time of each thread of this process, in seconds. */
function threadTimes() {
  const times = new Map();
  for (const id of fs.readdirSync('/proc/self/task')) {
    const stat = fs.readFileSync(`/proc/self/task/${id}/stat`, 'latin1');
    // What follows the name, which may have blanks in it; fields 14 and 15 of all.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    times.set(Number(id), (Number(fields[11]) + Number(fields[12])) / TICKS);
  }
  return times;
}

/** What the processor did for this process since `before`, as shares of one core. */
function measureSince(before) {
  const seconds = (performance.now() - before.at) / 1000;
  const { user, system } = process.cpuUsage(before.cpu);
  const shares = [...threadTimes()]
    .map(([id, time]) => ({ id, share: (time - (before.threads.get(id) ?? 0)) / seconds }))
    .filter(({ share }) => share > 0);
  const main = shares.find(({ id }) => id === process.pid)?.share ?? 0;
  // JavaScript has nothing to do meanwhile: of the other threads the keeper is the busiest.
  const [keeper = 0, ...rest] = shares
    .filter(({ id }) => id !== process.pid)
    .map(({ share }) => share)
    .sort((a, b) => b - a);
  const others = rest.reduce((sum, share) => sum + share, 0);
  return { seconds, all: (user + system) / 1e6 / seconds, keeper, main, others };
}

function measureStart() {
  return { at: performance.now(), cpu: process.cpuUsage(), threads: threadTimes() };
}

async function hoarder({ url, count, ttl }, { say, serve }) {
  v8.setFlagsFromString('--expose-gc');
  const collect = vm.runInNewContext('gc');
  const hf = await open(url);
  const locks = [];
  const lost = [];

  const memory = () => {
    collect();
    const { rss, heapUsed, external } = process.memoryUsage();
    return { rss, heapUsed, external };
  };
  const heldCount = () => locks.filter((lock) => lock.held).length;

  async function inTurns(work) {
    const from = performance.now();
    for (let i = 0; i < count; i += TOGETHER) {
      const numbers = Array.from({ length: Math.min(TOGETHER, count - i) }, (_, j) => i + j);
      await Promise.all(numbers.map(work));
    }
    return (performance.now() - from) / 1000;
  }

  serve({
    memory,
    take: () => inTurns(async (i) => {
      locks[i] = await hf.lock(`scale/${i}`, { ttl, wait: '5m' });
    }),
    held: heldCount,
    // A lock that was lost is never held again, so one look tells of all the time before.
    rest: async ({ ms }) => {
      const before = measureStart();
      await sleep(ms);
      return { ...measureSince(before), held: heldCount() };
    },
    follow: async () => {
      subscribe('holdfast:lock', ({ event, error }) => {
        if (event === 'lost') lost.push(error.message);
      });
      await hf.withLock('seen', () => {}); // renewals are told from the next operation on
    },
    lost: () => lost,
    release: async () => {
      let held = 0;
      const seconds = await inTurns(async (i) => {
        if (await locks[i].release()) held += 1;
      });
      return { held, seconds };
    },
    close: async () => {
      await hf.close();
      process.stdin.destroy();
    },
  });
  say('ready');
}

module.exports = { hoarder };
