'use strict';

// Processes that work on one store while they, and the store, are killed, frozen, blocked and cut
// off, all at random, and a judgement of what they wrote down.

const fs = require('node:fs');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { open } = require('../lib');
const { PATIENCE_MS, now, start, temporaryPath } = require('./fault-harness');
const { checkGrowth, checkLocks, checkOnce } = require('./history');
const { POSTGRES_FAULTS, PostgresSite } = require('./soak-postgres');
const { QuorumSite } = require('./soak-quorum');
const { FAULTS, RedisSite, SqliteSite } = require('./soak-sites');

const PROCESSES = 8;
const KEYS = Array.from({ length: 20 }, (_, i) => `k${i}`);
const SHARED_KEYS = KEYS.slice(-4);
const TTL_MS = 1500; // at most
const PACE_MS = 250; // between two disasters, at most
const PATIENCE = '60s';
const HALF_DAY_MS = 12 * 3600 * 1000;

const redis = (faults, kind = 'redis') => (where) => new RedisSite({ ...where, kind, faults });
const postgres = (faults, more) => (where) => new PostgresSite({ ...where, faults, ...more });
// As long as a node has no vote: so that it soon has one again.
const quorum = (size, more) => (where) =>
  new QuorumSite({ ...where, ttlMs: 1000, size, ...more });

/** The stores, with what befalls them. */
const sites = {
  sqlite: ({ folder }) => new SqliteSite(folder),
  redis: redis({ ...FAULTS.server, ...FAULTS.network }),
  valkey: redis({ ...FAULTS.server, ...FAULTS.network }, 'valkey'),
  'redis-forgetting': redis(FAULTS.forgetting),
  'redis-failover': redis(FAULTS.failover),
  postgres: postgres({ ...POSTGRES_FAULTS.server, ...POSTGRES_FAULTS.network }, { durable: true }),
  'postgres-18': postgres({ ...POSTGRES_FAULTS.server, ...POSTGRES_FAULTS.network },
    { version: '18', durable: true }),
  'postgres-rewinding': postgres(POSTGRES_FAULTS.rewinding),
  quorum: quorum(3),
  'quorum-5': quorum(5),
  'quorum-valkey': quorum(3, { kind: 'valkey' }),
  // Breaks what is promised: it shows what the quarantine of nodes is for.
  'quorum-unguarded': quorum(3, { quarantine: false }),
};

class Soak {
  /**
   * @param {keyof typeof sites} store
   * @param {object} random of fault-harness
   */
  constructor(store, random) {
    this.random = random;
    this.folder = path.dirname(temporaryPath());
    this.site = sites[store]({ folder: this.folder, random, keys: KEYS, ttlMs: TTL_MS });
    this.workers = new Set();
    this.events = [];
    this.counts = { kills: 0, freezes: 0, blocks: 0, exits: 0 };
    this.problems = this.site.problems;
    this.started = 0;
    this.stopping = false;
  }

  async hire() {
    const place = await this.site.place();
    const worker = start('soaker', {
      url: place.url,
      keys: KEYS,
      sharedKeys: SHARED_KEYS,
      ttlMs: this.site.ttlMs ?? TTL_MS,
      locksOnly: this.site.locksOnly,
      history: path.join(this.folder, `history-${this.started++}`),
      seed: this.random.between(0, 2 ** 31),
    }, place.env);
    worker.listener = place.hear ?? null;
    this.workers.add(worker);
    worker.gone = worker.ended.then((end) => {
      this.#bury(worker, end);
      return place.leave();
    });
    // One that is killed before it was ready has ended, as any other.
    await worker.next('ready').catch(() => worker.gone);
  }

  #bury(worker, { code, signal, stderr }) {
    this.workers.delete(worker);
    const wanted = worker.killed ? signal === 'SIGKILL' : code === 0;
    if (!wanted) this.problems.push(`a process ended with ${signal ?? `code ${code}`}:\n${stderr}`);
  }

  /** Lets one disaster happen to a process. */
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

  /** Works for so long, and comes to rest. */
  async run(seconds) {
    await this.site.open();
    await Promise.all(Array.from({ length: PROCESSES }, () => this.hire()));
    const end = now() + seconds * 1000;
    const strikes = new Set();
    const begin = (happening) => {
      const strike = happening.catch((error) => this.problems.push(error.stack))
        .finally(() => strikes.delete(strike));
      strikes.add(strike);
    };
    // What cannot happen in a minute more never will.
    while (now() < end || (this.site.untried && now() < end + PATIENCE_MS)) {
      await sleep(this.random.between(0, this.site.paceMs ?? PACE_MS));
      begin(this.site.strike());
      if (this.workers.size > PROCESSES / 2) begin(this.strike());
    }
    this.stopping = true;
    await Promise.all(strikes);
    await this.site.rest();
    for (const worker of this.workers) worker.tell('stop');
    await Promise.all([...this.workers].map((worker) => worker.gone));
  }

  /** What all processes wrote down; a last line may be cut off by a kill. */
  read() {
    const events = [...this.events, ...this.site.events ?? []];
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
    const hf = await open(this.site.url, this.site.patience);
    await this.#visitLocks(hf, history);
    if (this.site.promises.entries) await this.#visitEntries(hf, history);
    await hf.close();
  }

  async #visitLocks(hf, history) {
    const newest = new Map();
    for (const { type, key, fence } of history) {
      if (type === 'take') newest.set(key, Math.max(fence, newest.get(key) ?? 0));
    }
    for (const key of KEYS) {
      const lock = await hf.lock(key, { wait: PATIENCE });
      if (lock.fence <= (newest.get(key) ?? 0)) this.problems.push(`the last fence of ${key}`);
      await lock.release();
    }
  }

  async #visitEntries(hf, history) {
    const count = (type) => history.filter((event) => event.type === type).length;
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
  }

  /** What was promised and not kept, as sentences. */
  judge(history) {
    const { leases, entries } = this.site.promises;
    return [
      ...this.problems,
      ...(leases ? checkLocks(history) : checkGrowth(history)),
      ...(entries ? checkOnce(history, (op) => op.split('/')[0]) : []),
      ...this.#missing(history),
    ];
  }

  /** A run in which nothing happened shows nothing. */
  #missing(history) {
    const { locksOnly, leastTakes = 1 } = this.site;
    const types = locksOnly ? [] : ['write', 'effect', 'outcome', 'added'];
    const takes = history.filter(({ type }) => type === 'take').length;
    const seen = new Set(history.map(({ type }) => type));
    const isFalse = ({ type, time }) =>
      type === 'clock' && Math.abs(time - Date.now()) > HALF_DAY_MS;
    const spared = Object.entries(this.site.counts).filter(([, count]) => count === 0);
    return [
      ...(takes < leastTakes ? [`only ${takes} takes in the whole run`] : []),
      ...types.filter((type) => !seen.has(type)).map((type) => `no '${type}' in the history`),
      ...spared.map(([fault]) => `no '${fault}' in the whole run`),
      ...(this.site.counts.clock > 0 && !history.some(isFalse) ? ['no clock was wrong'] : []),
    ];
  }

  summary(history) {
    const counts = { ...this.counts, ...this.site.counts };
    const parts = Object.entries(counts).map(([what, n]) => `${n} ${what}`);
    const ofEntries = [
      ['write', 'guarded writes'], ['stale', 'stale writes refused'], ['effect', 'effects'],
      ['outcome', 'outcomes'], ['lost-run', 'lost runs'], ['refused', 'refusals'],
      ['added', 'additions'],
    ];
    for (const [type, what] of [
      ['take', 'takes'], ['lost', 'losses'], ...(this.site.locksOnly ? [] : ofEntries),
      ['error', 'errors'], ['jump', 'clocks that jumped'],
    ]) parts.push(`${history.filter((event) => event.type === type).length} ${what}`);
    const { looks, longestMs } = this.site;
    if (looks !== undefined) parts.push(`${looks} looks at leases of ${longestMs} ms at most`);
    return parts.join(', ');
  }

  close() {
    return this.site.close();
  }
}

/**
 * Works for so long and judges.
 *
 * @returns {Promise<{ history: object[], violations: string[], summary: string }>}
 */
async function soak(store, seconds, random) {
  const run = new Soak(store, random);
  try {
    await run.run(seconds);
    const history = run.read();
    await run.visit(history);
    return { history, violations: run.judge(history), summary: run.summary(history) };
  } finally {
    await run.close();
  }
}

module.exports = { sites, soak };
