'use strict';

// Those who lock keys on one Redis server, ours first.

const { openHoldfastRedis } = require('./peers/holdfast');
const { openIoredis } = require('./peers/ioredis');
const { openRedisSemaphore } = require('./peers/redis-semaphore');
const { openRedlock, FAST_SETTINGS } = require('./peers/redlock');
const { openRedlockUniversal, FAST_OPTIONS } = require('./peers/redlock-universal');

const HOLDFAST = 'Holdfast';
const REDLOCK = 'redlock';
const UNIVERSAL = 'redlock-universal';
const SEMAPHORE = 'redis-semaphore';
const IOREDIS = 'ioredis';
const PIPELINE = 'C pipeline';

const REDLOCK_SLOW = 'redlock, 200 ms';
const REDLOCK_FAST = 'redlock, 1 ms';
const UNIVERSAL_SLOW = 'redlock-universal, 100 ms';
const UNIVERSAL_FAST = 'redlock-universal, 1 ms';
const SEMAPHORE_SLOW = 'redis-semaphore, 10 ms';
const SEMAPHORE_FAST = 'redis-semaphore, 1 ms';
/** Those whose hand-overs take so long that a round has only a few. */
const SLOW = [REDLOCK_SLOW, UNIVERSAL_SLOW];

/** Each opens its own connections to the server at `port`. */
const OPEN = {
  [HOLDFAST]: openHoldfastRedis,
  [REDLOCK]: openRedlock,
  [UNIVERSAL]: openRedlockUniversal,
  [SEMAPHORE]: openRedisSemaphore,
};

/** Those who lock keys by themselves; `recorded` as of recorded.js. */
async function openRedisLockers(port, recorded) {
  const lockers = {};
  for (const [name, open] of Object.entries(OPEN)) lockers[name] = await open(port);
  return { ...lockers, [IOREDIS]: openIoredis(port, recorded) };
}

/**
 * Those who wait for a key. A time in a name is the pause of a peer that waits by looking again:
 * once as it comes, once as short as it goes.
 */
async function openRedisWaiters(port) {
  return {
    [HOLDFAST]: await openHoldfastRedis(port),
    [REDLOCK_SLOW]: openRedlock(port),
    [REDLOCK_FAST]: openRedlock(port, FAST_SETTINGS),
    [UNIVERSAL_SLOW]: openRedlockUniversal(port),
    [UNIVERSAL_FAST]: openRedlockUniversal(port, FAST_OPTIONS),
    [SEMAPHORE_SLOW]: openRedisSemaphore(port),
    [SEMAPHORE_FAST]: openRedisSemaphore(port, { retryInterval: 1 }),
  };
}

module.exports = {
  openRedisLockers, openRedisWaiters, OPEN, SLOW, HOLDFAST, REDLOCK, IOREDIS, PIPELINE,
};
