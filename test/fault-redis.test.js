'use strict';

// Eight processes on twenty keys of a Redis, while all that may fail does, at random from a seed
// that is printed. What they wrote down must hold what is promised for each kind of failure:
//
//   - servers killed and restarted with their data, servers that stand still, networks that cut,
//     swallow, hold, slow, repeat and tear, clients whose time of day jumps: everything. Exclusive
//     holders never overlap, fences grow, stale writes are refused, no effect is acknowledged
//     twice, no addition is lost, and no lease is there for longer than its TTL.
//   - a server restarted without its data, and a failover to a replica that had not got everything
//     yet: leases and entries may be lost, and with them that there is one holder. Fences grow.
//
// HF_FAULT_SECONDS lets each run for longer, as `npm run soak -- --store redis` does, and the other
// names of stores that test/soak.js knows.

const assert = require('node:assert/strict');
const { PATIENCE_MS, endAll, seeded } = require('./fault-harness');
const { stopAll } = require('./redis-servers');
const { soak } = require('./soak-run');

const SECONDS = Number(process.env.HF_FAULT_SECONDS || 5);

const runs = {
  'that is killed, frozen and cut off in every way, with clocks that jump': 'redis',
  'that forgets everything': 'redis-forgetting',
  'that fails over to its replica': 'redis-failover',
};

describe('eight processes on a Redis', function () {
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
