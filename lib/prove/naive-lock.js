'use strict';

// The lock that everybody writes first: a row that is there or is not. SETNX, INSERT with a
// unique key and open(path, 'wx') are this lock on other stores. Without `ttl` the row stays
// until somebody deletes it; with it, it goes away by itself, whatever its owner is doing.

const { setTimeout: sleep } = require('node:timers/promises');

const POLL_MS = 50;

/**
 * Waits for the lock. Resolves true, or false once `patience` has passed.
 *
 * @param {Holdfast} hf
 * @param {string} key
 * @param {{ ttl?: string | number, patience?: number }} o times; `patience` in milliseconds
 */
async function naiveLock(hf, key, { ttl, patience = Infinity } = {}) {
  const until = performance.now() + patience;
  for (;;) {
    try {
      await hf.kv.create(key, process.pid, ttl === undefined ? undefined : { ttl });
      return true;
    } catch (error) {
      if (error.code !== 'HF_ECONFLICT') throw error;
    }
    if (performance.now() >= until) return false;
    await sleep(POLL_MS);
  }
}

async function naiveUnlock(hf, key) {
  await hf.kv.delete(key);
}

module.exports = { naiveLock, naiveUnlock };
