'use strict';

// Where effects are counted: an append-only file outside the store under trial, one line per
// effect. O_APPEND makes each line land whole and last, whichever process writes it, so the order
// of the lines is the order in which things happened.

const fs = require('node:fs');

class Sink {
  /** @param {string} file */
  constructor(file) {
    this.file = file;
  }

  /** Writes one effect. Synchronous: once it returns, the effect has happened. */
  append(effect) {
    fs.writeFileSync(this.file, `${JSON.stringify(effect)}\n`, { flag: 'a' });
  }

  /** Every effect so far, oldest first. */
  read() {
    if (!fs.existsSync(this.file)) return [];
    return fs.readFileSync(this.file, 'utf8').split('\n').filter(Boolean).map((l) => JSON.parse(l));
  }

  /** How many effects of one kind there are. */
  count(what) {
    return this.read().filter((effect) => effect.what === what).length;
  }
}

module.exports = { Sink };
