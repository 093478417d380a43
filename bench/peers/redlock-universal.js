'use strict';

const Redis = require('ioredis');
const { createLock, createRedlock, IoredisAdapter } = require('redlock-universal');

const { connectNodes, NODE_TIMEOUT_MS } = require('./redis-nodes');

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

/**
 * redlock-universal on a quorum of Redis servers. Its adapters have a timeout of their own, 5 s as
 * they come, and it waits for all nodes.
 *
 * @param {number[]} ports of the servers on this machine
 */
function openRedlockUniversalQuorum(ports) {
  const nodes = connectNodes(ports);
  const adapters = nodes.clients.map((client) => (
    new IoredisAdapter(client, { timeout: NODE_TIMEOUT_MS })
  ));
  const locks = new Map();

  function lockOf(key) {
    if (!locks.has(key)) locks.set(key, createRedlock({ adapters, key, ttl: TTL_MS }));
    return locks.get(key);
  }

  return {
    acquire: (key) => lockOf(key).acquire(),
    async release(handle) {
      if (!await lockOf(handle.key).release(handle)) throw new Error('no majority released it');
    },
    settle: nodes.settle,
    close: nodes.close,
  };
}

/** Looks again after every millisecond. */
const FAST_OPTIONS = { retryDelay: 1 };

module.exports = { openRedlockUniversal, openRedlockUniversalQuorum, FAST_OPTIONS };
