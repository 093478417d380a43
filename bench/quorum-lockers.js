'use strict';

// Those who lock keys on a quorum of Redis servers, ours first.

const { openHoldfastQuorum } = require('./peers/holdfast');
const { openRedlockMutex } = require('./peers/redis-semaphore');
const { openRedlockQuorum } = require('./peers/redlock');
const { openRedlockUniversalQuorum } = require('./peers/redlock-universal');
const { openRedlock4Quorum } = require('./peers/redlock4');

const HOLDFAST = 'Holdfast';
const FENCING = 'Holdfast, fencing';
const REDLOCK_5 = 'redlock 5';
const REDLOCK_5_PIPELINED = 'redlock 5, auto-pipelining';
const REDLOCK_4 = 'redlock 4';

/** How many of them are ours. */
const OURS = 2;

/** Each opens its own connections to the servers at `ports`. */
const OPEN = {
  [HOLDFAST]: openHoldfastQuorum,
  [FENCING]: (ports) => openHoldfastQuorum(ports, { fencing: true }),
  [REDLOCK_5]: openRedlockQuorum,
  // Not as its documentation shows it, but it costs a user one option of ioredis.
  [REDLOCK_5_PIPELINED]: (ports) => openRedlockQuorum(ports, { enableAutoPipelining: true }),
  [REDLOCK_4]: openRedlock4Quorum,
  'redlock-universal': openRedlockUniversalQuorum,
  'redis-semaphore': openRedlockMutex,
};

module.exports = { OPEN, OURS, HOLDFAST, FENCING, REDLOCK_5, REDLOCK_4 };
