'use strict';

// A process of a trial as its director sees it: forked, asked for acts, let go or killed.

const { fork } = require('node:child_process');
const { once, EventEmitter } = require('node:events');
const path = require('node:path');

const WORKER = path.join(__dirname, 'worker.js');
const STDERR_KEPT = 2000;

class Player {
  #child;
  #asked = new Map();
  #next = 1;
  #stderr = '';
  #events = new EventEmitter();

  constructor() {
    // No Node options of this process: a debugger's port, say, can be had only once.
    this.#child = fork(WORKER, [], { execArgv: [], stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
    this.#child.stderr.on('data', (text) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_KEPT);
    });
    this.#child.on('message', (message) => this.#settle(message));
    this.#child.on('error', (error) => this.#abandon(error));
    /** Resolves once the process is gone. */
    this.exited = new Promise((resolve) => {
      this.#child.on('close', (code, signal) => {
        this.#abandon(new Error(`a process of the trial ended (${signal ?? code})${this.#last()}`));
        resolve();
      });
    });
  }

  get pid() {
    return this.#child.pid;
  }

  /** Opens the store. Resolves when the process is ready to act. */
  prepare(scene) {
    return this.#ask('prepare', scene);
  }

  /** Performs one act of the trial; resolves with what it returns. */
  perform(act, wishes) {
    return this.#ask('perform', { act, ...wishes });
  }

  /** The next report of this name from an act. Ask before the act is asked for. */
  report(name) {
    return quiet(once(this.#events, name).then(([value]) => value));
  }

  /**
   * SIGKILL, by process id, as the kernel does when memory runs out. What the process was asked for
   * then never settles, as for anyone who waited for it.
   */
  kill() {
    this.#asked.clear();
    return this.end(new Error('killed'));
  }

  /** Ends the process at once, if it still runs; what it was asked for rejects with `reason`. */
  async end(reason) {
    this.#abandon(reason);
    if (this.#child.exitCode === null && this.#child.signalCode === null && this.pid) {
      process.kill(this.pid, 'SIGKILL');
    }
    await this.exited;
  }

  /** Closes the store and ends. */
  async leave() {
    await this.#ask('leave');
    await this.exited;
  }

  #ask(verb, spec) {
    const id = this.#next++;
    return quiet(new Promise((resolve, reject) => {
      this.#asked.set(id, { resolve, reject });
      this.#child.send({ id, verb, spec }, (error) => {
        if (error) this.#settle({ id, error });
      });
    }));
  }

  #settle({ id, value, error, event }) {
    if (event) {
      this.#events.emit(event.name, event.value);
      return;
    }
    const asked = this.#asked.get(id);
    this.#asked.delete(id);
    if (!asked) return;
    if (error) asked.reject(Object.assign(new Error(error.message), { code: error.code }));
    else asked.resolve(value);
  }

  #abandon(reason) {
    for (const { reject } of this.#asked.values()) reject(reason);
    this.#asked.clear();
    if (this.#events.listenerCount('error') > 0) this.#events.emit('error', reason);
  }

  #last() {
    const line = this.#stderr.trim().split('\n').pop();
    return line ? `: ${line}` : '';
  }
}

/** A director that fails elsewhere leaves promises behind; their failure is no news then. */
function quiet(promise) {
  promise.catch(() => {});
  return promise;
}

module.exports = { Player };
