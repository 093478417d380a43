'use strict';

// Operations that run once, in processes that are killed in the middle of them. What they do is
// counted by a file beside the store, to which each effect adds a line.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const { setTimeout: sleep } = require('node:timers/promises');
const { lasting, request } = require('./express-harness');
const {
  PATIENCE_MS, endAll, freezeAtRest, now, seeded, start, temporaryPath,
} = require('./fault-harness');
const { checkOnce } = require('./history');

const OPS = 500;
const WORKERS = 4;
const IN_FLIGHT = 64;
const STEPS_PER_KILL = 40; // at most; a run takes three steps
const LEASE_MS = 3000; // so long that no machine is too busy to renew in time
const AGAIN_MS = 500; // until an operation that runs elsewhere is asked for again

const policyOf = (op) => op.split('/')[0];

/** Every operation twice, half of them under each policy; the second often while the first runs. */
function deliveries(random) {
  const placed = [];
  for (let i = 0; i < OPS; i++) {
    const op = `${i % 2 ? 'fail' : 'retry'}/${i}`;
    placed.push([2 * i, op], [2 * i + random.between(0, 40), op]);
  }
  return placed.sort(([a], [b]) => a - b).map(([, op]) => op);
}

/** Processes of one role on one store, of which one is killed after every few steps. */
class Crew {
  constructor(role, random) {
    this.role = role;
    this.random = random;
    this.url = `sqlite:${temporaryPath()}`;
    this.sink = temporaryPath('effects');
    this.workers = [];
    this.events = [];
    this.kills = 0;
    this.hiring = null;
    this.#arm();
  }

  async start(count) {
    await Promise.all(Array.from({ length: count }, () => this.#hire()));
  }

  /** Nobody is killed any more, and all places are filled. */
  async rest() {
    this.steps = Infinity;
    await this.hiring;
  }

  /** Some worker, once enough of them are there to lose one. */
  async some() {
    while (this.workers.length < WORKERS / 2) await this.hiring;
    return this.any();
  }

  any() {
    return this.random.pick(this.workers);
  }

  /** Everything that happened, effects included. */
  history() {
    const lines = fs.readFileSync(this.sink, 'utf8').trim().split('\n');
    return [...this.events, ...lines.map((line) => JSON.parse(line))];
  }

  async #hire() {
    const { url, sink, random } = this;
    const seed = random.between(0, 2 ** 31);
    const worker = start(this.role, { url, sink, seed, lease: LEASE_MS });
    worker.port = (await worker.next('ready')).port;
    worker.listener = (message) => this.#hear(worker, message);
    this.workers.push(worker);
  }

  #arm() {
    this.steps = this.random.between(1, STEPS_PER_KILL);
  }

  #hear(worker, { event, ...details }) {
    if (event === 'lost-run') this.events.push({ type: event, ...details });
    if (event !== 'step' || worker.over || --this.steps > 0) return;
    this.#arm();
    // Whoever is killed is in the middle of some runs, at whatever point of them.
    const victim = this.any();
    if (victim === undefined) return;
    this.workers = this.workers.filter((other) => other !== victim);
    victim.signal('SIGKILL');
    this.events.push({ type: 'crash', worker: victim.pid });
    this.kills += 1;
    this.hiring = Promise.all([this.hiring, this.#hire()]);
  }
}

const outcome = (op, run) => ({ type: 'outcome', op, run, t: now() });

/**
 * Delivers each operation again and again until it has been answered.
 *
 * @param {Crew} crew
 * @param {(worker: object, op: string) => Promise<object | null>} deliver one attempt; resolves
 *   with an event for the history, or with null if it is to be tried again
 */
async function deliverAll(crew, deliver) {
  const queue = deliveries(crew.random);
  let left = queue.length;
  const lane = async () => {
    while (left > 0) {
      const op = queue.shift();
      if (op === undefined) {
        await sleep(20);
        continue;
      }
      const event = await deliver(await crew.some(), op);
      if (event === null) {
        setTimeout(() => queue.push(op), AGAIN_MS);
      } else {
        crew.events.push(event);
        left -= 1;
      }
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, lane));
  await crew.rest();
}

/** Judges what happened, and makes sure that enough did. */
function judge(crew) {
  const history = crew.history();
  const outcomes = new Map();
  for (const { type, op, run } of history) if (type === 'outcome') outcomes.set(op, run);
  const refused = new Set(history.filter(({ type }) => type === 'refused').map(({ op }) => op));
  const effects = history.filter(({ type }) => type === 'effect');
  const cut = effects.filter(({ op, run }) => outcomes.get(op) !== run);
  const lost = history.filter(({ type }) => type === 'lost-run').length;
  console.log(`      ${crew.kills} kills, ${effects.length} effects of ${OPS} operations, `
    + `${cut.length} cut off before their end, ${refused.size} refused, ${lost} told of a loss`);

  assert.deepEqual(checkOnce(history, policyOf), []);
  assert.equal(new Set([...outcomes.keys(), ...refused]).size, OPS);
  // Nobody stood still here: who was not killed kept its claim, and gave its outcome.
  assert.equal(lost, 0);
  assert.deepEqual([...refused].filter((op) => outcomes.has(op)), []);
  for (const policy of ['retry', 'fail']) {
    assert.ok(cut.some(({ op }) => policyOf(op) === policy), `no run was cut off under ${policy}`);
  }
  assert.ok(refused.size > 0);
  return { outcomes, refused };
}

describe('once, in processes that are killed', function () {
  this.timeout(5 * PATIENCE_MS);
  afterEach(endAll);

  it('kill -9 at random points of 500 runs [slow]', async () => {
    const crew = new Crew('operator', seeded());
    await crew.start(WORKERS);
    await deliverAll(crew, async (worker, op) => {
      const from = now();
      try {
        const { value } = await worker.call('run', { op, onCrash: policyOf(op), wait: 300 });
        return outcome(op, value.run);
      } catch (error) {
        if (error.code === 'HF_ECRASHED') return { type: 'refused', op, from };
        if (error.code === 'HF_ELOST') {
          crew.events.push({ type: 'lost-run', op, run: error.result.run });
        } else if (!error.ended && error.code !== 'HF_EINPROGRESS') {
          throw error;
        }
        return null;
      }
    });
    const { outcomes, refused } = judge(crew);

    // What was acknowledged is still there, and what is unknown stays so until it is forgotten.
    const witness = crew.any();
    await Promise.all([...outcomes].map(async ([op, run]) => {
      const again = await witness.call('run', { op, onCrash: policyOf(op) });
      assert.deepEqual([again.replayed, again.value], [true, { run }]);
    }));
    await Promise.all([...refused].map(async (op) => {
      await assert.rejects(witness.call('run', { op, onCrash: 'fail' }), { code: 'HF_ECRASHED' });
      assert.equal((await witness.call('record', { op })).state, 'crashed');
    }));
    const [op] = refused;
    assert.equal(await witness.call('forget', { op }), true);
    assert.equal((await witness.call('run', { op, onCrash: 'fail' })).replayed, false);
  });

  it('kill -9 at random points of 500 checkouts [slow]', async () => {
    const crew = new Crew('shop', seeded());
    await crew.start(WORKERS);
    const checkout = (worker, op) => request(worker.port, {
      path: `/${policyOf(op)}/checkout`, key: op, body: { op, amount: 100 },
    });
    const answers = new Map();
    await deliverAll(crew, async (worker, op) => {
      const from = now();
      const answer = await checkout(worker, op).catch(() => null); // its server was killed
      if (answer === null || answer.status === 503) return null;
      if (answer.status === 201) {
        // Byte for byte what the others were given.
        if (!answers.has(op)) answers.set(op, lasting(answer));
        assert.deepEqual(lasting(answer), answers.get(op));
        return outcome(op, JSON.parse(answer.text).run);
      }
      assert.equal(answer.status, 409, answer.text);
      const { type } = JSON.parse(answer.text);
      if (type === 'urn:holdfast:idempotency:outcome-unknown') return { type: 'refused', op, from };
      assert.equal(type, 'urn:holdfast:idempotency:in-progress');
      return null;
    });
    judge(crew);

    const witness = crew.any();
    await Promise.all([...answers].map(async ([op, answer]) => {
      const again = await checkout(witness, op);
      assert.equal(again.replayed, true);
      assert.deepEqual(lasting(again), answer);
    }));
  });

  it('late finishes of a frozen process are refused [slow]', async () => {
    const url = `sqlite:${temporaryPath()}`;
    const sink = temporaryPath('effects');
    const args = { url, sink, seed: 1, lease: 500 };
    const zombie = start('operator', args);
    const heir = start('operator', args);
    await Promise.all([zombie.next('ready'), heir.next('ready')]);
    const ops = Array.from({ length: 20 }, (_, i) => `${i % 2 ? 'fail' : 'retry'}/${i}`);
    const late = ops.map((op) => zombie.call('runGated', { op, onCrash: policyOf(op) }));
    for (let i = 0; i < ops.length; i++) await zombie.next('step');
    await freezeAtRest(zombie, heir);

    const runs = await Promise.all(ops.map(async (op) => {
      const again = () => heir.call('run', { op, onCrash: policyOf(op) });
      if (policyOf(op) === 'fail') {
        await assert.rejects(again(), { code: 'HF_ECRASHED' });
        await heir.call('forget', { op });
      }
      const { value, replayed, attempt } = await again();
      assert.equal(replayed, false);
      assert.equal(attempt, policyOf(op) === 'retry' ? 2 : 1);
      return value.run;
    }));

    // The first thing that it reads when it wakes: to go on to the end.
    zombie.tell('openGate');
    zombie.thaw();
    for (const [i, finish] of late.entries()) {
      const error = await finish.then(() => null, (reason) => reason);
      assert.equal(error?.name, 'LockLostError', `${ops[i]}: ${error?.message}`);
      assert.notEqual(error.result.run, runs[i]);
      const record = await heir.call('record', { op: ops[i] });
      assert.deepEqual([record.state, record.value], ['done', { run: runs[i] }]);
    }
  });

  it('what a process has finished outlives it', async () => {
    const url = `sqlite:${temporaryPath()}`;
    const args = { url, sink: temporaryPath('effects'), seed: 1, lease: 500 };
    const first = start('operator', args);
    await first.next('ready');
    const { value } = await first.call('run', { op: 'o', onCrash: 'fail' });
    await first.kill();
    const second = start('operator', args);
    await second.next('ready');
    const again = await second.call('run', { op: 'o', onCrash: 'fail' });
    assert.deepEqual([again.replayed, again.value], [true, value]);
  });
});
