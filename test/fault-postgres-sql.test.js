'use strict';

// Tables of users' own on a PostgreSQL, by processes that are killed in the middle of it, and whose
// connections are: what is guarded holds, and what is to be done together is done together.

const assert = require('node:assert/strict');
const { setTimeout: sleep } = require('node:timers/promises');
const { open } = require('..');
const { PATIENCE_MS, endAll, seeded, start, until } = require('./fault-harness');
const { stopAll, usePostgres } = require('./postgres-servers');

const SECONDS = Number(process.env.HF_FAULT_SECONDS || 5);
const DRAWERS = 4;
const MOVERS = 8;
const ACCOUNTS = 50;
const OPS = 300;
const LEASE_MS = 1000;

/** Processes of a role, in place of each of which that is killed there is soon another. */
class Crew {
  constructor(role, count, args, random) {
    Object.assign(this, { role, size: count, args, random });
    this.workers = [];
    this.steps = 0;
    this.kills = 0;
    this.booked = new Map();
    this.broken = [];
    this.ready = 0;
    for (let i = 0; i < count; i++) this.#hire();
  }

  #hire() {
    const worker = start(this.role, { ...this.args, seed: this.random.between(0, 2 ** 31) });
    worker.listener = ({ event, op, run, message }) => {
      if (event === 'ready') this.ready += 1;
      if (event === 'step') this.#step(worker);
      if (event === 'booked') this.booked.set(op, run);
      if (event === 'broken') this.broken.push(message);
    };
    worker.ended.then(({ signal, stderr }) => {
      if (signal !== 'SIGKILL') this.broken.push(stderr);
    });
    this.workers.push(worker);
  }

  #step(worker) {
    this.steps += 1;
    // In the middle of whatever it is at.
    if (!this.random.chance(0.02) || worker.over || this.ended) return;
    worker.signal('SIGKILL');
    this.kills += 1;
    this.workers = this.workers.filter((each) => each !== worker);
    this.#hire();
  }

  async end() {
    this.ended = true;
    await Promise.all(this.workers.map((worker) => worker.kill()));
  }
}

describe('tables on a PostgreSQL', function () {
  this.timeout(3 * PATIENCE_MS + 2000 * SECONDS);
  // Not a second for each deadlock, of which there are many.
  const scope = usePostgres({ config: { deadlock_timeout: '20ms' } });
  let server;
  before(() => { ({ server } = scope); });
  afterEach(endAll);
  after(stopAll);

  async function makeAccounts(count, balance) {
    await server.query('DROP TABLE IF EXISTS account');
    await server.query('CREATE TABLE account (id int PRIMARY KEY, ' +
      'version int NOT NULL DEFAULT 1, balance int NOT NULL CHECK (balance >= 0))');
    await server.query('INSERT INTO account (id, balance) ' +
      'SELECT i, $2 FROM generate_series(1, $1) AS i', [count, balance]);
  }

  const sum = async () =>
    Number((await server.query('SELECT sum(balance) FROM account')).rows[0].sum);

  /** All that is left of clients that were killed. */
  const quiet = () =>
    until(async () => (await server.backends()).length === 0, 'all have gone');

  /**
   * Ends a connection of theirs now and then, until their time is over and enough has happened;
   * `halfway` is called once.
   */
  async function harass(random, crew, halfway = async () => {}) {
    await until(() => crew.ready >= crew.size, 'all are there');
    const began = Date.now();
    const passed = () => (Date.now() - began) / 1000;
    let half = null;
    let terminated = 0;
    const enough = () => crew.kills >= 3 && terminated > 0;
    while (passed() < SECONDS || (!enough() && passed() < PATIENCE_MS / 1000)) {
      if (half === null && passed() > SECONDS / 2) half = halfway();
      await sleep(random.between(50, 250));
      try {
        const pids = await server.backends();
        if (pids.length > 0) terminated += await server.terminate(random.pick(pids));
      } catch {
        // It recovers from a crash.
      }
    }
    await half;
    await crew.end();
    return terminated;
  }

  for (const way of ['affectOne', 'forUpdate', 'serializable', 'updateVersioned']) {
    it(`200 draw 100 each from 1,000 through ${way}: ten get it`, async () => {
      await makeAccounts(1, 1000);
      const url = scope.url();
      const drawers = Array.from({ length: DRAWERS }, () => start('drawer', { url }));
      await Promise.all(drawers.map((each) => each.next('ready')));
      const drawn = await Promise.all(drawers.map((each) =>
        each.call('draw', { way, times: 200 / DRAWERS })));
      assert.equal(drawn.reduce((total, each) => total + each, 0), 10);
      assert.equal(await sum(), 0);
    });
  }

  it('transfers between 50 accounts, kill -9 at random: the sum holds [slow]', async () => {
    const random = seeded();
    await makeAccounts(ACCOUNTS, 1000);
    const crew = new Crew('mover', MOVERS, { url: scope.url(), accounts: ACCOUNTS }, random);
    const terminated = await harass(random, crew);
    await quiet();
    console.log(`      ${crew.steps} transfers, ${crew.kills} kills, ${terminated} terminated`);
    assert.deepEqual(crew.broken, []);
    assert.ok(crew.steps > 0 && crew.kills > 0 && terminated > 0);
    assert.equal(await sum(), ACCOUNTS * 1000);
    const { rows } = await server.query('SELECT FROM account WHERE balance <> 1000');
    assert.ok(rows.length > 0);
  });

  it('kill -9 anywhere: what is booked has its record, and nothing else [slow]', async () => {
    const random = seeded();
    await server.query('DROP TABLE IF EXISTS booking');
    // Nothing here keeps an operation from being booked twice but its record.
    await server.query('CREATE TABLE booking (op text, run text)');
    const url = scope.url();
    const args = { url, plain: server.url(), ops: OPS, lease: LEASE_MS };
    const first = await open(url);
    const crew = new Crew('booker', 4, args, random);
    const terminated = await harass(random, crew, () => server.crash());
    await first.close({ timeout: 0 });
    await quiet();

    const { rows } = await server.query('SELECT op, run FROM booking');
    const bookings = new Map(rows.map(({ op, run }) => [op, run]));
    console.log(`      ${bookings.size} of ${OPS} booked, ${crew.kills} kills, ` +
      `${terminated} terminated, 1 crash`);
    assert.deepEqual(crew.broken, []);
    assert.equal(rows.length, bookings.size, 'one is booked twice');
    assert.ok(bookings.size > 0 && crew.kills > 0 && terminated > 0);
    const hf = await open(url);
    for (let i = 1; i <= OPS; i++) {
      const op = `op-${i}`;
      const record = await hf.record(op);
      assert.equal(record?.state === 'done', bookings.has(op), `${op}: ${record?.state}`);
      if (bookings.has(op)) assert.deepEqual(record.value, { run: bookings.get(op) });
    }
    // And whoever was told of an outcome was told of that.
    for (const [op, run] of crew.booked) assert.equal(bookings.get(op), run);
    await hf.close();
  });
});
