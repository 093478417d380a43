'use strict';

// Those who lock with PostgreSQL, ours first.

const { openAdvisoryLock } = require('./peers/advisory-lock');
const { openHoldfastAdvisory, openHoldfastPostgres } = require('./peers/holdfast');
const { openMedusa } = require('./peers/medusa');
const { openPgByHand, openPgNative } = require('./peers/pg-by-hand');

const ADVISORY = 'Holdfast advisory';
const DEDICATED = 'Holdfast, dedicated';
const LEASES = 'Holdfast leases';
const BY_HAND = 'pg by hand';
const NATIVE = 'pg-native by hand';
const ADVISORY_LOCK = 'advisory-lock';
const MEDUSA = '@medusajs/locking-postgres';
const PGBENCH = 'pgbench';

/** Connections of the pools of the peers, and clients of pgbench. */
const POOL = 20;

/** All that are installed, of those who are given by name. */
async function openAll(openers) {
  const opened = {};
  for (const [name, open] of Object.entries(openers)) {
    const locker = await open();
    if (locker !== null) opened[name] = locker;
  }
  return opened;
}

/** Those who take locks that nobody else wants. */
function openPostgresLockers(url) {
  return openAll({
    [ADVISORY]: () => openHoldfastAdvisory(url, { max: POOL }),
    [LEASES]: () => openHoldfastPostgres(url),
    [BY_HAND]: () => openPgByHand(url, POOL),
    [NATIVE]: () => openPgNative(url, POOL),
    [ADVISORY_LOCK]: () => openAdvisoryLock(url),
    [MEDUSA]: () => openMedusa(url, POOL),
  });
}

/** Those who wait for one: pg-native waits as pg does. */
function openPostgresWaiters(url) {
  return openAll({
    [DEDICATED]: () => openHoldfastAdvisory(url, { dedicated: true }),
    [ADVISORY]: () => openHoldfastAdvisory(url),
    [LEASES]: () => openHoldfastPostgres(url),
    [BY_HAND]: () => openPgByHand(url, POOL),
    [ADVISORY_LOCK]: () => openAdvisoryLock(url),
    [MEDUSA]: () => openMedusa(url, POOL),
  });
}

module.exports = {
  openPostgresLockers, openPostgresWaiters, ADVISORY, ADVISORY_LOCK, BY_HAND, LEASES, NATIVE,
  PGBENCH, POOL,
};
