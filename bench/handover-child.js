'use strict';

// The other process of the suite `handover`. It ends when its parent lets go of it, or dies.

const { closeLockers } = require('./contenders');
const { followSteps, openWaiters } = require('./waiters');

async function main(folder, port) {
  const waiters = await openWaiters(folder, port === undefined ? null : Number(port));
  followSteps(waiters);
  process.on('disconnect', () => closeLockers(waiters));
  process.send('ready');
}

main(...process.argv.slice(2));
