'use strict';

// The three who lock keys, opened on files in one folder, and what a pair of theirs looks like.

const { turn } = require('./load');
const { openHoldfast } = require('./peers/holdfast');
const { openLockTable } = require('./peers/lock-table');
const { openProperLockfile } = require('./peers/proper-lockfile');

const KEYS_PER_LANE = 16;

/** @returns {Promise<Record<string, object>>} ours first */
async function openLockers(folder) {
  return {
    Holdfast: await openHoldfast(folder),
    'proper-lockfile': openProperLockfile(folder),
    'lock table': openLockTable(folder),
  };
}

async function closeLockers(lockers) {
  for (const locker of Object.values(lockers)) await locker.close();
}

/**
 * An operation for load(): acquires and releases.
 *
 * @param {object} locker
 * @param {{ contended: boolean, renewed: boolean, prefix?: string }} how one key for all, or keys
 *   that no two lanes share
 */
function pairs(locker, { contended, renewed, prefix = 'key' }) {
  if (!contended) {
    return async (lane, n) => {
      const lock = await locker.acquire(`${prefix}-${lane}-${n % KEYS_PER_LANE}`, renewed);
      await locker.release(lock);
    };
  }
  let inside = 0;
  return async () => {
    const lock = await locker.acquire(`${prefix}-contended`, renewed);
    // Whoever lets two in at once may be fast, but is no lock.
    if (++inside !== 1) throw new Error('two lanes hold one lock');
    await turn(); // as the shortest work that waits for anything
    inside--;
    await locker.release(lock);
  };
}

module.exports = { openLockers, closeLockers, pairs };
