'use strict';

// An election in which leaders and candidates are killed, frozen for longer than the lease lasts,
// and stopped, all at random, for two minutes: HF_LEADER_SECONDS sets another time.

const assert = require('node:assert/strict');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const {
  PATIENCE_MS, endAll, freezeAtRest, now, seeded, start, startAgent, temporaryPath, until,
} = require('./fault-harness');
const { readNotes } = require('./fault-notes');
const { checkLocks, readHolds } = require('./history');

const NAME = 'leader';
const PROCESSES = 5;
const TTL = 1000;
const SECONDS = Number(process.env.HF_LEADER_SECONDS || 120);
const WAYS = ['kill', 'freeze', 'stop'];

class Election {
  constructor(random, other, url) {
    this.random = random;
    this.other = other;
    this.url = url;
    this.folder = path.dirname(temporaryPath());
    this.candidates = new Set();
    this.leader = null; // the last that said so
    this.elections = 0;
    this.strikes = [];
    this.problems = [];
    this.started = 0;
  }

  async hire() {
    const candidate = start('candidate', {
      url: this.url,
      name: NAME,
      options: { ttl: TTL },
      history: path.join(this.folder, `history-${this.started++}`),
    });
    candidate.struck = false;
    candidate.listener = ({ event }) => {
      if (event !== 'leads') return;
      this.leader = candidate;
      this.elections += 1;
    };
    candidate.gone = candidate.ended.then(({ code, signal, stderr }) => {
      const wanted = candidate.killed ? signal === 'SIGKILL' : code === 0;
      if (!wanted) this.problems.push(`ended with ${signal ?? code}:\n${stderr}`);
    });
    await candidate.next('ready');
    this.candidates.add(candidate);
  }

  async kill(candidate) {
    candidate.killed = true;
    this.note('kill', candidate, candidate.signal('SIGKILL'));
    await this.replace(candidate);
  }

  async stop(candidate) {
    this.note('stop', candidate, now());
    candidate.tell('stop');
    await this.replace(candidate);
  }

  async replace(candidate) {
    this.candidates.delete(candidate);
    await candidate.gone;
    await this.hire();
  }

  /** Anybody else may stand still in the midst of a transaction, and holds up all with it. */
  async freeze(candidate, leads) {
    if (leads) await freezeAtRest(candidate, this.other);
    else candidate.freeze();
    this.note('freeze', candidate, now());
    await sleep(TTL * this.random.between(12, 25) / 10);
    candidate.thaw();
    candidate.struck = false;
  }

  note(how, { pid }, t) {
    this.strikes.push({ how, worker: pid, t });
  }

  /** Who leads gets it more often than not; then it waits until somebody leads again. */
  async strike() {
    const { random, leader, elections } = this;
    const how = random.pick(WAYS);
    const leads = random.chance(0.7) && this.candidates.has(leader) && !leader.struck;
    const free = [...this.candidates].filter((each) => each !== leader && !each.struck);
    if (!leads && free.length < 2) return;
    const victim = leads ? leader : random.pick(free);
    victim.struck = true;
    const over = this[how](victim, leads);
    if (leads) await until(() => this.elections > elections, 'another leader');
    this.last = Promise.all([this.last, over]);
    this.last.catch(() => {}); // awaited at the end
  }

  async run(seconds) {
    await Promise.all(Array.from({ length: PROCESSES }, () => this.hire()));
    await until(() => this.elections > 0, 'the first leader');
    const end = now() + seconds * 1000;
    while (now() < end) {
      await sleep(this.random.between(100, 1000));
      await this.strike();
    }
    await this.last;
    for (const candidate of this.candidates) candidate.tell('stop');
    await Promise.all([...this.candidates].map(({ gone }) => gone));
  }
}

/** From each strike at who led to the next leader, in milliseconds, by the kind of strike. */
function gapsOf(history, strikes) {
  const workers = new Map();
  for (const { type, token, worker } of history) if (type === 'take') workers.set(token, worker);
  const gaps = new Map([...WAYS, 'none'].map((how) => [how, []]));
  const { holds } = readHolds(history);
  for (let i = 1; i < holds.length; i++) {
    const [before, after] = [holds[i - 1], holds[i]];
    const strike = strikes.find(({ worker, t }) =>
      worker === workers.get(before.token) && t >= before.from && t <= after.from);
    gaps.get(strike?.how ?? 'none').push(after.from - (strike?.t ?? before.end));
  }
  return gaps;
}

function printGaps(gaps) {
  const line = (...cells) => console.log(`      ${cells.map((cell, i) =>
    (i === 0 ? cell.padEnd(34) : String(cell).padStart(10))).join('')}`);
  const names = {
    stop: 'after a clean stop', kill: 'after SIGKILL', freeze: 'after SIGSTOP',
    none: 'after a lease that ended by itself',
  };
  line(`gaps, with a ttl of ${TTL} ms`, 'times', 'median', 'max');
  for (const [how, name] of Object.entries(names)) {
    const times = gaps.get(how).sort((a, b) => a - b);
    if (times.length === 0) continue;
    const ms = (at) => `${times[Math.floor(at)].toFixed(0)} ms`;
    line(name, times.length, ms((times.length - 1) / 2), ms(times.length - 1));
  }
}

describe('leader election', function () {
  this.timeout(SECONDS * 1000 + 5 * PATIENCE_MS);
  afterEach(endAll);

  it('5 processes, killed, frozen and stopped: never two leaders [slow]', async () => {
    const random = seeded();
    const url = `sqlite:${temporaryPath()}`;
    const election = new Election(random, await startAgent(url), url);
    await election.run(SECONDS);
    assert.deepEqual(election.problems, []);
    const history = readNotes(election.folder);
    const { holds } = readHolds(history);
    const lost = holds.filter((hold) => hold.lost < Infinity).length;
    console.log(`      ${holds.length} terms, ${lost} of them lost; ` +
      `${election.strikes.length} strikes`);
    const gaps = gapsOf(history, election.strikes);
    printGaps(gaps);
    assert.deepEqual(checkLocks(history), []);
    // What is said about it must have happened, with time enough.
    if (SECONDS >= 60) for (const how of WAYS) assert.ok(gaps.get(how).length > 0, how);
    assert.ok(holds.length > 1, 'nobody came after the first');
  });
});
