'use strict';

// One of the processes of test/soak.js: works at random on locks, operations and values, and writes
// down what happened in a file of its own. test/history.js tells the kinds of events.

const fs = require('node:fs');
const { setTimeout: sleep } = require('node:timers/promises');
const { Holdfast, HoldfastError, LockLostError, LockTimeoutError } = require('../lib');
const { seeded } = require('./fault-harness');

const OPS = 12; // at work at a time, a new one every so many milliseconds
const OP_MS = 40;

class Worker {
  constructor(hf, random, now, options) {
    this.hf = hf;
    this.random = random;
    this.now = now;
    this.options = options;
    this.stopped = false;
    this.locks = new Set();
    this.file = fs.openSync(options.history, 'a');
  }

  /** Each event has left this process before the next statement runs. */
  note(type, details) {
    fs.writeSync(this.file, `${JSON.stringify({ type, ...details })}\n`);
  }

  noteError({ code, message }) {
    this.note('error', { code, message, t: this.now() });
  }

  /** Works until it is told to stop. Errors of the library are part of the game, bugs are not. */
  async lane(work) {
    while (!this.stopped) {
      this.lookAtClock();
      try {
        await work.call(this);
      } catch (error) {
        if (!(error instanceof HoldfastError)) throw error;
        if (error.code === 'HF_ECLOSED') return;
        this.noteError(error);
        await sleep(10);
      }
    }
  }

  pause(most) {
    return sleep(this.random.between(0, most));
  }

  block(ms) {
    const end = this.now() + ms;
    while (this.now() < end);
  }

  /** Most want it alone; on some keys others share it. */
  pickMode(key) {
    const { random } = this;
    if (!this.options.sharedKeys.includes(key) || random.chance(0.4)) return {};
    if (this.options.locksOnly || random.chance(0.5)) return { mode: 'shared' };
    return { permits: random.between(2, 3) };
  }

  async lockOnce() {
    const { random } = this;
    const key = random.pick(this.options.keys);
    const mode = this.pickMode(key);
    // A lock that may be taken from a holder that stands still promises nothing in advance.
    const nervous = random.chance(0.2);
    const options = {
      ...mode,
      ttl: random.between(200, this.options.ttlMs),
      wait: random.between(0, 3000),
      renew: random.chance(0.8),
      ...(nervous && { maxStall: 200 }),
    };
    const asked = this.now();
    let lock;
    try {
      lock = await this.hf.lock(key, options);
    } catch (error) {
      if (error instanceof LockTimeoutError) return;
      throw error;
    }
    const { token, fence } = lock;
    const t = this.now();
    if (!lock.held) return; // this process stood still before it could see that it had it
    this.note('take', { key, token, fence, asked, t, ...mode });
    const holder = { lock, nervous, alone: mode.mode === undefined && mode.permits === undefined };
    this.locks.add(holder);
    lock.signal.addEventListener('abort', () => this.note('lost', { token, t: this.now() }));
    for (let i = random.between(0, 6); i > 0; i--) await this.hold(holder, key);
    this.locks.delete(holder);
    // It need not have come through when the next begins.
    this.release(holder).catch((error) => this.noteError(error));
  }

  async hold({ lock, nervous, alone }, key) {
    const { random } = this;
    const { token } = lock;
    const at = this.now();
    const left = lock.remaining();
    if (left > 0) {
      this.note('held', { token, t: at });
      if (!nervous) this.note('until', { token, t: at + left });
    }
    if (alone && !this.options.locksOnly && random.chance(0.3)) await this.write(lock, key);
    if (random.chance(0.02)) this.block(random.between(0, 2000));
    await this.pause(40);
  }

  async write(lock, key) {
    const { fence } = lock;
    const from = this.now();
    try {
      await this.hf.kv.put(`of-${key}`, fence, { fence: lock });
      this.note('write', { key, fence, from, t: this.now() });
    } catch (error) {
      if (error.code !== 'HF_ESTALE') throw error;
      this.note(lock.held ? 'violation' : 'stale', { key, fence });
    }
  }

  /** Notes the release only of what is held: a late one must not make a lost lock look longer. */
  release({ lock }) {
    const t = this.now();
    if (lock.held) this.note('release', { token: lock.token, t });
    return lock.release();
  }

  async runOnce() {
    const { random } = this;
    const onCrash = random.pick(['retry', 'fail']);
    const from = this.now();
    // All processes are at the same few operations at a time, which come and go.
    const op = `${onCrash}/${Math.trunc(from / OP_MS) + random.between(0, OPS)}`;
    const lease = random.between(200, this.options.ttlMs);
    const options = { onCrash, lease, wait: random.between(0, 2000) };
    try {
      const { run } = await this.hf.once(op, options, async ({ token }) => {
        await this.pause(10);
        this.note('effect', { op, run: token, worker: process.pid });
        await this.pause(random.chance(0.2) ? 500 : 10);
        return { run: token };
      });
      this.note('outcome', { op, run, t: this.now() });
    } catch (error) {
      if (error.code === 'HF_ECRASHED') {
        this.note('refused', { op, from });
      } else if (error.result !== undefined) {
        // It was lost, or whether its outcome is stored is not known.
        this.note('lost-run', { op, run: error.result.run });
        if (!(error instanceof LockLostError)) throw error;
      } else if (error.code !== 'HF_EINPROGRESS') {
        throw error;
      }
    }
    await this.pause(10);
  }

  /** The time of day may jump: whoever looks for it must see that it did. */
  lookAtClock() {
    const ahead = Date.now() - this.now();
    if (Math.abs(ahead - (this.ahead ?? ahead)) > 60_000) this.note('jump');
    this.ahead = ahead;
  }

  async addOnce() {
    this.note('asked');
    await this.hf.kv.increment('sum', 1);
    this.note('added');
    await this.pause(60);
  }

  /** Ends at once, with all it holds, as by an uncaught exception. */
  exit() {
    for (const holder of this.locks) this.release(holder);
    process.exit(0);
  }

  async work() {
    const { lockOnce, runOnce, addOnce } = this;
    const works = Array(4).fill(lockOnce);
    if (!this.options.locksOnly) works.push(runOnce, runOnce, addOnce);
    await Promise.all(works.map((work) => this.lane(work)));
    await this.hf.close({ timeout: '24h' });
  }
}

async function soaker(options, { now, say, serve }) {
  // Not open(): the store may be out of reach just now.
  const hf = new Holdfast(options.url);
  hf.on('error', () => {});
  hf.on('node', ({ node, state }) => say(state, { node }));
  const worker = new Worker(hf, seeded(options.seed), now, options);
  worker.note('clock', { time: Date.now() });
  serve({
    block: ({ ms }) => worker.block(ms),
    exit: () => worker.exit(),
    stop: () => { worker.stopped = true; },
  });
  say('ready');
  await worker.work();
  process.stdin.destroy();
}

module.exports = { soaker };
