'use strict';

const { EventEmitter } = require('node:events');
const { inspect } = require('node:util');

const binding = require('./binding');
const { Client, closeTimeout } = require('./client');
const { duration } = require('./duration');
const { LockLostError, LockTimeoutError } = require('./errors');
const { root } = require('./keyspace');
const { KV } = require('./kv');
const { startLeader, stopLeaders } = require('./leader');
const { inspectLock, listLocks } = require('./listing');
const { acquireLock, lockPlan, lossOf, releaseQuietly } = require('./lock');
const { IDEMPOTENT_OPTIONS, forgetRecord, oncePlan, readRecord, runOnce } = require('./once');
const { STORE_OPTIONS, storePlan } = require('./store-options');
const {
  checkFunction, checkInteger, checkOptions, isPromise, typeName,
} = require('./validate');

const { HANDOFFS, HANDOFFS_MAX, HANDOFF_TIME } = binding.constants;

const DEFAULT_URL = 'sqlite:./holdfast.db';
const CLIENT_OPTIONS = new Set(['handoffs', 'handoffTime', ...STORE_OPTIONS]);
const LOCKS_OPTIONS = new Set(['prefix']);
const SWEEP_ROWS = 1000;
const QUORUM_MAX = 15;

// The nodes of a quorum, as one URL.
function quorumUrl(urls) {
  if (urls.length === 0 || urls.length > QUORUM_MAX) {
    throw new RangeError(`url must have 1 to ${QUORUM_MAX} nodes; got ${urls.length}`);
  }
  urls.forEach((each, i) => {
    if (typeof each !== 'string') {
      throw new TypeError(`url[${i}] must be a string; got ${typeName(each)}`);
    }
    if (each === '' || /\s/.test(each)) {
      throw new RangeError(`url[${i}] must be a URL without blanks, such as 'redis://10.0.0.1'`);
    }
  });
  return `quorum:${urls.join(' ')}`;
}

function urlOf(url) {
  if (Array.isArray(url)) return quorumUrl(url);
  if (url !== undefined) {
    if (typeof url !== 'string') throw new TypeError(`url must be a string; got ${typeName(url)}`);
    return url;
  }
  if (process.env.HOLDFAST_URL) return process.env.HOLDFAST_URL;
  if (process.env.NODE_ENV === 'production') {
    throw new TypeError(
      'url is missing: with NODE_ENV=production there is no default; pass a URL such as ' +
      '\'sqlite:/var/lib/app/holdfast.db\', or set HOLDFAST_URL',
    );
  }
  return DEFAULT_URL;
}

/** Reads the options of open(). */
function clientPlan(options) {
  checkOptions(options, CLIENT_OPTIONS);
  const plan = {
    handoffs: HANDOFFS, handoffTime: HANDOFF_TIME, settings: [], password: undefined,
  };
  if (options === undefined) return plan;
  const { handoffs, handoffTime } = options;
  if (handoffs !== undefined) {
    checkInteger(handoffs, 'options.handoffs', 0, HANDOFFS_MAX);
    plan.handoffs = handoffs;
  }
  if (handoffTime !== undefined) {
    plan.handoffTime = duration(handoffTime, 'options.handoffTime', { min: 0, infinite: true });
  }
  ({ settings: plan.settings, password: plan.password } = storePlan(options));
  return plan;
}

// What a Holdfast is made of in place of a URL, where it is a namespace of another.
class Part {
  constructor(client, keyspace) {
    this.client = client;
    this.keyspace = keyspace;
  }
}

// Set by class Holdfast: what open() and other files may do and users may not.
let connect;
let clientOf;

/** Locks, run-once operations and conditional values on one store. */
class Holdfast extends EventEmitter {
  #client;
  #keyspace;
  #kv;

  /**
   * Connects at first use. See `open()` for one that is ready.
   *
   * @param {string | string[]} [url] 'sqlite:PATH', 'memory:', 'redis://HOST' or
   *   'postgres://HOST/DATABASE'; an array of 1 to
   *   15 Redis URLs is a quorum of independent nodes. By default HOLDFAST_URL, else
   *   'sqlite:./holdfast.db', but with NODE_ENV=production it must be given in one of the two ways.
   * @param {object} [options]
   * @param {number} [options.handoffs=16] 0 to 1,000,000: how many times in a row a lock may pass
   *   among those of this process who wait for it, while another process waits too
   * @param {number | string} [options.handoffTime='100ms'] or for how long; 0, or Infinity
   * @param {boolean | object} [options.tls=false] Redis, as all that follow: encrypt, as `rediss:`
   *   does; an object says how
   * @param {string | Uint8Array | (string | Uint8Array)[]} [options.tls.ca] PEM: the authorities to
   *   trust instead of the system's
   * @param {string | Uint8Array} [options.tls.cert] PEM: the certificate to show, with its chain
   * @param {string | Uint8Array} [options.tls.key] PEM: its private key
   * @param {string} [options.tls.servername] the name that the server's certificate must be for, by
   *   default the host connected to
   * @param {boolean} [options.tls.rejectUnauthorized=true] false: verify nothing
   * @param {number | string} [options.connectTimeout='5s'] 10 ms to 1 h
   * @param {number | string} [options.commandTimeout='5s'] 10 ms to 1 h: how long a server may take
   *   to answer
   * @param {string} [options.username] by default the server's default user
   * @param {string | (() => string | Promise<string>)} [options.password] a function is called when
   *   a connection is made and its last answer is a minute old, or was refused
   * @param {number} [options.db=0] the number of the database
   * @param {string} [options.prefix='holdfast:'] how the names of all keys begin in Redis: up
   *   to 128 bytes
   * @param {number} [options.waitReplicas=0] 0 to 16 replicas must have a lock before it counts
   * @param {boolean} [options.allowEviction=false] keep values and records where the server may
   *   evict them
   * @param {string} [options.sentinelUsername]
   * @param {string} [options.sentinelPassword]
   * @param {number | string} [options.maxTtl='5m'] quorums, as all that follow: 50 ms to 24 h: no
   *   lock may have a longer `ttl`, and so long a node that was restarted has no vote
   * @param {number | string} [options.nodeTimeout] 1 ms to 1 h: how long one node is waited for; by
   *   default 5 % of the `ttl`, at least 10 ms
   * @param {boolean} [options.fencing=false] fences, by a second round trip
   * @param {string} [options.schema='holdfast'] PostgreSQL, as all that follow: where the tables
   *   are: up to 40 small letters, digits and '_'
   * @param {'durable' | 'relaxed'} [options.leases='durable'] whether leases are on the server's
   *   disk before they count
   * @param {'session' | 'transaction'} [options.pooler] how a pooler in between lends connections;
   *   by default it is found out whether there is one
   * @param {number} [options.max=10] 1 to 1,000: connections for statements and transactions of
   *   `holdfast/postgres`
   * @param {number | string} [options.idleTimeout='10s'] 10 ms to 1 h: then one of them that nobody
   *   has used is closed
   * @throws {TypeError} if `url` is no string, or missing in production, or its store does not have
   *   one of the options
   * @throws {RangeError} if `url` is not understood
   * @throws {HoldfastError} HF_ENOTSUP if this version has no such store
   */
  constructor(url, options) {
    super();
    if (url instanceof Part) {
      this.#client = url.client;
      this.#keyspace = url.keyspace;
    } else {
      const plan = clientPlan(options);
      this.#client = new Client(urlOf(url), plan, this);
      this.#keyspace = root;
    }
    this.#kv = new KV(this.#client, this.#keyspace);
  }

  /** Values that change only when their condition holds. */
  get kv() {
    return this.#kv;
  }

  /**
   * Waits until the lock is held. The lock is not re-entrant, lasts until `release()`, and is
   * renewed meanwhile however busy JavaScript is.
   *
   * @param {string | readonly string[]} key 1 to 1,024 bytes of UTF-8 without NUL, or an array of 1
   *   to 64 different ones, which are taken all or none
   * @param {object} [options]
   * @param {number | string} [options.ttl='30s'] 50 ms to 24 h: how long after a crash it stays
   *   taken
   * @param {number | string} [options.wait='10s'] from the call; 0 is one attempt, Infinity until
   *   `signal` aborts
   * @param {boolean} [options.renew=true] false: it ends when `ttl` has passed
   * @param {number | string} [options.maxHold=Infinity] from 50 ms: how long it may be held at most
   * @param {number | string} [options.maxStall='60s'] from 50 ms: how long the event loop may be
   *   stuck before the lock is given up
   * @param {'exclusive' | 'shared'} [options.mode='exclusive'] 'shared': any number of shared
   *   holders may have it together
   * @param {number} [options.permits] 1 to 1,000,000: how many may hold it at a time; not together
   *   with `mode`
   * @param {AbortSignal} [options.signal] ends the wait; the promise rejects with its reason
   * @param {string} [options.note=''] what `inspect()` shows others, at most 256 bytes
   * @returns {Promise<Lock>}
   * @throws {LockTimeoutError} if others held it all the time
   * @throws {UnavailableError} if the last attempt got no answer
   * @throws {HoldfastError} what else the store reports, or HF_ECLOSED after `close()`
   */
  lock(key, options) {
    // Without `async`, which would cost every lock another promise.
    try {
      return this.#acquire(this.#keyspace.enterLock(key), this.#plan(options, false));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * One attempt, which never overtakes those of this process that wait.
   *
   * @param {string | readonly string[]} key as for lock()
   * @param {object} [options] as for lock(), without `wait`
   * @returns {Promise<Lock | null>} null if others hold it or wait for it
   * @throws {HoldfastError} what the store reports
   */
  async tryLock(key, options) {
    const keys = this.#keyspace.enterLock(key);
    try {
      return await this.#acquire(keys, this.#plan(options, true));
    } catch (error) {
      if (error instanceof LockTimeoutError) return null;
      throw error;
    }
  }

  /**
   * Runs `fn` while the lock is held, and releases it. An error of `fn` always wins. A release that
   * only fails to reach the store does not mask the result: see the event 'error'.
   *
   * @template T
   * @param {string | readonly string[]} key as for lock()
   * @param {object | ((lock: Lock) => T | Promise<T>)} options as for lock(); may be left out
   * @param {(lock: Lock) => T | Promise<T>} [fn]
   * @returns {Promise<T>} what `fn` returned
   * @throws {LockLostError} if the lease was lost while `fn` ran; `result` is what it returned
   * @throws {LockTimeoutError} as lock() does, and its other errors
   */
  async withLock(key, options, fn) {
    const [given, run] = optionsAndFunction('withLock', options, fn);
    const lock = await this.#acquire(this.#keyspace.enterLock(key), this.#plan(given, false));
    let result;
    try {
      result = await run(lock);
    } catch (error) {
      await releaseQuietly(lock);
      throw error;
    }
    await releaseQuietly(lock);
    const loss = lossOf(lock);
    if (loss === null) return result;
    throw new LockLostError(loss.message, { key: loss.key, result, cause: loss.cause });
  }

  /**
   * Tells who holds the lock of `key`, and who of this process waits for it, in order.
   *
   * @param {string} key 1 to 1,024 bytes of UTF-8 without NUL
   * @returns {Promise<object | null>} null when nobody holds it, nor waits
   */
  async inspect(key) {
    return inspectLock(this.#client, this.#keyspace, this.#keyspace.enter(key));
  }

  /**
   * How the nodes of a quorum stand, in order of the URLs: whether each has a vote. The event
   * 'node' tells of changes.
   *
   * @returns {{ node: string, state: 'voting' | 'down' | 'quarantined' | 'unknown',
   *   reason: 'restarted' | 'emptied' | 'clock' | null, until: Date | null }[]} `until`: when a
   *   quarantine ends. Empty where the store is no quorum.
   */
  nodes() {
    return this.#client.nodes();
  }

  /**
   * Lists the locks that are held, in order of key (by its bytes), each as `inspect()` shows it. It
   * asks the store for a part at a time: however many there are, they are never all in memory, and
   * one that is taken or ends meanwhile may be missing or not.
   *
   * @param {object} [options]
   * @param {string} [options.prefix=''] only keys that start with it
   * @returns {AsyncIterable<object>} to be walked through once; it rejects with what the store
   *   reports
   */
  locks(options) {
    checkOptions(options, LOCKS_OPTIONS);
    const { prefix = '' } = options ?? {};
    const whole = this.#keyspace.enterPrefix(prefix, 'options.prefix');
    return listLocks(this.#client, this.#keyspace, whole);
  }

  /**
   * Runs `fn` in one process at a time: here whenever this process holds the lock `name`. It stands
   * for the lock from now on, and again after it has lost it. That keeps the process alive.
   *
   * `lock.signal` tells `fn` to end: with a LockLostError when the lock was lost, with an
   * AbortError when the leader is stopped, by `stop()`, `close()` or `signal`. What `fn` throws
   * after that is taken to be due to it. The lock is held until `fn` has ended, unless it is lost
   * or the time of `stop()` is over; this process does not stand meanwhile. Any other error of `fn`
   * is an event 'error', HF_ECALLBACK with it as `cause`; the lock is released, and after a pause
   * (1 s at first, up to 30 s) this process stands again. So it does after an error of the store.
   *
   * @param {string} name the key of the lock
   * @param {(lock: Lock) => void | Promise<void>} fn when it returns while it leads, that was all:
   *   this process does not stand again
   * @param {object} [options]
   * @param {number | string} [options.ttl='30s'] as for lock(): after a crash another leads then
   * @param {number | string} [options.maxStall='60s'] as for lock()
   * @param {string} [options.note=''] as for lock()
   * @param {AbortSignal} [options.signal] stops it, as `stop()` does
   * @returns {Leader}
   * @throws {HoldfastError} HF_ECLOSED after `close()`
   */
  leader(name, fn, options) {
    return startLeader(this.#client, this.#keyspace, name, fn, options);
  }

  /**
   * A view of the same store, on the same connection, all keys of which begin with `name` and ':'.
   * What it gives back names keys as they are called there; errors and telemetry name the whole
   * key. It is closed with the Holdfast that was opened, which also emits its events.
   *
   * @param {string} name as a key, without ':'; the whole key has at most 1,024 bytes
   * @returns {Holdfast}
   * @throws {RangeError} if it has a ':', or leaves no room for a key
   */
  namespace(name) {
    return new Holdfast(new Part(this.#client, this.#keyspace.within(name)));
  }

  /**
   * Runs `fn` once for `key`, in all processes together, and gives everybody its result.
   *
   * Who calls while it runs waits for the result. When its process dies, the claim lapses and,
   * unless `onCrash` is 'fail', the next call runs it again, with `run.attempt` counted up. An
   * error that `fn` throws leaves no record, unless `keepErrors` is set.
   *
   * @template T
   * @param {string} key 1 to 1,024 bytes of UTF-8 without NUL
   * @param {object | ((run: Run) => T | Promise<T>)} options may be left out
   * @param {number | string} [options.ttl='24h'] from 50 ms, or Infinity: how long the result is
   *   kept
   * @param {number | string} [options.lease='30s'] 50 ms to 24 h: how long after a crash the claim
   *   lasts; it is renewed while `fn` runs
   * @param {number | string} [options.wait='30s'] for the result of another's run; 0, or Infinity
   * @param {'retry' | 'fail'} [options.onCrash='retry'] 'fail': after a crash it is refused until
   *   `forget()`
   * @param {boolean} [options.keepErrors=false] an error that `fn` throws is a result too: name,
   *   message and code are kept and thrown again
   * @param {unknown} [options.fingerprint] a string, bytes or JSON of the input: a key used with
   *   another one is a MismatchError
   * @param {AbortSignal} [options.signal] ends the wait, not a run that has begun
   * @param {boolean} [options.detail=false] resolve with { value, replayed, attempt }
   * @param {(run: Run) => T | Promise<T>} [fn] its result is JSON, a Buffer or undefined, at most
   *   1 MiB + 64 KiB
   * @returns {Promise<T>}
   * @throws {InProgressError} if another run had not ended after `wait`
   * @throws {MismatchError} if the fingerprint is another one
   * @throws {LockLostError} if the claim was lost while `fn` ran; `result` is what it returned
   * @throws {HoldfastError} HF_ECRASHED with `onCrash: 'fail'`; HF_ETOOBIG or HF_EINVAL, with
   *   `result`, if the result cannot be kept: `fn` has run then and will not run again
   */
  async once(key, options, fn) {
    const [given, run] = optionsAndFunction('once', options, fn);
    const whole = this.#keyspace.enter(key);
    const plan = oncePlan(given);
    const outcome = await runOnce(this.#client, this.#keyspace, whole, plan, run);
    return plan.detail ? outcome : outcome.value;
  }

  /**
   * Makes a function that runs once for each key.
   *
   * @template {unknown[]} A
   * @template T
   * @param {(...args: A) => T | Promise<T>} fn
   * @param {object} options as for once(), without `detail`, and
   * @param {(...args: A) => string} options.key makes the key of a call from its arguments
   * @returns {(...args: A) => Promise<T>}
   */
  idempotent(fn, options) {
    checkFunction(fn);
    const plan = oncePlan(options, IDEMPOTENT_OPTIONS);
    const keyOf = options?.key;
    checkFunction(keyOf, 'options.key');
    const client = this.#client;
    const keyspace = this.#keyspace;
    return async function idempotent(...args) {
      const key = keyspace.enter(keyOf.apply(this, args), 'the result of options.key');
      const { value } = await runOnce(client, keyspace, key, plan, () => fn.apply(this, args));
      return value;
    };
  }

  /**
   * Tells what is known of the operation `key`.
   *
   * @param {string} key 1 to 1,024 bytes of UTF-8 without NUL
   * @returns {Promise<object | null>} null if it was never run, or has been forgotten
   */
  async record(key) {
    return readRecord(this.#client, this.#keyspace, this.#keyspace.enter(key));
  }

  /**
   * Forgets the operation `key`, whatever its state: the next call runs it anew. The way out after
   * a crash with `onCrash: 'fail'`.
   *
   * @param {string} key 1 to 1,024 bytes of UTF-8 without NUL
   * @returns {Promise<boolean>} whether there was a record
   */
  async forget(key) {
    return forgetRecord(this.#client, this.#keyspace.enter(key));
  }

  /**
   * Removes what has expired. The store does that by itself, a little at a time.
   *
   * @returns {Promise<number>} how many rows
   */
  async sweep() {
    let total = 0;
    for (;;) {
      const swept = await this.#client.call(
        (client, slot) => binding.sweep(client, slot, SWEEP_ROWS),
        ({ first }) => first,
      );
      total += swept;
      if (swept < SWEEP_ROWS) return total;
    }
  }

  /**
   * Asks the store for a sign of life.
   *
   * @returns {Promise<number>} how long it took, in milliseconds
   */
  async ping() {
    const started = performance.now();
    await this.#client.call((client, slot) => binding.get(client, slot, ''), () => undefined);
    return performance.now() - started;
  }

  /**
   * Stops leaders, refuses new work, aborts those who wait (HF_ECLOSED), lets who holds a lock or
   * runs an operation finish, then releases what is left: those locks are lost. What a SIGTERM
   * handler calls.
   *
   * @param {object} [options]
   * @param {number | string} [options.timeout='5s'] how long holders may take; 0, or Infinity. A
   *   second call may shorten it.
   * @returns {Promise<void>} when everything has ended
   * @throws {TypeError} if this is a namespace: it is closed with the Holdfast it came from
   */
  async close(options) {
    if (!this.#keyspace.isRoot) {
      throw new TypeError('a namespace is closed with the Holdfast it came from: close that one');
    }
    const timeout = closeTimeout(options);
    // Leaders are told before anything else; what they hold is given its time as other locks are.
    await Promise.all([stopLeaders(this.#client, timeout), this.#client.close(timeout)]);
  }

  /** What `console.log` shows: not the URL, which may hold a password. */
  [inspect.custom](depth, options) {
    if (depth < 0) return '[Holdfast]';
    const { store, closed } = this.#client;
    const { isRoot, name: namespace } = this.#keyspace;
    const shown = isRoot ? { store, closed } : { store, namespace, closed };
    return `Holdfast ${inspect(shown, options)}`;
  }

  /** Closes it, for `await using`. A namespace goes on until that which it came from is closed. */
  async [Symbol.asyncDispose]() {
    if (this.#keyspace.isRoot) await this.close();
  }

  #plan(options, single) {
    return lockPlan(options, single, this.#client.maxTtl);
  }

  #acquire(key, plan) {
    return acquireLock(this.#client, this.#keyspace, key, plan);
  }

  static {
    connect = (holdfast) => holdfast.#client.connect();
    // Null where it is a namespace: that has no name for what is not its own.
    clientOf = (holdfast) => (holdfast.#keyspace.isRoot ? holdfast.#client : null);
  }
}

// The two ways to call: (key, fn) and (key, options, fn).
function optionsAndFunction(method, options, fn) {
  if (fn === undefined && (typeof options === 'function' || isPromise(options))) {
    checkFunction(options);
    return [undefined, options];
  }
  if (typeof options === 'function') {
    throw new TypeError(`fn comes last: ${method}(key, options, fn)`);
  }
  checkFunction(fn);
  return [options, fn];
}

/**
 * Opens a store and connects.
 *
 * @param {string} [url] as for `new Holdfast()`
 * @param {object} [options] as for `new Holdfast()`
 * @returns {Promise<Holdfast>} when it is ready
 * @throws {HoldfastError} if it could not connect: nothing stays open then
 */
async function open(url, options) {
  const holdfast = new Holdfast(url, options);
  try {
    await connect(holdfast);
  } catch (error) {
    await holdfast.close({ timeout: 0 });
    throw error;
  }
  return holdfast;
}

module.exports = { Holdfast, clientOf, open, optionsAndFunction };
