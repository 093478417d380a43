'use strict';

// A function that runs in one process at a time: wherever its lock is held.

const { inspect } = require('node:util');
const { setTimeout: sleep } = require('node:timers/promises');

const aborts = require('./aborts');
const telemetry = require('./telemetry');
const { CLOSE_TIMEOUT_MS, closeTimeout } = require('./client');
const { HoldfastError, closedError, quote } = require('./errors');
const { abortSignal, acquireLock, lockPlan, lossOf, releaseQuietly } = require('./lock');
const { checkFunction, checkOptions } = require('./validate');

const LEADER_OPTIONS = new Set(['ttl', 'maxStall', 'note', 'signal']);
const BACKOFF_MIN_MS = 1000;
const BACKOFF_MAX_MS = 30000;
// The longest time that a timer of Node's can wait.
const TIMER_MAX_MS = 2 ** 31 - 1;

function noop() {}

// What was thrown may be anything.
function textOf(thrown) {
  try {
    return String(thrown instanceof Error ? thrown.message : thrown);
  } catch {
    return 'something that has no text';
  }
}

/** How long to wait before the attempt after `failures` that failed: the upper half is random. */
function backoff(failures) {
  const most = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** Math.min(failures, 30));
  return most / 2 + Math.random() * most / 2;
}

// Set by class Leader: what other files may do with a leader and its users may not.
let stand;
let end;

/** Stands for a lock, and runs a function whenever it is held. Made by `leader()`. */
class Leader {
  #client;
  #keyspace;
  // Whole, as the store has it.
  #key;
  #fn;
  #plan;
  #lock = null;
  #stopping = new AbortController();
  // When `fn` has had its time after a stop, as performance.now() counts.
  #until = Infinity;
  #timer = null;
  // Stops waiting for the `fn` that runs.
  #giveUp = noop;
  // How many attempts failed in a row, and the code that was last reported while standing.
  #failures = 0;
  #reported = null;
  #over = false;
  #done = null;

  /** Not for users: see startLeader. */
  constructor(client, keyspace, key, fn, plan) {
    this.#client = client;
    this.#keyspace = keyspace;
    this.#key = key;
    this.#fn = fn;
    this.#plan = { ...plan, wait: Infinity, signal: this.#stopping.signal };
  }

  static {
    stand = (leader, signal) => leader.#start(signal);
    end = (leader, timeout) => leader.#stop(timeout);
  }

  get name() {
    return this.#keyspace.leave(this.#key);
  }

  /** Whether this one leads: exact at any instant, as `lock.held`. */
  get leading() {
    return this.#lock !== null && this.#lock.held;
  }

  /** The lock while `fn` runs, else null. */
  get lock() {
    return this.#lock;
  }

  /** Resolves when this one leads no more, nor stands; never rejects. */
  get done() {
    return this.#done;
  }

  /**
   * Ends it: aborts `lock.signal`, waits until `fn` has ended, and releases the lock.
   *
   * @param {object} [options]
   * @param {number | string} [options.timeout='5s'] how long `fn` may take to end; 0, or Infinity.
   *   Then the lock is released all the same. A second call may shorten it.
   * @returns {Promise<void>} when the lock is released
   */
  async stop(options) {
    await this.#stop(closeTimeout(options));
  }

  /** What `console.log` shows. */
  [inspect.custom](depth, options) {
    const { name, leading } = this;
    return depth < 0 ? '[Leader]' : `Leader ${inspect({ name, leading }, options)}`;
  }

  /** Stops it, for `await using`. */
  async [Symbol.asyncDispose]() {
    await this.stop();
  }

  #start(signal) {
    this.#client.leaders.add(this);
    // A promise alone keeps no process alive, and `fn` may wait for nothing else.
    const alive = setInterval(noop, TIMER_MAX_MS);
    const onAbort = () => this.#stop(CLOSE_TIMEOUT_MS);
    if (signal?.aborted) {
      onAbort();
    } else if (signal !== undefined) {
      aborts.listen(signal, onAbort);
    }
    this.#done = this.#run().then(() => {
      this.#over = true;
      clearInterval(alive);
      clearTimeout(this.#timer);
      if (signal !== undefined) aborts.unlisten(signal, onAbort);
      this.#client.leaders.delete(this);
    });
    return this;
  }

  #stop(timeout) {
    if (this.#over) return this.#done;
    if (!this.#stopping.signal.aborted) {
      const message = `the leader ${quote(this.#key)} was stopped`;
      const reason = new DOMException(message, 'AbortError');
      this.#stopping.abort(reason);
      if (this.#lock !== null) abortSignal(this.#lock, reason);
    }
    const until = performance.now() + timeout;
    if (until < this.#until) {
      this.#until = until;
      clearTimeout(this.#timer);
      // In a time longer than that somebody will have called again.
      if (timeout <= TIMER_MAX_MS) this.#timer = setTimeout(() => this.#giveUp(), timeout);
    }
    return this.#done;
  }

  async #run() {
    while (!this.#stopping.signal.aborted) {
      const lock = await this.#acquire();
      if (lock !== null && await this.#lead(lock)) return;
    }
  }

  // Resolves with null after a failure, when it is time to try again or to end.
  async #acquire() {
    try {
      const lock = await acquireLock(this.#client, this.#keyspace, this.#key, this.#plan);
      this.#reported = null;
      return lock;
    } catch (error) {
      if (error.code === 'HF_ECLOSED') this.#stop(0);
      if (this.#stopping.signal.aborted) return null;
      if (error.code !== this.#reported) telemetry.warn(this.#client.emitter, error);
      this.#reported = error.code;
      await this.#pause(backoff(this.#failures++));
      return null;
    }
  }

  /** Runs `fn` once. Resolves with whether that was the last time. */
  async #lead(lock) {
    const started = performance.now();
    const thrown = await this.#callFn(lock);
    const held = lock.held;
    await releaseQuietly(lock);
    this.#lock = null;
    if (this.#stopping.signal.aborted) return true;
    // What the release alone found out is nothing that `fn` ended for.
    const lost = !held && lossOf(lock) !== null;
    if (lost || performance.now() - started >= BACKOFF_MAX_MS) this.#failures = 0;
    if (lost) return false;
    if (thrown === null) return true;
    await this.#reportAndPause(thrown.error);
    return false;
  }

  /** Resolves with null when `fn` has returned, or is given up; with { error } if it threw. */
  #callFn(lock) {
    // Stopped in the moment in which it was won.
    if (this.#stopping.signal.aborted) return null;
    this.#lock = lock;
    return new Promise((resolve) => {
      this.#giveUp = () => resolve(null);
      const run = async () => this.#fn(lock);
      run().then(() => resolve(null), (error) => resolve({ error }));
    });
  }

  async #reportAndPause(cause) {
    const pause = backoff(this.#failures++);
    const message = `the function of the leader ${quote(this.#key)} threw, and this process ` +
      `stands again in ${(pause / 1000).toFixed(1)} s: ${textOf(cause)}`;
    const error = new HoldfastError('HF_ECALLBACK', message, { cause, key: this.#key });
    telemetry.warn(this.#client.emitter, error);
    await this.#pause(pause);
  }

  // Ends early when it is stopped.
  async #pause(time) {
    await sleep(time, undefined, { signal: this.#stopping.signal }).catch(noop);
  }
}

/** Makes a leader, which stands from now on. See Holdfast.leader. */
function startLeader(client, keyspace, name, fn, options) {
  const key = keyspace.enter(name, 'name');
  checkFunction(fn);
  checkOptions(options, LEADER_OPTIONS);
  const plan = lockPlan(options, false, client.maxTtl);
  if (client.closing !== null) throw closedError();
  return stand(new Leader(client, keyspace, key, fn, plan), plan.signal);
}

/**
 * Stops all leaders of a client: their signals abort at once.
 *
 * @returns {Promise<unknown>} when they have ended, or `timeout` has passed
 */
function stopLeaders(client, timeout) {
  return Promise.all([...client.leaders].map((leader) => end(leader, timeout)));
}

module.exports = { startLeader, stopLeaders };
