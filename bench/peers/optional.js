'use strict';

// Peers that are not among the packages of the project: script/bench-peers fetches them for the
// benchmarks alone, since what comes with them is much.

const { createRequire } = require('node:module');
const path = require('node:path');

const requirePeer = createRequire(path.join(__dirname, '..', '..', 'build-peers', 'index.js'));

/** A module of one of them; null where it is not installed. */
function optional(name) {
  try {
    return requirePeer(name);
  } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND') throw error;
    return null;
  }
}

module.exports = { optional };
