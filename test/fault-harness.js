'use strict';

// Child processes for the fault tests: started here, spoken to in lines of JSON, killed and frozen
// by their pid, and ended by `endAll` whatever became of the test.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawn } = require('node:child_process');
const { createInterface } = require('node:readline');
const { setTimeout: sleep } = require('node:timers/promises');

const CHILD = path.join(__dirname, 'fault-child.js');
// How long anything may take before it counts as hung. No test is judged by it otherwise.
const PATIENCE_MS = 60_000;
// A time to live that no test lives to see the end of: a lock that comes free was released.
const NEVER_MS = 24 * 3600 * 1000;
// Options of a client that leaves the turn to nobody: each attempt goes to the store, and what it
// comes to is the store's word.
const SELFISH = { handoffs: 1_000_000, handoffTime: NEVER_MS };

const children = new Set();
const folders = [];

/** Milliseconds of the clock that all processes of this machine share. */
function now() {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** A path in a new folder that endAll removes. */
function temporaryPath(name = 'test.db') {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-fault-'));
  folders.push(folder);
  return path.join(folder, name);
}

/**
 * Random numbers that a seed repeats. Prints the seed, unless one is given; HF_SEED sets it.
 *
 * @param {number} [given]
 */
function seeded(given) {
  const seed = (given ?? Number(process.env.HF_SEED || Math.trunc(Math.random() * 2 ** 31))) >>> 0;
  if (given === undefined) console.log(`      seed ${seed} (HF_SEED=${seed} repeats it)`);
  let state = seed;
  // A Weyl sequence, mixed: enough for choices of tests.
  const next = () => {
    state = (state + 0x9e3779b9) >>> 0;
    let x = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
    return ((x ^ (x >>> 15)) >>> 0) / 2 ** 32;
  };
  const between = (low, high) => low + Math.floor(next() * (high - low + 1));
  return {
    seed,
    between,
    chance: (probability) => next() < probability,
    pick: (list) => list[between(0, list.length - 1)],
    fork: () => seeded(between(0, 2 ** 31)),
  };
}

/**
 * The environment of a child. Where the addon runs under a sanitizer, leaks are not looked for: a
 * process that exits from within JavaScript leaves behind what Node had allocated below our frames.
 */
function environment() {
  const { ASAN_OPTIONS } = process.env;
  if (ASAN_OPTIONS === undefined) return process.env;
  return { ...process.env, ASAN_OPTIONS: `${ASAN_OPTIONS}:detect_leaks=0` };
}

/** One process of test/fault-child.js in the given role. */
class Child {
  #process;
  #messages = [];
  #waiters = [];
  #answers = new Map();
  #calls = 0;
  #stderr = '';
  #frozen = false;

  constructor(role, args, env) {
    this.role = role;
    this.listener = null;
    this.over = false;
    this.#process = spawn(process.execPath, [CHILD, role, JSON.stringify(args)], {
      env: { ...environment(), ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.pid = this.#process.pid;
    children.add(this);
    this.#process.stdin.on('error', () => {}); // it may be dead by now
    this.#process.stderr.on('data', (text) => { this.#stderr += text; });
    createInterface(this.#process.stdout).on('line', (line) => this.#read(JSON.parse(line)));
    // 'close', not 'exit': by then all that it said has been read.
    this.ended = new Promise((resolve, reject) => {
      this.#process.on('error', reject);
      this.#process.on('close', (code, signal) => {
        this.#end(code, signal);
        resolve({ code, signal, stderr: this.#stderr });
      });
    });
  }

  /** The next message with that name, once: those that came before count. */
  next(event) {
    const i = this.#messages.findIndex((message) => message.event === event);
    if (i >= 0) return Promise.resolve(this.#messages.splice(i, 1)[0]);
    return this.#patient(`"${event}"`, (resolve, reject) => {
      this.#waiters.push({ event, resolve, reject });
    });
  }

  /** Asks for something; resolves with the answer, or rejects with the error it brought. */
  call(command, args = {}) {
    const id = ++this.#calls;
    const answer = this.#patient(`the answer to ${command}`, (resolve, reject) => {
      this.#answers.set(id, { resolve, reject });
    });
    this.tell(command, args, id);
    return answer;
  }

  /** Asks for something that has no answer. */
  tell(command, args = {}, id = 0) {
    this.#process.stdin.write(`${JSON.stringify({ command, args, id })}\n`);
  }

  /** Ends its input: it has nothing more to do. */
  finish() {
    this.#process.stdin.end();
  }

  /** Sends a signal; returns when that was. */
  signal(name) {
    const at = now();
    if (!this.over) this.#process.kill(name);
    return at;
  }

  async kill() {
    const at = this.signal('SIGKILL');
    await this.ended;
    return at;
  }

  freeze() {
    this.#frozen = true;
    return this.signal('SIGSTOP');
  }

  thaw() {
    this.#frozen = false;
    return this.signal('SIGCONT');
  }

  get frozen() {
    return this.#frozen;
  }

  #read(message) {
    if (message.event === 'answer') {
      const answer = this.#answers.get(message.id);
      this.#answers.delete(message.id);
      if (message.error) {
        answer.reject(Object.assign(new Error(message.error.message), message.error));
      } else {
        answer.resolve(message.value);
      }
      return;
    }
    this.listener?.(message);
    const i = this.#waiters.findIndex(({ event }) => event === message.event);
    if (i >= 0) {
      this.#waiters.splice(i, 1)[0].resolve(message);
    } else if (this.listener === null) {
      this.#messages.push(message);
    }
  }

  #end(code, signal) {
    this.over = true;
    children.delete(this);
    const how = signal ?? `code ${code}`;
    const error = new Error(`process ${this.pid} (${this.role}) ended: ${how}\n${this.#stderr}`);
    error.ended = true;
    for (const { reject } of [...this.#waiters, ...this.#answers.values()]) reject(error);
  }

  #patient(what, executor) {
    let timer;
    const promise = new Promise((resolve, reject) => {
      timer = setTimeout(() => {
        const who = `process ${this.pid} (${this.role})`;
        reject(new Error(`${who}: ${what} never came\n${this.#stderr}`));
      }, PATIENCE_MS);
      executor(resolve, reject);
    }).finally(() => clearTimeout(timer));
    promise.catch(() => {}); // a test that has failed may not come to await it
    return promise;
  }
}

function start(role, args = {}, env = {}) {
  return new Child(role, args, env);
}

/** A process that does what it is told, with a store open if `url` is given. */
async function startAgent(url, options) {
  const agent = start('agent');
  if (url !== undefined) await agent.call('open', { url, options });
  return agent;
}

/**
 * Freezes a process outside of every transaction, for one that stands still within holds up all
 * others. `other` is an agent on the same store, which tells.
 */
async function freezeAtRest(child, other) {
  for (;;) {
    child.freeze();
    const write = other.call('put', { key: 'at rest', value: true });
    if (await Promise.race([write, sleep(1000, null)]) !== null) return;
    child.thaw();
    await write;
  }
}

/** Waits until `condition()` resolves with true; fails after a minute. */
async function until(condition, what) {
  const end = now() + PATIENCE_MS;
  while (!await condition()) {
    if (now() > end) throw new Error(`never came: ${what}`);
    await sleep(10);
  }
}

/** Ends every child that is left, and removes all folders. For `afterEach`. */
async function endAll() {
  await Promise.all([...children].map((child) => child.kill()));
  while (folders.length > 0) fs.rmSync(folders.pop(), { recursive: true, force: true });
}

// Whoever is interrupted leaves no processes behind either.
process.on('exit', () => {
  for (const child of children) child.signal('SIGKILL');
});

module.exports = {
  NEVER_MS,
  PATIENCE_MS,
  SELFISH,
  endAll,
  freezeAtRest,
  now,
  seeded,
  start,
  startAgent,
  temporaryPath,
  until,
};
