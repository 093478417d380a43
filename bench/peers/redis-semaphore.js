'use strict';

const Redis = require('ioredis');
const { Mutex } = require('redis-semaphore');

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
    close: () => client.quit(),
  };
}

module.exports = { openRedisSemaphore };
