'use strict';

// A process that takes PostgreSQL's advisory locks at random, and writes down when it had which.
// test/history.js tells the kinds of events.

const fs = require('node:fs');
const { randomUUID } = require('node:crypto');
const { setTimeout: sleep } = require('node:timers/promises');
const { HoldfastError } = require('../lib');
const { postgres } = require('../lib/postgres');
const { seeded } = require('./fault-harness');

const LANES = 6;
const LOOK_MS = 5;

class Worker {
  constructor(pg, random, now, { ids, history }) {
    this.pg = pg;
    this.random = random;
    this.now = now;
    this.ids = ids;
    this.stopped = false;
    this.file = fs.openSync(history, 'a');
  }

  note(type, details) {
    fs.writeSync(this.file, `${JSON.stringify({ type, ...details })}\n`);
  }

  /** One lock, from asking to its end. A `t` is read before what it stands for is looked at. */
  async turn() {
    const { random, now } = this;
    const id = random.pick(this.ids);
    const shared = random.chance(0.3);
    const dedicated = random.chance(0.3);
    const lock = await this.pg.advisoryLock(id, {
      shared, dedicated, wait: random.pick([0, 300, 5000]),
    });
    const token = randomUUID();
    const t = now();
    if (lock.held) {
      this.note('take', { key: id, token, t, ...(shared ? { mode: 'shared' } : {}) });
      await this.work(lock, token);
      const end = now();
      if (lock.held) this.note('release', { token, t: end });
    }
    await lock.release();
  }

  async work(lock, token) {
    for (let left = this.random.between(0, 20); left > 0; left--) {
      await sleep(LOOK_MS);
      const t = this.now();
      if (!lock.held) return;
      this.note('held', { token, t });
    }
  }

  async lane() {
    while (!this.stopped) {
      try {
        await this.turn();
      } catch (error) {
        if (!(error instanceof HoldfastError)) throw error;
        this.note('error', { code: error.code });
        await sleep(10);
      }
    }
  }
}

module.exports = {
  async advisor(args, { say, now, serve }) {
    const pg = postgres(args.url);
    const worker = new Worker(pg, seeded(args.seed), now, args);
    serve({
      stop() { worker.stopped = true; },
    });
    say('ready', {});
    await Promise.all(Array.from({ length: LANES }, () => worker.lane()));
    await pg.close();
    process.exit(0);
  },
};
