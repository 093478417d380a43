'use strict';

// The histories that processes of the fault tests write down, each in a file of its own that is
// only appended to. test/history.js tells the kinds of events and judges them.

const fs = require('node:fs');
const path = require('node:path');

/** One process's part of the history. */
class Notes {
  #file;
  #now;

  /**
   * @param {string} file
   * @param {() => number} now milliseconds of the clock that all processes of the machine share
   */
  constructor(file, now) {
    this.#file = fs.openSync(file, 'a');
    this.#now = now;
  }

  /** Each event has left this process before the next statement runs. */
  note(type, details) {
    fs.writeSync(this.#file, `${JSON.stringify({ type, ...details })}\n`);
  }

  /** Of a lock that was granted. False if this process stood still until it was lost again. */
  taken(lock, details) {
    const { token, fence, signal } = lock;
    const t = this.#now();
    if (!lock.held) return false;
    this.note('take', { ...details, token, fence, t });
    signal.addEventListener('abort', () => {
      // Who leads is told to stop in the same way.
      if (!lock.held) this.note('lost', { token, t: this.#now() });
    });
    this.holding(lock);
    return true;
  }

  /** That it is held now, and until when. */
  holding(lock) {
    const t = this.#now();
    const left = lock.remaining();
    if (left === 0) return;
    this.note('held', { token: lock.token, t });
    this.note('until', { token: lock.token, t: t + left });
  }

  /** Before it is released. Nothing of one that was lost: a late note would make it look longer. */
  releasing(lock) {
    const t = this.#now();
    if (lock.held) this.note('release', { token: lock.token, t });
  }

  async release(lock) {
    this.releasing(lock);
    const { token } = lock;
    if (await lock.release()) this.note('released', { token, t: this.#now() });
  }
}

/** All events in the files of a folder; the last line of each may be cut off by a kill. */
function readNotes(folder) {
  return fs.readdirSync(folder).flatMap((name) => {
    const lines = fs.readFileSync(path.join(folder, name), 'utf8').split('\n');
    return lines.slice(0, -1).map((line) => JSON.parse(line));
  });
}

module.exports = { Notes, readNotes };
