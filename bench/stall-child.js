'use strict';

// A process that holds a lock on Redis, and whose event loop then stands still for a while. It ends
// when its parent lets go of it, or dies.

const { setTimeout: sleep } = require('node:timers/promises');

const { OPEN } = require('./redis-lockers');

// What a library that notices a loss has time for, once the loop turns again.
const NOTICE_MS = 50;

/**
 * Blocks this thread, and with it the event loop. It sleeps and does not spin, so that many can
 * stand still at once on a small machine; to the loop it is the same.
 */
function block(ms) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function say(message) {
  return new Promise((resolve) => {
    process.send(message, resolve);
  });
}

async function main(port, name) {
  const locker = await OPEN[name](port);
  process.on('message', async ({ key, ttl, stall }) => {
    let stood = null;
    // A lock that was lost meanwhile may not let itself be released: that is no news.
    await locker.hold(key, ttl, async () => {
      await say('held');
      await sleep(ttl / 2); // at some time between two renewals
      stood = { from: Number(process.hrtime.bigint()) };
      block(stall);
      stood.until = Number(process.hrtime.bigint());
      await sleep(NOTICE_MS);
    }).then((held) => {
      stood.believed = held;
    }, () => {
      stood.believed = false;
    });
    await say(stood);
  });
  process.on('disconnect', () => process.exit());
  await say('ready');
}

main(Number(process.argv[2]), process.argv[3]);
