'use strict';

// The Redis servers of a quorum, some of which can be frozen.

const fs = require('node:fs');
const path = require('node:path');

const { startRedis } = require('./redis-server');

/**
 * Starts `count` Redis servers that keep their files in `folder`.
 *
 * @returns {Promise<object | null>} null where redis-server is not installed
 */
async function startNodes(folder, count) {
  const nodes = [];
  const stop = async () => {
    await Promise.all(nodes.map((node) => node.stop()));
  };
  try {
    while (nodes.length < count) {
      const own = path.join(folder, `node-${nodes.length}`);
      fs.mkdirSync(own);
      const node = await startRedis(own);
      if (node === null) return null;
      nodes.push(node);
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    ports: nodes.map(({ port }) => port),
    /** Freezes `some` of them, beginning with number `first`, and no others. */
    freeze(some, first) {
      nodes.forEach((node, i) => {
        if ((i - first + count) % count < some) node.freeze();
        else node.resume();
      });
    },
    resume: () => nodes.forEach((node) => node.resume()),
    stop,
  };
}

module.exports = { startNodes };
