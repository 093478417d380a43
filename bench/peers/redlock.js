'use strict';

const Redis = require('ioredis');
const { default: Redlock } = require('redlock');

const { connectNodes, NODE_TIMEOUT_MS } = require('./redis-nodes');

const TTL_MS = 30000;
// Not of the whole: a release of a lock that is lost would be tried for ever.
const WAIT = { retryCount: -1 };

/**
 * redlock 5 on one Redis, over ioredis as it comes. It knows no fences.
 *
 * @param {number} port of the server on this machine
 * @param {object} [settings] such as `retryDelay` and `retryJitter` in ms; by default its own, but
 *   that it waits for ever
 */
function openRedlock(port, settings) {
  const client = new Redis({ host: '127.0.0.1', port });
  const redlock = new Redlock([client], settings);
  return {
    acquire: (key) => redlock.acquire([key], TTL_MS, WAIT),
    release: (lock) => lock.release(),
    /** Works with the lock, which it extends meanwhile; resolves with whether it then had it. */
    hold: (key, ttl, work) => redlock.using([key], ttl, WAIT, async (signal) => {
      await work();
      return !signal.aborted;
    }),
    ping: () => client.ping(),
    close: () => client.quit(),
  };
}

/**
 * redlock 5 on a quorum of Redis servers. It goes on as soon as a majority has answered; but
 * without a `commandTimeout` it keeps whatever it sends to a frozen node for as long as that is
 * frozen.
 *
 * @param {number[]} ports of the servers on this machine
 * @param {object} [options] of the clients
 */
function openRedlockQuorum(ports, options) {
  const nodes = connectNodes(ports, { commandTimeout: NODE_TIMEOUT_MS, ...options });
  const redlock = new Redlock(nodes.clients);
  return {
    acquire: (key) => redlock.acquire([key], TTL_MS),
    release: (lock) => lock.release(),
    settle: nodes.settle,
    close: nodes.close,
  };
}

/** Looks again after every millisecond, the shortest pause that a timer of Node.js has. */
const FAST_SETTINGS = { retryDelay: 1, retryJitter: 0 };

module.exports = { openRedlock, openRedlockQuorum, FAST_SETTINGS };
