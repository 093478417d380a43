'use strict';

// What tests share: temporary folders, other processes, and waiting for a condition.

const { spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const readline = require('node:readline');
const { setTimeout: sleep } = require('node:timers/promises');

const library = path.join(__dirname, '..');

/** A temporary folder for the suite that calls this: `path` from `before` to `after`. */
function useFolder() {
  const folder = { path: null };
  before(() => {
    folder.path = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-'));
  });
  after(() => fs.rmSync(folder.path, { recursive: true, force: true }));
  return folder;
}

/**
 * Waits until `condition()` is true, or what it returns resolves with something true, and returns
 * that. Gives up after `timeout` ms: a test that fails so says for what it waited.
 */
async function until(condition, what, timeout = 20000) {
  const end = Date.now() + timeout;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited in vain until ${what}`);
    await sleep(5);
  }
}

/** Keeps JavaScript busy for `ms`: no timer, no callback, no microtask runs meanwhile. */
function block(ms) {
  const end = Date.now() + ms;
  while (Date.now() < end);
}

// What a program given to `start` finds: the library, and how to talk with the test.
const prelude = `
  const holdfast = require(${JSON.stringify(library)});
  const say = (event, data) =>
    require('node:fs').writeSync(1, JSON.stringify({ event, ...data }) + '\\n');
  const block = ${block.toString()};
  const heard = (event) => new Promise((resolve) => {
    process.stdin.ref();
    const lines = require('node:readline').createInterface({ input: process.stdin });
    lines.on('line', (line) => {
      if (JSON.parse(line).event !== event) return;
      lines.close();
      process.stdin.unref();
      resolve();
    });
  });
`;

const children = new Set();

/** Another process: what it said, each an object with `event`, and how to talk to it. */
class Child {
  constructor(process) {
    this.process = process;
    this.pid = process.pid;
    this.said = [];
    this.stderr = '';
    this.wake = () => {};
    process.stderr.setEncoding('utf8').on('data', (text) => { this.stderr += text; });
    readline.createInterface({ input: process.stdout }).on('line', (line) => {
      this.said.push(JSON.parse(line));
      this.wake();
    });
    children.add(this);
    /** Resolves with { code, signal } when it has ended and all that it said is here. */
    this.ended = once(process, 'close').then(([code, signal]) => {
      children.delete(this);
      this.over = true;
      this.wake();
      return { code, signal };
    });
  }

  /** Waits for the first `event` that it has said, or will say. */
  async hear(event) {
    for (;;) {
      const message = this.said.find((each) => each.event === event);
      if (message !== undefined) return message;
      if (this.over) throw new Error(`the process never said ${event}: ${this.stderr}`);
      await new Promise((resolve) => {
        this.wake = resolve;
      });
    }
  }

  tell(event) {
    this.process.stdin.write(`${JSON.stringify({ event })}\n`);
  }

  async kill() {
    this.process.kill('SIGKILL');
    await this.ended;
  }
}

/**
 * Starts a process that runs `program`, the text of an async function's body, with `url` in its
 * environment as HOLDFAST_URL. Ended after the test that started it, if it has not ended by itself.
 */
function start(program, url, env = {}) {
  const code = `${prelude}(async () => {${program}})();`;
  return new Child(spawn(process.execPath, ['-e', code], {
    env: { ...process.env, HOLDFAST_URL: url, ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  }));
}

/** To be called in a suite that uses `start`. */
function endChildren() {
  afterEach(() => Promise.all([...children].map((child) => child.kill())));
}

/** Random numbers from 0 to 1 that come again with the same seed. */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A promise with its two ends. */
function deferred() {
  const ends = {};
  ends.promise = new Promise((resolve, reject) => {
    Object.assign(ends, { resolve, reject });
  });
  return ends;
}

module.exports = { useFolder, until, block, start, endChildren, random, deferred, library };
