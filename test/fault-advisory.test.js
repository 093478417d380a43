'use strict';

// Processes that take PostgreSQL's advisory locks while they are killed and frozen, and while the
// network and the server fail. No two that exclude each other have one at a time, as far as both
// of them know, and in the end the server has none.
//
// What the server does by itself (it ends a connection, or crashes) shows when its message arrives:
// for that moment two may believe that they have it. In that run nothing is asked but that no lock
// stays behind.
//
// HF_FAULT_SECONDS lets each run for longer.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const {
  PATIENCE_MS, endAll, now, seeded, start, temporaryPath, until,
} = require('./fault-harness');
const { checkLimitsOf } = require('./history');
const { PostgresServer, stopAll } = require('./postgres-servers');
const { Proxy } = require('./proxy');

const SECONDS = Number(process.env.HF_FAULT_SECONDS || 12);
const PROCESSES = 6;
const IDS = Array.from({ length: 10 }, (_, i) => `id-${i}`);
const PACE_MS = 300;
const LONG_MS = 9500; // longer than a lock counts as held without a sign of life

/** What befalls a process, or its way to the server. */
const ofPlace = {
  async kill(run, place) {
    place.killed = true;
    place.worker.signal('SIGKILL');
    await place.gone;
    if (!run.over) await run.hire();
  },
  async freeze({ random }, { worker }) {
    worker.freeze();
    await sleep(random.pick([random.between(0, 500), LONG_MS]));
    worker.thaw();
  },
  async hold({ random }, { proxy }) {
    proxy.hold();
    await sleep(random.pick([random.between(0, 500), LONG_MS]));
    proxy.resume();
  },
  /** In the end the server learns of it, as it does by itself some seconds later. */
  async blackhole(_run, { proxy }) {
    proxy.blackhole();
    await sleep(LONG_MS);
    proxy.heal();
    proxy.cut();
  },
  async slow({ random }, { proxy }) {
    proxy.slow = { toServer: [0, 60], toClient: [0, random.between(0, 120)] };
    await sleep(1500);
    proxy.slow = { toServer: [0, 0], toClient: [0, 0] };
  },
};

/** What befalls the server. */
const ofServer = {
  async terminate({ server }) {
    await server.terminate().catch(() => {}); // it is gone just now
  },
  async restart({ server, random }) {
    await server.kill();
    await sleep(random.between(0, 500));
    await server.restart();
  },
  async cut({ random, places }) {
    random.pick([...places]).proxy.cut();
  },
};

class Run {
  constructor(server, random, faults) {
    Object.assign(this, { server, random, faults });
    this.folder = path.dirname(temporaryPath());
    this.places = new Set();
    this.busy = new Set();
    this.problems = [];
    this.counts = {};
    this.started = 0;
    this.over = false;
  }

  async hire() {
    const proxy = await Proxy.start({ port: this.server.port }, { opaque: true });
    const place = { proxy, killed: false };
    place.worker = start('advisor', {
      url: `postgres://postgres@${proxy.address}/postgres?connectTimeout=1000`,
      ids: IDS,
      history: path.join(this.folder, `history-${this.started++}`),
      seed: this.random.between(0, 2 ** 31),
    });
    place.gone = place.worker.ended.then(async ({ code, signal, stderr }) => {
      this.places.delete(place);
      if (!place.killed && code !== 0) {
        this.problems.push(`a process ended with ${signal ?? code}:\n${stderr}`);
      }
      await proxy.stop();
    });
    this.places.add(place);
    await place.worker.next('ready').catch(() => place.gone);
  }

  async strike() {
    const name = this.random.pick(Object.keys(this.faults));
    const whole = Object.hasOwn(ofServer, name);
    const free = (whole ? [this.server] : [...this.places]).filter((each) => !this.busy.has(each));
    const victim = free.length > 0 ? this.random.pick(free) : null;
    if (victim === null) return;
    this.busy.add(victim);
    this.counts[name] = (this.counts[name] ?? 0) + 1;
    try {
      await this.faults[name](this, victim);
    } finally {
      this.busy.delete(victim);
    }
  }

  async work(seconds) {
    await Promise.all(Array.from({ length: PROCESSES }, () => this.hire()));
    const end = now() + 1000 * seconds;
    const strikes = [];
    while (now() < end) {
      await sleep(this.random.between(0, PACE_MS));
      strikes.push(this.strike());
    }
    this.over = true;
    await Promise.all(strikes);
    for (const { proxy, worker } of this.places) {
      proxy.calm();
      worker.tell('stop');
    }
    await Promise.all([...this.places].map(({ gone }) => gone));
  }

  history() {
    return fs.readdirSync(this.folder).filter((name) => name.startsWith('history-'))
      .flatMap((name) => fs.readFileSync(path.join(this.folder, name), 'utf8').split('\n')
        .slice(0, -1).map((line) => JSON.parse(line)));
  }
}

describe('advisory locks of six processes', function () {
  this.timeout(2 * PATIENCE_MS + 1000 * SECONDS);
  let server;

  beforeEach(async () => {
    server = await new PostgresServer().start();
  });

  afterEach(async () => {
    await endAll();
    await stopAll();
  });

  /** Runs and gives what was written down, when the server has no lock any more. */
  async function play(faults) {
    const run = new Run(server, seeded(), faults);
    await run.work(SECONDS);
    assert.deepEqual(run.problems, []);
    const left = () => server.query('SELECT * FROM pg_locks WHERE locktype = \'advisory\'');
    await until(async () => (await left()).rowCount === 0, 'the server has no lock any more');
    const history = run.history();
    const takes = history.filter(({ type }) => type === 'take').length;
    const counts = Object.entries(run.counts).map(([name, n]) => `${n} ${name}`).join(', ');
    console.log(`      ${counts}; ${takes} takes`);
    assert.ok(takes > 100);
    return history;
  }

  it('exclude each other, and none is left, whatever the network and processes do [slow]',
    async () => {
      assert.deepEqual(checkLimitsOf(await play(ofPlace)), []);
    });

  it('leave none behind when the server ends connections, and crashes [slow]', async () => {
    await play({ kill: ofPlace.kill, freeze: ofPlace.freeze, ...ofServer });
  });
});
