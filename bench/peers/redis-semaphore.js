'use strict';

const Redis = require('ioredis');
const { Mutex, RedlockMutex } = require('redis-semaphore');

const { connectNodes, NODE_TIMEOUT_MS } = require('./redis-nodes');

const TTL_MS = 30000;
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

/**
 * The RedlockMutex of redis-semaphore on a quorum of Redis servers. It always renews, and waits for
 * all nodes: without a `commandTimeout` it hangs for as long as one of them does.
 *
 * @param {number[]} ports of the servers on this machine
 */
function openRedlockMutex(ports) {
  const nodes = connectNodes(ports, { commandTimeout: NODE_TIMEOUT_MS });
  return {
    async acquire(key) {
      const mutex = new RedlockMutex(nodes.clients, key, { lockTimeout: TTL_MS });
      await mutex.acquire();
      return mutex;
    },
    release: (mutex) => mutex.release(),
    settle: nodes.settle,
    close: nodes.close,
  };
}

module.exports = { openRedisSemaphore, openRedlockMutex };
