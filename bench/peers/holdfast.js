'use strict';

const path = require('node:path');

const { open } = require('holdfast');

const RENEWED = { wait: Infinity };
const NOT_RENEWED = { wait: Infinity, renew: false };

/** Holdfast on an SQLite file, as its users open it. */
async function openHoldfast(folder) {
  const hf = await open(`sqlite:${path.join(folder, 'holdfast.db')}`);
  return {
    hf,
    acquire: (key, renew) => hf.lock(key, renew ? RENEWED : NOT_RENEWED),
    release: (lock) => lock.release(),
    close: () => hf.close(),
  };
}

module.exports = { openHoldfast };
