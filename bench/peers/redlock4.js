'use strict';

const Redlock = require('redlock4');

const { connectNodes, NODE_TIMEOUT_MS } = require('./redis-nodes');

const TTL_MS = 30000;

/**
 * redlock 4 on a quorum of Redis servers, over ioredis. It waits for all nodes: without a
 * `commandTimeout` it hangs for as long as one of them does.
 *
 * @param {number[]} ports of the servers on this machine
 */
function openRedlock4Quorum(ports) {
  const nodes = connectNodes(ports, { commandTimeout: NODE_TIMEOUT_MS });
  const redlock = new Redlock(nodes.clients);
  redlock.on('clientError', () => undefined);
  return {
    acquire: (key) => redlock.lock(key, TTL_MS),
    release: (lock) => lock.unlock(),
    settle: nodes.settle,
    close: nodes.close,
  };
}

module.exports = { openRedlock4Quorum };
