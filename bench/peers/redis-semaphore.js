'use strict';

const Redis = require('ioredis');
const { Mutex } = require('redis-semaphore');

const RENEWED = 3; // times in a TTL, as Holdfast does

/**
 * The Mutex of redis-semaphore on one Redis. It always renews, and whoever has to wait looks again
 * after every pause.
 *
 * @param {number} port of the server on this machine
 * @param {object} [options] of each Mutex, such as `retryInterval`, the pause in ms; by default its
 *   own
 */
function openRedisSemaphore(port, options) {
  const client = new Redis({ host: '127.0.0.1', port });
  return {
    async acquire(key) {
      const mutex = new Mutex(client, key, options);
      await mutex.acquire();
      return mutex;
    },
    release: (mutex) => mutex.release(),
    /** Works with the lock, which it renews meanwhile; resolves with whether it then had it. */
    async hold(key, ttl, work) {
      const mutex = new Mutex(client, key, {
        lockTimeout: ttl, refreshInterval: ttl / RENEWED, onLockLost: () => undefined,
      });
      await mutex.acquire();
      await work();
      const held = mutex.isAcquired;
      await mutex.release();
      return held;
    },
    ping: () => client.ping(),
    close: () => client.quit(),
  };
}

module.exports = { openRedisSemaphore };
