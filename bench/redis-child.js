'use strict';

// The other process of the hand-overs on Redis. It ends when its parent lets go of it, or dies.

const { closeLockers } = require('./contenders');
const { openRedisWaiters } = require('./redis-lockers');
const { followSteps } = require('./waiters');

async function main(port) {
  const waiters = await openRedisWaiters(port);
  followSteps(waiters);
  process.on('disconnect', () => closeLockers(waiters));
  process.send('ready');
}

main(Number(process.argv[2]));
