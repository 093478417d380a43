'use strict';

const fs = require('node:fs');
const path = require('node:path');

const { lock } = require('proper-lockfile');

const { PAUSE_MAX_MS, PAUSE_MIN_MS } = require('./poll');

// Left to itself it does not wait at all, so that whoever waits has to say for how long.
const RETRIES = {
  forever: true,
  retries: 4,
  factor: 2,
  minTimeout: PAUSE_MIN_MS,
  maxTimeout: PAUSE_MAX_MS,
  randomize: true,
};

/** Waits with the pauses that it comes with: 1 s, then 2, 4 and so on. */
const OWN_RETRIES = { forever: true };

/** Looks again after every millisecond, the shortest pause that a timer of Node.js has. */
const FAST_RETRIES = { forever: true, retries: 1, minTimeout: 1, maxTimeout: 1 };

/** proper-lockfile: one directory per key that is locked. It always renews. */
function openProperLockfile(folder, retries = RETRIES) {
  const keys = path.join(folder, 'lockfiles');
  const options = { realpath: false, retries };
  fs.mkdirSync(keys, { recursive: true });
  return {
    acquire: (key) => lock(path.join(keys, key), options),
    release: (release) => release(),
    close: () => undefined,
  };
}

module.exports = { openProperLockfile, OWN_RETRIES, FAST_RETRIES };
