'use strict';

// The other process of the hand-overs on PostgreSQL. It ends when its parent lets go, or dies.

const { closeLockers } = require('./contenders');
const { openPostgresWaiters } = require('./postgres-lockers');
const { followSteps } = require('./waiters');

async function main(url) {
  const waiters = await openPostgresWaiters(url);
  followSteps(waiters);
  process.on('disconnect', () => closeLockers(waiters));
  process.send('ready');
}

main(process.argv[2]);
