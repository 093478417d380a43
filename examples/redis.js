'use strict';

// A lock on Redis that guards a write to another database. What it prints stands in docs/redis.md.
//
//   HOLDFAST_URL=redis://127.0.0.1:6379 node examples/redis.js

const { open } = require('holdfast');

// Stands for a table of yours: stock, and the newest fence that has written to it.
const row = { mugs: 40, fence: 0 };

// UPDATE shelf SET mugs = $1, fence = $2 WHERE fence <= $2
function updateShelf(mugs, fence) {
  if (fence < row.fence) return false;
  Object.assign(row, { mugs, fence });
  return true;
}

async function main() {
  const hf = await open(process.env.HOLDFAST_URL ?? 'redis://127.0.0.1:6379', {
    prefix: 'example:',
    connectTimeout: '2s',
  });

  // One machine sells, and is held up for so long that its lock is lost: `release` stands for that.
  const early = await hf.lock('shelf/mugs', { ttl: '10s', note: 'sells 5' });
  const seen = row.mugs;
  await early.release();

  // Another one has the lock by then, and sells 10.
  await hf.withLock('shelf/mugs', async (lock) => {
    console.log('sells 10:', updateShelf(row.mugs - 10, lock.fence));
  });

  // The first one wakes up and writes what it worked out before. Its fence is the smaller one.
  console.log('sells 5, too late:', updateShelf(seen - 5, early.fence));
  console.log('left:', row.mugs);
  await hf.close();
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
