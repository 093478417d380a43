'use strict';

const path = require('node:path');

const { open } = require('holdfast');

const RENEWED = { wait: Infinity };
const NOT_RENEWED = { wait: Infinity, renew: false };

async function openLocker(url) {
  const hf = await open(url);
  return {
    hf,
    acquire: (key, renew) => hf.lock(key, renew ? RENEWED : NOT_RENEWED),
    release: (lock) => lock.release(),
    /** Works with the lock; resolves with whether it then had it. */
    hold: (key, ttl, work) => hf.withLock(key, { ttl, wait: Infinity }, async (lock) => {
      await work();
      return lock.held;
    }),
    ping: () => hf.ping(),
    close: () => hf.close(),
  };
}

/** Holdfast on an SQLite file, as its users open it. */
function openHoldfast(folder) {
  return openLocker(`sqlite:${path.join(folder, 'holdfast.db')}`);
}

/** Holdfast within this process. */
function openHoldfastMemory() {
  return openLocker('memory:');
}

/** Holdfast on a Redis server of this machine. */
function openHoldfastRedis(port) {
  return openLocker(`redis://127.0.0.1:${port}`);
}

module.exports = { openHoldfast, openHoldfastMemory, openHoldfastRedis };
