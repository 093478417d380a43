'use strict';

// Eight processes on twenty keys of a PostgreSQL, while all that may fail does, at random from a
// seed that is printed. What they wrote down must hold what is promised for each kind of failure:
//
//   - servers that are killed or crash, and recover; that end connections, or stand still; networks
//     that cut, swallow, hold, slow and tear; clients whose time of day jumps: everything.
//     Exclusive holders never overlap, fences grow, stale writes are refused, no effect is
//     acknowledged twice, no addition is lost, and no lease is there for longer than its TTL.
//   - an old copy that is put back: leases and entries are those of then. Fences grow.
//
// HF_FAULT_SECONDS lets each run for longer, as `npm run soak -- --store postgres` does.

const assert = require('node:assert/strict');
const { PATIENCE_MS, endAll, seeded } = require('./fault-harness');
const { stopAll } = require('./postgres-servers');
const { soak } = require('./soak-run');

const SECONDS = Number(process.env.HF_FAULT_SECONDS || 5);

const runs = {
  'that is killed, crashes, stands still and is cut off in every way': 'postgres',
  'of version 18, likewise': 'postgres-18',
  'that is put back to an old copy': 'postgres-rewinding',
};

describe('eight processes on a PostgreSQL', function () {
  this.timeout(2 * PATIENCE_MS + 2000 * SECONDS);
  afterEach(async () => {
    await endAll();
    await stopAll();
  });

  for (const [what, store] of Object.entries(runs)) {
    it(`${what} [slow]`, async () => {
      const { violations, summary } = await soak(store, SECONDS, seeded());
      console.log(`      ${summary}`);
      assert.deepEqual(violations, []);
    });
  }
});
