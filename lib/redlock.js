'use strict';

// The interface of redlock 4 and 5 on the locks of Holdfast. See docs/redlock.md.

const { EventEmitter } = require('node:events');
const { inspect } = require('node:util');

const { Holdfast } = require('./holdfast');
const { readClients } = require('./redlock-clients');
const { Core } = require('./redlock-core');
const { Disposer } = require('./redlock-disposer');
const { ExecutionError, LockError, ResourceLockedError } = require('./redlock-errors');
const { Guard } = require('./redlock-guard');
const { Lock } = require('./redlock-lock');
const { readMaxTtl, readSettings } = require('./redlock-settings');
const { typeName, wrongType } = require('./validate');

const NODES_MAX = 15;
const SCRIPTS = ['lockScript', 'unlockScript', 'extendScript', 'acquireScript', 'releaseScript'];
const LEAST_ABOVE_THRESHOLD = 100;

function noop() {}

/** Calls back as bluebird's `nodeify` does; without a callback it is the promise alone. */
function nodeify(promise, callback) {
  if (typeof callback !== 'function') return promise;
  // What a callback throws is its owner's affair: no failure of the call, and no rejection.
  promise.then(
    (value) => process.nextTick(callback, null, ...(value === undefined ? [] : [value])),
    (error) => process.nextTick(callback, error),
  );
  return promise;
}

// Where redlock 5 has settings, redlock 4 has a callback.
function settingsIn(given) {
  return typeof given === 'function' ? undefined : given;
}

function listOf(clients) {
  if (typeof clients === 'string' || typeof clients?.[Symbol.iterator] !== 'function') {
    throw wrongType('clients', 'an array of clients or URLs', clients);
  }
  const list = [...new Set(clients)];
  if (list.length === 0) {
    throw new RangeError('Redlock must be instantiated with at least one redis client.');
  }
  if (list.length > NODES_MAX) {
    throw new RangeError(`clients must be ${NODES_MAX} at most; got ${list.length}`);
  }
  return list;
}

function refuseScripts(given, name) {
  for (const script of SCRIPTS) {
    const value = given?.[script];
    if (value === undefined || value === null) continue;
    throw new TypeError(`${name}.${script} cannot be used: Holdfast has scripts of its own`);
  }
}

/** Redlock, as versions 4 and 5 of the package `redlock` have it. */
class Redlock extends EventEmitter {
  #clients;
  #hf;
  #core;
  #ending = null;

  /**
   * @param {Iterable<object | string>} clients one for each node, at most 15: clients of ioredis or
   *   node-redis, whose options are read, or URLs. Holdfast opens connections of its own, when they
   *   are needed. Several clients are a quorum; one is a store by itself, and may be a Cluster.
   * @param {object} [settings]
   * @param {number} [settings.driftFactor=0.01] how far clocks may drift apart, as a part of the
   *   duration
   * @param {number} [settings.retryCount=10] how often to try again; -1: for ever
   * @param {number} [settings.retryDelay=200] milliseconds between two attempts
   * @param {number} [settings.retryJitter=100] milliseconds, at random, that it is more or less
   * @param {number} [settings.automaticExtensionThreshold=500] milliseconds: the signal of `using`
   *   aborts when half of it, or a sixth of the duration, is left and nothing has been extended
   * @param {number | string} [settings.maxTtl='5m'] 50 ms to 24 h: the longest duration. For so
   *   long a node of a quorum that has restarted has no vote. With one client it is '24h'
   * @param {object} [settings.connection] options of Holdfast's open(), such as `tls`, `password`
   *   or `commandTimeout`, which count more than what the clients say
   * @param {object} [scripts] is refused, if there are any
   * @throws {TypeError} if a client cannot be understood, or has what Holdfast cannot take over
   * @throws {RangeError} if the clients differ in what must be the same for all, or a setting makes
   *   no sense
   */
  constructor(clients, settings = undefined, scripts = undefined) {
    super();
    refuseScripts(settings, 'settings');
    refuseScripts(scripts, 'scripts');
    this.#clients = Object.freeze(listOf(clients));
    /** @type {Readonly<object>} the five of redlock, with what is the default */
    this.settings = readSettings(settings);
    const isQuorum = this.#clients.length > 1;
    const maxTtl = readMaxTtl(settings, isQuorum);
    const { url, options } = readClients(this.#clients, settings?.connection);
    this.#hf = new Holdfast(url, isQuorum ? { ...options, maxTtl } : options);
    this.#core = new Core(this, this.#hf, this.#clients, maxTtl, (error) => this.#tell(error));
    // An emitter throws an 'error' that nobody listens to.
    this.on('error', noop);
    this.#passOnProblems();
  }

  /** The clients, as redlock 5 has them: a Set. */
  get clients() {
    return new Set(this.#clients);
  }

  /** The clients, as redlock 4 has them: an array. */
  get servers() {
    return [...this.#clients];
  }

  get driftFactor() {
    return this.settings.driftFactor;
  }

  get retryCount() {
    return this.settings.retryCount;
  }

  get retryDelay() {
    return this.settings.retryDelay;
  }

  get retryJitter() {
    return this.settings.retryJitter;
  }

  /**
   * Takes a lock of all the resources, or of none.
   *
   * With a string as first argument, or a callback, this is the call of redlock 4: its Lock counts
   * `attempts`, is itself changed when it is extended, and errors are LockErrors.
   *
   * @param {readonly string[] | string} resources 1 to 64 names of 1 to 1,024 bytes
   * @param {number} duration whole milliseconds, 50 to `maxTtl`
   * @param {object | ((error: Error | null, lock?: Lock) => void)} [settings] for this call, or the
   *   callback
   * @returns {Promise<Lock>}
   * @throws {ExecutionError} if no attempt had a majority
   * @throws {RangeError} if an argument is out of range
   */
  acquire(resources, duration, settings) {
    const legacy = typeof resources === 'string' || typeof settings === 'function';
    return nodeify(
      this.#core.acquire({ resources, duration, settings: settingsIn(settings), legacy }),
      settings,
    );
  }

  /**
   * Takes a lock, as redlock 4 does.
   *
   * @param {string | readonly string[]} resource one or several
   * @param {number} ttl whole milliseconds, 50 to `maxTtl`
   * @param {(error: Error | null, lock?: Lock) => void} [callback]
   * @returns {Promise<Lock>}
   * @throws {LockError} if no attempt had a majority
   */
  lock(resource, ttl, callback) {
    return this.lockWithOptions(resource, ttl, undefined, callback);
  }

  /**
   * As `lock`, with settings for this call.
   *
   * @param {string | readonly string[]} resource
   * @param {number} ttl
   * @param {object} [options]
   * @param {(error: Error | null, lock?: Lock) => void} [callback]
   * @returns {Promise<Lock>}
   */
  lockWithOptions(resource, ttl, options, callback) {
    return nodeify(
      this.#core.acquire({ resources: resource, duration: ttl, settings: options, legacy: true }),
      callback,
    );
  }

  /**
   * Takes a lock for bluebird's `using`, which gives it back in the end.
   *
   * @param {string | readonly string[]} resource
   * @param {number} ttl
   * @param {(error: Error) => void} [unlockErrorHandler] hears why it could not be released; by
   *   default nobody does
   * @returns {object} a disposer
   */
  disposer(resource, ttl, unlockErrorHandler) {
    return new Disposer(this.lock(resource, ttl), unlockErrorHandler);
  }

  /**
   * Gives a lock back: its `expiration` is 0 at once. Nodes that do not answer are told later, so
   * there is nothing to be tried again.
   *
   * @param {Lock} lock
   * @param {object | ((error: Error | null) => void)} [settings] are not needed; or the callback
   * @returns {Promise<{ attempts: Promise<object>[] }>}
   * @throws {ExecutionError} if its time was over before, or no majority could be told; LockError
   *   where the call, or the lock, is of redlock 4's kind
   */
  release(lock, settings) {
    const isCallback = typeof settings === 'function';
    const released = this.#core.release({ lock, legacy: isCallback });
    return isCallback ? nodeify(released.then(noop), settings) : released;
  }

  /**
   * Gives a lock back, as redlock 4 does.
   *
   * @param {Lock} lock
   * @param {(error: Error | null) => void} [callback]
   * @returns {Promise<void>}
   * @throws {LockError} if its time was over before, or no majority could be told
   */
  unlock(lock, callback) {
    return nodeify(this.#core.release({ lock, legacy: true }).then(noop), callback);
  }

  /**
   * Makes a lock last for `duration` from now, unless its time is over.
   *
   * @param {Lock} lock
   * @param {number} duration whole milliseconds, 50 to `maxTtl`
   * @param {object | ((error: Error | null, lock?: Lock) => void)} [settings] for this call, or the
   *   callback
   * @returns {Promise<Lock>} another one, while the `expiration` of the old one is 0; the same
   *   where the call, or the lock, is of redlock 4's kind
   * @throws {ExecutionError} if its time is over, or no attempt had a majority; LockError where the
   *   call, or the lock, is of redlock 4's kind
   */
  extend(lock, duration, settings) {
    const legacy = typeof settings === 'function';
    return nodeify(
      this.#core.extend({ lock, duration, settings: settingsIn(settings), legacy }),
      settings,
    );
  }

  /**
   * Runs a routine while the lock is held, however long that takes, and however busy JavaScript is
   * meanwhile. An error of the routine always wins.
   *
   * @template T
   * @param {readonly string[]} resources 1 to 64 names of 1 to 1,024 bytes
   * @param {number} duration whole milliseconds, at least 100 more than
   *   `automaticExtensionThreshold`, to `maxTtl`
   * @param {object | ((signal: AbortSignal) => T | Promise<T>)} settings for this call; may be left
   *   out
   * @param {(signal: AbortSignal) => T | Promise<T>} [routine] the signal aborts when the lock
   *   cannot be extended, while some of its time is left; then `signal.error` is an ExecutionError
   * @returns {Promise<T>} what the routine returned
   * @throws {ExecutionError} if the lock could not be taken, or was lost while the routine ran
   */
  async using(resources, duration, settings, routine = settings) {
    if (typeof routine !== 'function') {
      throw new TypeError(`INVARIANT: routine is not a function; got ${typeName(routine)}.`);
    }
    const plan = readSettings(settingsIn(settings), this.settings);
    const threshold = plan.automaticExtensionThreshold;
    if (threshold > duration - LEAST_ABOVE_THRESHOLD) {
      throw new RangeError('A lock `duration` must be at least 100ms greater than the ' +
        '`automaticExtensionThreshold` setting.');
    }
    const lock = await this.#core.acquire(
      { resources, duration, settings: plan, legacy: false, renew: true });
    const guard = new Guard(this.#core.entryOf(lock).hold, Math.min(threshold, duration / 3) / 2,
      (cause) => new ExecutionError('The lock could not be extended.', lock.attempts, { cause }));
    let result;
    try {
      result = await routine(guard.signal);
    } catch (error) {
      guard.stop();
      await this.#core.releaseQuietly(lock);
      throw error;
    }
    guard.stop();
    const cause = await this.#core.releaseQuietly(lock);
    if (cause === null) return result;
    throw guard.signal.error ??
      new ExecutionError('The lock was lost while the routine ran.', lock.attempts, { cause });
  }

  /**
   * Closes Holdfast's connections, which releases what is held, and calls `quit()` of the clients.
   *
   * @param {(error: Error | null, results?: unknown[]) => void} [callback]
   * @returns {Promise<unknown[]>} what the clients gave
   */
  quit(callback) {
    this.#ending ??= this.#end();
    return nodeify(this.#ending, callback);
  }

  /** What `console.log` shows: not the clients, which know their passwords. */
  [inspect.custom](depth, options) {
    if (depth < 0) return '[Redlock]';
    const shown = { clients: this.#clients.length, settings: this.settings };
    return `Redlock ${inspect(shown, options)}`;
  }

  async #end() {
    await this.#core.close();
    // One of node-redis need not have been connected for us, and does not like to be told then.
    const open = this.#clients.filter((client) =>
      typeof client?.quit === 'function' && client.isOpen !== false);
    return Promise.all(open.map((client) => client.quit()));
  }

  #tell(error) {
    const events = error instanceof ResourceLockedError ? ['error'] : ['error', 'clientError'];
    for (const event of events) {
      try {
        this.emit(event, error);
      } catch (thrown) {
        // Of the listener, not of the operation that it hears of.
        process.nextTick(() => {
          throw thrown;
        });
      }
    }
  }

  // Holdfast warns the process of problems that no call reports, unless somebody listens.
  #passOnProblems() {
    const onListener = (event) => {
      if (event !== 'error' && event !== 'clientError') return;
      this.off('newListener', onListener);
      this.#hf.on('error', (error) => this.#tell(error));
    };
    this.on('newListener', onListener);
  }
}

Redlock.prototype.acquireWithOptions = Redlock.prototype.lockWithOptions;

// `require` gives the class, as that of redlock 4 does; `import Redlock`, `import { Lock }` and
// `const { default: Redlock } = require()` find what they look for as well.
module.exports = Redlock;
module.exports.default = Redlock;
module.exports.Redlock = Redlock;
module.exports.Lock = Lock;
module.exports.LockError = LockError;
module.exports.ExecutionError = ExecutionError;
module.exports.ResourceLockedError = ResourceLockedError;
