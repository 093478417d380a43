'use strict';

// A lock over three Redis servers, two of which must agree. Parts of it stand in docs/quorum.md.
//
//   node examples/quorum.js redis://10.0.0.1 redis://10.0.0.2 redis://10.0.0.3

const { open } = require('holdfast');

// Stands for a table of yours: the invoice, and the newest fence that has written to it.
const row = { lines: 0, fence: 0 };

// UPDATE invoice SET lines = $1, fence = $2 WHERE fence <= $2
function updateInvoice(lines, fence) {
  if (fence < row.fence) return false;
  Object.assign(row, { lines, fence });
  return true;
}

async function main(nodes) {
  const hf = await open(nodes, { fencing: true, maxTtl: '1m' });
  await hf.withLock('invoice/2026-11', { ttl: '10s' }, async (lock) => {
    console.log('written:', updateInvoice(row.lines + 1, lock.fence));
  });
  console.log('nodes that vote:', hf.nodes().filter(({ state }) => state === 'voting').length);
  await hf.close();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
