'use strict';

const fs = require('node:fs');
const path = require('node:path');

const { lock } = require('proper-lockfile');

const { PAUSE_MAX_MS, PAUSE_MIN_MS } = require('./poll');

const OPTIONS = {
  realpath: false,
  retries: {
    forever: true,
    retries: 4,
    factor: 2,
    minTimeout: PAUSE_MIN_MS,
    maxTimeout: PAUSE_MAX_MS,
    randomize: true,
  },
};

/** proper-lockfile: one directory per key that is locked. It always renews. */
function openProperLockfile(folder) {
  const keys = path.join(folder, 'lockfiles');
  fs.mkdirSync(keys, { recursive: true });
  return {
    acquire: (key) => lock(path.join(keys, key), OPTIONS),
    release: (release) => release(),
    close: () => undefined,
  };
}

module.exports = { openProperLockfile };
