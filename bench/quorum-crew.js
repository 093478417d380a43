'use strict';

// Those who lock keys on a quorum, each in a process of its own, so that what one of them leaves
// undone is no burden to the next. Whoever does not answer in time is ended and begins anew.

const { once } = require('node:events');

const { ask, endChild, nextMessage, startChild } = require('./child');
const { OPEN } = require('./quorum-lockers');
const { Unfinished } = require('./quorum-rounds');

const START_MS = 5000;
const STARTS_MOST = 5; // in all, of each
const SETTLE_MS = 10000;
// What a turn may take beyond twice the time that it is to be measured.
const GRACE_MS = 5000;

/** Rejects with Unfinished if `promise` has not settled after `ms`, or rejects. */
async function within(ms, what, promise) {
  let timer;
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Unfinished(`${what} in ${ms / 1000} s`)), ms);
  });
  promise.catch(() => undefined); // nobody waits for it after that
  try {
    return await Promise.race([promise, late]);
  } catch (error) {
    throw error instanceof Unfinished ? error : new Unfinished(error.message);
  } finally {
    clearTimeout(timer);
  }
}

class Member {
  #name;
  #ports;
  #child = null;
  #reason = null;
  #starts = 0;

  constructor(name, ports) {
    this.#name = name;
    this.#ports = ports;
  }

  /** Starts its process if it has none; where it does not start, ask() will say why. */
  async start() {
    if (this.#child !== null || this.#starts++ >= STARTS_MOST) return;
    this.#child = startChild('quorum-child.js', [this.#name, ...this.#ports.map(String)]);
    await this.#answer(START_MS, 'did not start', nextMessage(this.#child)).catch(() => undefined);
  }

  /** Rejects with Unfinished, and without a process, where there is no good answer. */
  ask(message, ms) {
    if (this.#child === null) return Promise.reject(new Unfinished(this.#reason));
    return this.#answer(ms, 'did not finish', ask(this.#child, message));
  }

  async #answer(ms, what, promise) {
    try {
      const answer = await within(ms, what, promise);
      if ('failed' in answer) throw new Unfinished(answer.failed);
      return answer;
    } catch (error) {
      this.#reason = error.message;
      await this.#kill();
      throw error;
    }
  }

  async #kill() {
    const child = this.#child;
    this.#child = null;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, 'exit');
    child.kill('SIGKILL');
    await exit;
  }

  async close() {
    if (this.#child === null) return;
    await within(SETTLE_MS, 'did not end', endChild(this.#child)).catch(() => this.#kill());
  }
}

/**
 * Starts them all, one after another.
 *
 * @param {number[]} ports of servers that all run
 */
async function openCrew(ports) {
  const members = Object.fromEntries(Object.keys(OPEN).map((name) => [
    name, new Member(name, ports),
  ]));
  const each = async (work) => {
    for (const member of Object.values(members)) await work(member);
  };
  await each((member) => member.start());
  return {
    names: Object.keys(members),
    /** Measures one of them, see quorum-child.js; rejects with Unfinished. */
    async measure(name, { inFlight, seconds }) {
      const limit = 2000 * seconds + GRACE_MS;
      return (await members[name].ask({ step: 'measure', inFlight, seconds }, limit)).figures;
    },
    /** When all servers run again: lets their answers come, and starts whoever was ended. */
    async mend() {
      await each((member) => member.ask({ step: 'settle' }, SETTLE_MS).catch(() => undefined));
      await each((member) => member.start());
    },
    close: () => each((member) => member.close()),
  };
}

module.exports = { openCrew };
