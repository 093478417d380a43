'use strict';

// A lock that is released at the moment at which the keeper's thread renews it.

const assert = require('node:assert/strict');
const { setTimeout: sleep } = require('node:timers/promises');
const { open } = require('../lib');
const { PATIENCE_MS, endAll, seeded, temporaryPath } = require('./fault-harness');

const LANES = 1000;
const ROUNDS = 15;
const TTL = 2000;
const RENEWED = TTL / 3; // when that is due, counted from the take

describe('a release beside a renewal', function () {
  this.timeout(3 * PATIENCE_MS);
  afterEach(endAll);

  it('tells the truth: what was held was not lost [slow]', async () => {
    const random = seeded();
    const hf = await open(`sqlite:${temporaryPath()}`);
    const wrong = [];
    let judged = 0;
    const lane = async (_, i) => {
      for (let round = 0; round < ROUNDS; round++) {
        const lock = await hf.lock(`k${i}`, { ttl: TTL, wait: PATIENCE_MS });
        await sleep(RENEWED + random.between(-8, 12));
        // Far from its end: whatever stands still for less than that takes nothing from it.
        const left = lock.remaining();
        const released = await lock.release();
        if (left < TTL / 2) continue;
        judged += 1;
        if (!released) wrong.push(`k${i} had ${left} ms left`);
      }
    };
    await Promise.all(Array.from({ length: LANES }, lane));
    await hf.close();
    assert.equal(wrong.length, 0, `${wrong.length} of ${judged}, of which ${wrong[0]}`);
    assert.ok(judged > 0, 'none was released in time');
  });
});
