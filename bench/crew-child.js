'use strict';

// One process of crew.js. It ends when its parent lets go of it, or dies.

const { closeLockers, openLockers, pairs } = require('./contenders');
const { load } = require('./load');

async function main(folder, id) {
  const lockers = await openLockers(folder);
  process.on('message', async ({ name, contended, renewed, inFlight, seconds }) => {
    const prefix = contended ? 'all' : `process-${id}`;
    const operation = pairs(lockers[name], { contended, renewed, prefix });
    const { times, ...figures } = await load(operation, { inFlight, seconds });
    process.send({ ...figures, times: times.sorted() });
  });
  process.on('disconnect', () => closeLockers(lockers));
  process.send('ready');
}

main(process.argv[2], process.argv[3]);
