'use strict';

// The clients of those who lock on several Redis servers and leave the connections to their users.

const Redis = require('ioredis');

/**
 * How long the peers wait for an answer of one node. ioredis by itself waits for ever, and a frozen
 * node closes no connection. The page on Redlock advises 5 to 50 ms at a TTL of 10 s, so that these
 * are of the same kind for the 30 s that all have here, and three times what a command takes where
 * 100 pairs are in flight.
 */
const NODE_TIMEOUT_MS = 100;

/** Tries a PING until it is answered. */
async function settled(client) {
  for (;;) {
    try {
      await client.ping();
      return;
    } catch (error) {
      if (error.message !== 'Command timed out') throw error;
    }
  }
}

/**
 * Connects an ioredis client to each port of this machine.
 *
 * @param {number[]} ports
 * @param {object} [options] of the clients
 * @returns {{ clients: Redis[], settle: () => Promise<void>, close: () => Promise<void> }}
 *   `settle` resolves when each node has answered all that it was sent
 */
function connectNodes(ports, options) {
  const clients = ports.map((port) => new Redis({ host: '127.0.0.1', port, ...options }));
  for (const client of clients) client.on('error', () => undefined); // their users are told as well
  const all = async (work) => {
    await Promise.all(clients.map(work));
  };
  return {
    clients,
    settle: () => all(settled),
    close: () => all((client) => client.quit()),
  };
}

module.exports = { connectNodes, NODE_TIMEOUT_MS };
