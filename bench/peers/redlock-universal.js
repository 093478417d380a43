'use strict';

const Redis = require('ioredis');
const { createLock, IoredisAdapter } = require('redlock-universal');

const TTL_MS = 30000;

/**
 * redlock-universal on one Redis, over ioredis. It knows no fences.
 *
 * @param {number} port of the server on this machine
 * @param {object} [options] of each lock, such as `retryDelay` in ms; by default its own, but that
 *   it waits for ever
 */
function openRedlockUniversal(port, options) {
  const client = new Redis({ host: '127.0.0.1', port });
  const adapter = new IoredisAdapter(client);
  const locks = new Map();

  // One for each key, as it is meant to be used.
  function lockOf(key) {
    if (!locks.has(key)) {
      const retryAttempts = Number.MAX_SAFE_INTEGER;
      locks.set(key, createLock({ adapter, key, ttl: TTL_MS, retryAttempts, ...options }));
    }
    return locks.get(key);
  }

  return {
    acquire: (key) => lockOf(key).acquire(),
    release: (handle) => lockOf(handle.key).release(handle),
    /** Works with the lock, which it extends meanwhile; resolves with whether it then had it. */
    hold: (key, ttl, work) => createLock({ adapter, key, ttl }).using(async (signal) => {
      await work();
      return !signal.aborted;
    }),
    ping: () => client.ping(),
    close: () => client.quit(),
  };
}

/** Looks again after every millisecond. */
const FAST_OPTIONS = { retryDelay: 1 };

module.exports = { openRedlockUniversal, FAST_OPTIONS };
