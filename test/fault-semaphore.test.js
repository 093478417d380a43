'use strict';

// A semaphore whose holders and waiters are killed all the time.

const assert = require('node:assert/strict');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const {
  PATIENCE_MS, endAll, seeded, start, startAgent, temporaryPath,
} = require('./fault-harness');
const { readNotes } = require('./fault-notes');
const { checkLocks, mostHolders, readHolds } = require('./history');

const KEY = 'semaphore';
const PERMITS = 5;
const PROCESSES = 50;
const KILLS = { holding: 12, waiting: 20 };
const TTL = 1000;

class Crowd {
  constructor(random) {
    this.random = random;
    this.url = `sqlite:${temporaryPath()}`;
    this.folder = path.dirname(temporaryPath());
    this.workers = new Set();
    this.kills = { holding: 0, waiting: 0 };
    this.problems = [];
    this.hires = [];
    this.started = 0;
  }

  async hire() {
    const worker = start('permitted', {
      url: this.url,
      key: KEY,
      permits: PERMITS,
      ttl: TTL,
      history: path.join(this.folder, `history-${this.started++}`),
      seed: this.random.between(0, 2 ** 31),
      low: 100,
      high: 400,
    });
    worker.gone = worker.ended.then(({ code, signal, stderr }) => {
      if (signal !== 'SIGKILL') this.problems.push(`ended with ${signal ?? code}:\n${stderr}`);
    });
    await worker.next('ready');
    worker.holding = false;
    worker.listener = ({ event }) => { worker.holding = event === 'has'; };
    this.workers.add(worker);
  }

  /** Kills one at random, of those that hold or of those that wait. */
  async strike() {
    const { random, kills } = this;
    const what = random.pick(Object.keys(KILLS).filter((name) => kills[name] < KILLS[name]));
    const victims = [...this.workers].filter(({ holding }) => holding === (what === 'holding'));
    if (victims.length === 0) return;
    const victim = random.pick(victims);
    this.workers.delete(victim);
    victim.signal('SIGKILL');
    kills[what] += 1;
    await victim.gone;
    if (random.chance(0.75)) this.hires.push(this.hire());
  }

  async killAll() {
    await Promise.all(this.hires);
    for (const worker of this.workers) worker.signal('SIGKILL');
    await Promise.all([...this.workers].map(({ gone }) => gone));
  }
}

describe('a semaphore', function () {
  this.timeout(5 * PATIENCE_MS);
  afterEach(endAll);

  it('5 permits, 50 processes that crash: never 6 holders, and all come back [slow]', async () => {
    const random = seeded();
    const crowd = new Crowd(random);
    await Promise.all(Array.from({ length: PROCESSES }, () => crowd.hire()));
    const more = () => Object.keys(KILLS).some((what) => crowd.kills[what] < KILLS[what]);
    while (more()) {
      await sleep(random.between(20, 250));
      await crowd.strike();
    }
    await crowd.killAll();
    assert.deepEqual(crowd.problems, []);

    const history = readNotes(crowd.folder);
    const { holds } = readHolds(history);
    const lost = holds.filter((hold) => hold.lost < Infinity);
    const cut = holds.filter((hold) => hold.lost === Infinity && hold.released === Infinity);
    console.log(`      ${holds.length} takes by ${crowd.started} processes, ` +
      `${cut.length} cut off, ${lost.length} lost`);
    assert.deepEqual(checkLocks(history), []);
    // What is said about it must have happened.
    assert.equal(mostHolders(history), PERMITS);
    assert.ok(cut.length >= 1, 'no holder was killed');

    // What the dead had comes back, all of it and no more.
    const agent = await startAgent(crowd.url);
    const options = { permits: PERMITS, ttl: '1h' };
    const names = Array.from({ length: PERMITS }, (_, i) => `permit ${i}`);
    await Promise.all(names.map((name) =>
      agent.call('lock', { name, key: KEY, options: { ...options, wait: PATIENCE_MS } })));
    assert.equal(await agent.call('tryLock', { name: 'sixth', key: KEY, options }), null);
    const states = await agent.call('states');
    assert.equal(states.filter(({ held }) => held).length, PERMITS);
    await agent.call('release', { name: names[0] });
    assert.notEqual(await agent.call('tryLock', { name: 'again', key: KEY, options }), null);
  });
});
