'use strict';

// Threads that are terminated in the middle of everything.

const assert = require('node:assert/strict');
const { setTimeout: sleep } = require('node:timers/promises');
const {
  NEVER_MS, PATIENCE_MS, endAll, seeded, start, startAgent, temporaryPath,
} = require('./fault-harness');

const THREADS = 8;
const TERMINATIONS = 50;

describe('worker threads', function () {
  this.timeout(3 * PATIENCE_MS);
  afterEach(endAll);

  it('8 threads on one file, terminated at random 50 times, leave nothing [slow]', async () => {
    const random = seeded();
    const url = `sqlite:${temporaryPath()}`;
    const keys = Array.from({ length: 12 }, (_, i) => `k${i}`);
    const host = start('threads');
    const living = new Set();
    const spawn = async () => {
      // Some are terminated while they load and open, the others at work.
      const args = { url, keys, ttl: 2000, seed: random.between(0, 2 ** 31) };
      living.add(await host.call('spawn', { ...args, impatient: random.chance(0.2) }));
    };
    await Promise.all(Array.from({ length: THREADS }, spawn));
    for (let i = 0; i < TERMINATIONS; i++) {
      await sleep(random.between(0, 60));
      const id = random.pick([...living]);
      living.delete(id);
      await Promise.all([host.call('terminate', { id }), spawn()]);
    }
    // Those that are left end with the process.
    host.tell('exit');
    const { code, signal, stderr } = await host.ended;
    assert.deepEqual({ code, signal, stderr }, { code: 0, signal: null, stderr: '' });

    // A lock that some thread went on to renew, or forgot, would never come.
    const other = await startAgent(url);
    const options = { wait: NEVER_MS };
    const taken = await Promise.all(keys.map((key) => other.call('lock', { key, options })));
    assert.equal(taken.length, keys.length);
  });
});
