'use strict';

// Processes that work on one store while others of them are killed, frozen and blocked, all at
// random, and a judgement of what they wrote down. Ends with exit code 1 if a guarantee broke.
//
//   node test/soak.js [--seconds 60] [--seed N]

const fs = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { setTimeout: sleep } = require('node:timers/promises');
const { open } = require('../lib');
const { endAll, now, seeded, start, temporaryPath } = require('./fault-harness');
const { checkLocks, checkOnce } = require('./history');

const PROCESSES = 8;
const KEYS = Array.from({ length: 20 }, (_, i) => `k${i}`);
const SHOWN = 20; // violations
const PATIENCE = '60s';

class Soak {
  constructor(random) {
    this.random = random;
    this.folder = path.dirname(temporaryPath());
    this.url = `sqlite:${path.join(this.folder, 'soak.db')}`;
    this.workers = new Set();
    this.events = [];
    this.counts = { kills: 0, freezes: 0, blocks: 0, exits: 0 };
    this.problems = [];
    this.started = 0;
    this.stopping = false;
  }

  async hire() {
    const worker = start('soaker', {
      url: this.url,
      keys: KEYS,
      history: path.join(this.folder, `history-${this.started++}`),
      seed: this.random.between(0, 2 ** 31),
    });
    this.workers.add(worker);
    worker.gone = worker.ended.then((end) => this.#bury(worker, end));
    // One that is killed before it was ready has ended, as any other.
    await worker.next('ready').catch(() => worker.gone);
  }

  #bury(worker, { code, signal, stderr }) {
    this.workers.delete(worker);
    const wanted = worker.killed ? signal === 'SIGKILL' : code === 0;
    if (!wanted) this.problems.push(`a process ended with ${signal ?? `code ${code}`}:\n${stderr}`);
  }

  /** Lets one disaster happen. */
  async strike() {
    const { random, counts } = this;
    const worker = random.pick([...this.workers]);
    const roll = random.between(1, 100);
    if (roll <= 35) {
      counts.kills += 1;
      await this.#end(worker, () => {
        worker.killed = true;
        worker.signal('SIGKILL');
      });
    } else if (roll <= 75) {
      counts.freezes += 1;
      await this.#freeze(worker);
    } else if (roll <= 92) {
      counts.blocks += 1;
      worker.tell('block', { ms: random.between(0, 2500) });
    } else {
      counts.exits += 1;
      await this.#end(worker, () => worker.tell('exit'));
    }
  }

  async #end(worker, how) {
    if (worker.ending) return;
    worker.ending = true;
    this.workers.delete(worker);
    // Its runs are cut off, in either way.
    this.events.push({ type: 'crash', worker: worker.pid });
    how();
    await worker.gone;
    if (!this.stopping) await this.hire();
  }

  async #freeze(worker) {
    if (worker.frozen) return;
    worker.freeze();
    // Most stop for less than the leases last, some for longer.
    await sleep(this.random.between(0, this.random.chance(0.5) ? 300 : 2500));
    worker.thaw();
  }

  async run(seconds) {
    await Promise.all(Array.from({ length: PROCESSES }, () => this.hire()));
    const end = now() + seconds * 1000;
    const strikes = new Set();
    while (now() < end) {
      await sleep(this.random.between(0, 250));
      if (this.workers.size <= PROCESSES / 2) continue;
      const strike = this.strike().finally(() => strikes.delete(strike));
      strikes.add(strike);
    }
    this.stopping = true;
    await Promise.all(strikes);
    for (const worker of this.workers) worker.tell('stop');
    await Promise.all([...this.workers].map((worker) => worker.gone));
  }

  /** What all processes wrote down; a last line may be cut off by a kill. */
  read() {
    const events = [...this.events];
    for (let i = 0; i < this.started; i++) {
      const file = path.join(this.folder, `history-${i}`);
      if (!fs.existsSync(file)) continue; // killed before it wrote anything
      const lines = fs.readFileSync(file, 'utf8').split('\n');
      for (const line of lines.slice(0, -1)) events.push(JSON.parse(line));
    }
    return events;
  }

  /** Asks the store, when all is over, for what was promised. */
  async visit(history) {
    const hf = await open(this.url);
    const count = (type) => history.filter((event) => event.type === type).length;
    const newest = new Map();
    for (const { type, key, fence } of history) {
      if (type === 'take') newest.set(key, Math.max(fence, newest.get(key) ?? 0));
    }
    for (const key of KEYS) {
      const lock = await hf.lock(key, { wait: PATIENCE });
      if (lock.fence <= (newest.get(key) ?? 0)) this.problems.push(`the last fence of ${key}`);
      await lock.release();
    }
    const sum = (await hf.kv.get('sum'))?.value ?? 0;
    const [least, most] = [count('added'), count('asked')];
    if (sum < least || sum > most) {
      this.problems.push(`the sum is ${sum}, though ${least} to ${most} were added`);
    }
    for (const { type, key, fence } of history) {
      if (type === 'violation') this.problems.push(`a holder of ${key} was stale: fence ${fence}`);
    }
    const outcomes = new Map();
    for (const { type, op, run } of history) if (type === 'outcome') outcomes.set(op, run);
    for (const [op, run] of outcomes) {
      const record = await hf.record(op);
      if (record?.value?.run !== run) this.problems.push(`the outcome of ${op} is missing`);
    }
    await hf.close();
  }

  summary(history) {
    const parts = Object.entries(this.counts).map(([what, n]) => `${n} ${what}`);
    for (const [type, what] of [
      ['take', 'takes'], ['lost', 'losses'], ['write', 'guarded writes'],
      ['stale', 'stale writes refused'], ['effect', 'effects'],
      ['outcome', 'outcomes'], ['lost-run', 'lost runs'], ['refused', 'refusals'],
      ['added', 'additions'], ['error', 'errors'],
    ]) parts.push(`${history.filter((event) => event.type === type).length} ${what}`);
    return parts.join(', ');
  }
}

function countErrors(history) {
  const counts = new Map();
  for (const { type, code } of history) {
    if (type === 'error') counts.set(code, (counts.get(code) ?? 0) + 1);
  }
  return [...counts].map(([code, n]) => `${n} x ${code}`).join(', ');
}

async function main() {
  const { values } = parseArgs({
    options: { seconds: { type: 'string', default: '60' }, seed: { type: 'string' } },
  });
  const seconds = Number(values.seconds);
  if (!(seconds > 0)) throw new RangeError('--seconds must be a number above 0');
  const random = values.seed === undefined ? seeded() : seeded(Number(values.seed));
  console.log(`soak: ${seconds} s, --seed ${random.seed}`);
  const soak = new Soak(random);
  await soak.run(seconds);

  const history = soak.read();
  await soak.visit(history);
  const violations = [
    ...soak.problems, ...checkLocks(history), ...checkOnce(history, (op) => op.split('/')[0]),
  ];
  console.log(`soak: ${soak.summary(history)}`);
  const errors = countErrors(history);
  if (errors !== '') console.log(`soak: errors that the work met: ${errors}`);
  for (const violation of violations.slice(0, SHOWN)) console.error(`VIOLATION: ${violation}`);
  // A run in which nothing happened shows nothing.
  const idle = ['take', 'write', 'effect', 'outcome', 'added'].filter((type) =>
    !history.some((event) => event.type === type));
  for (const type of idle) console.error(`VIOLATION: no '${type}' in the whole history`);
  const bad = violations.length + idle.length;
  console.log(`soak: ${bad} violations, seed ${random.seed}`);
  process.exitCode = bad > 0 ? 1 : 0;
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 2;
}).finally(endAll);
