'use strict';

const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');

const { open } = require('holdfast');
const { postgres } = require('holdfast/postgres');

const RENEWED = { wait: Infinity };
const NOT_RENEWED = { wait: Infinity, renew: false };
const LOOK_MS = 10;

async function openLocker(url, options) {
  const hf = await open(url, options);
  return {
    hf,
    acquire: (key, renew) => hf.lock(key, renew ? RENEWED : NOT_RENEWED),
    release: (lock) => lock.release(),
    /** Works with the lock; resolves with whether it then had it. */
    hold: (key, ttl, work) => hf.withLock(key, { ttl, wait: Infinity }, async (lock) => {
      await work();
      return lock.held;
    }),
    ping: () => hf.ping(),
    close: () => hf.close(),
  };
}

/** Holdfast on an SQLite file, as its users open it. */
function openHoldfast(folder) {
  return openLocker(`sqlite:${path.join(folder, 'holdfast.db')}`);
}

/** Holdfast within this process. */
function openHoldfastMemory() {
  return openLocker('memory:');
}

/** Holdfast on a Redis server of this machine. */
function openHoldfastRedis(port) {
  return openLocker(`redis://127.0.0.1:${port}`);
}

/** Holdfast on a PostgreSQL: its store's leases and entries. */
function openHoldfastPostgres(url) {
  return openLocker(url);
}

/**
 * Its advisory locks, statements and transactions.
 *
 * @param {string} url
 * @param {{ dedicated?: boolean, max?: number }} [options] of each lock, and of the pool
 */
async function openHoldfastAdvisory(url, { dedicated = false, max } = {}) {
  const pg = postgres(url, max === undefined ? {} : { max, idleTimeout: '1h' });
  await pg.holdfast.ping();
  const options = { wait: Infinity, dedicated };
  return {
    pg,
    acquire: (key) => pg.advisoryLock(key, options),
    release: (lock) => lock.release(),
    ping: () => pg.holdfast.ping(),
    close: () => pg.close(),
  };
}

/**
 * Holdfast on a quorum of Redis servers of this machine, as it comes.
 *
 * @param {number[]} ports
 * @param {{ fencing?: boolean }} [options]
 */
async function openHoldfastQuorum(ports, options) {
  const locker = await openLocker(ports.map((port) => `redis://127.0.0.1:${port}`), options);
  return {
    ...locker,
    /** Resolves when all nodes vote. */
    async settle() {
      while (!locker.hf.nodes().every(({ state }) => state === 'voting')) await sleep(LOOK_MS);
    },
  };
}

module.exports = {
  openHoldfast,
  openHoldfastAdvisory,
  openHoldfastMemory,
  openHoldfastPostgres,
  openHoldfastQuorum,
  openHoldfastRedis,
};
