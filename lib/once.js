'use strict';

const aborts = require('./aborts');
const binding = require('./binding');
const renewals = require('./renewals');
const slots = require('./slots');
const telemetry = require('./telemetry');
const { tokenText } = require('./client');
const { duration } = require('./duration');
const { HoldfastError, LockLostError, closedError, fromNative, quote } = require('./errors');
const { decodeError, encodeError } = require('./thrown');
const { checkBoolean, checkChoice, checkOptions, checkSignal } = require('./validate');
const { decode, digest, encode } = require('./value');

const {
  EVENT_BEGUN, EVENT_LOST, OUTCOME_MAX, RECORD_CLAIMED, RECORD_FAILED, RECORD_IS_ERROR,
  RECORD_PRESENT, RECORD_YES, TTL_MAX, TTL_MIN,
} = binding.constants;

const KEPT = { min: TTL_MIN, infinite: true };
const LEASE = { min: TTL_MIN, max: TTL_MAX };
const WAIT = { min: 0, infinite: true };
// How long the event loop may be stuck before a run counts as lost, as a lock's default.
const MAX_STALL = 60000;

const SHARED_OPTIONS = ['ttl', 'lease', 'wait', 'onCrash', 'keepErrors', 'fingerprint', 'signal'];
const ONCE_OPTIONS = new Set([...SHARED_OPTIONS, 'detail']);
const IDEMPOTENT_OPTIONS = new Set([...SHARED_OPTIONS, 'key']);

const DEFAULTS = Object.freeze({
  ttl: 24 * 3600 * 1000,
  lease: 30000,
  wait: 30000,
  failOnCrash: 0,
  keepErrors: false,
  fingerprint: undefined,
  signal: undefined,
  detail: false,
});

/** Reads the options of once(), or of idempotent() where `known` is IDEMPOTENT_OPTIONS. */
function oncePlan(options, known = ONCE_OPTIONS) {
  checkOptions(options, known);
  if (options === undefined) return DEFAULTS;
  const { ttl, lease, wait, onCrash, keepErrors, fingerprint, signal, detail } = options;
  const plan = { ...DEFAULTS };
  if (ttl !== undefined) plan.ttl = duration(ttl, 'options.ttl', KEPT);
  if (lease !== undefined) plan.lease = duration(lease, 'options.lease', LEASE);
  if (wait !== undefined) plan.wait = duration(wait, 'options.wait', WAIT);
  if (onCrash !== undefined) {
    checkChoice(onCrash, 'options.onCrash', ['retry', 'fail']);
    plan.failOnCrash = onCrash === 'fail' ? 1 : 0;
  }
  if (keepErrors !== undefined) {
    checkBoolean(keepErrors, 'options.keepErrors');
    plan.keepErrors = keepErrors;
  }
  if (fingerprint !== undefined) plan.fingerprint = digest(fingerprint, 'options.fingerprint');
  if (signal !== undefined) {
    checkSignal(signal, 'options.signal');
    plan.signal = signal;
  }
  if (detail !== undefined) {
    checkBoolean(detail, 'options.detail');
    plan.detail = detail;
  }
  // The core's word for "for ever" is 0.
  if (plan.ttl === Infinity) plan.ttl = 0;
  return plan;
}

// Why an operation was not run, with the way out where the core cannot name it.
function beginError(key, raw, left) {
  if (raw[0] !== 'HF_ECRASHED') return fromNative(raw, { key, retryAfter: left });
  const message = `an earlier run of operation ${quote(key)} ended without a result, and whether ` +
    'it took effect is unknown; find out, then call hf.forget(key) to let it run again';
  return fromNative(raw, { key, message });
}

// A run goes through these in order; from WAITING it may also end at once.
const WAITING = 0;
const GIVEN_UP = 1; // its caller has its answer, the addon's is still to come
const RUNNING = 2;
const LOST = 3;
const ENDED = 4;

// Runs whose record holds what only their caller can write.
const reserved = new WeakSet();

// Set by class Run: what this file may do with a run and its users may not.
let begin;
let finish;
let abandonQuietly;
let end;
let wholeKeyOf;
let recordOf;

/** One run of an operation, as its function sees it. */
class Run {
  #client;
  #keyspace;
  // Whole, as the store has it.
  #key;
  #plan;
  #slot = -1;
  #state = WAITING;
  #resolve = null;
  #reject = null;
  #onAbort = null;
  #attempt = 0;
  #fence = 0;
  #token0 = 0;
  #token1 = 0;
  #token = null;
  #controller = null;
  #why = null;

  /** Not for users: see runOnce. */
  constructor(client, keyspace, key, plan) {
    this.#client = client;
    this.#keyspace = keyspace;
    this.#key = key;
    this.#plan = plan;
  }

  static {
    begin = (run) => run.#begin();
    finish = (run, data, isBytes, isError) => run.#finish(data, isBytes, isError);
    abandonQuietly = (run) => run.#abandonQuietly();
    end = (run) => run.#end();
    wholeKeyOf = (run) => run.#key;
    recordOf = (run) => run.#record();
  }

  get key() {
    return this.#keyspace.leave(this.#key);
  }

  /** From 1; above that, how many runs before this one ended without a result, and one. */
  get attempt() {
    return this.#attempt;
  }

  /** Grows with every run of the key. */
  get fence() {
    return this.#fence;
  }

  /** 32 hexadecimal digits that name this run and no other. */
  get token() {
    return this.#token;
  }

  /** Aborts with a LockLostError when the claim was lost: another run may have begun. */
  get signal() {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.#state === LOST) this.#controller.abort(this.#lossError());
    }
    return this.#controller.signal;
  }

  // Resolves with null when this run is to go on, or with what an earlier one left: see #replay.
  #begin() {
    const { signal } = this.#plan;
    if (signal !== undefined && signal.aborted) return Promise.reject(signal.reason);
    if (this.#client.closed) return Promise.reject(closedError());
    renewals.follow();
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
      const { ttl, lease, wait, failOnCrash, fingerprint } = this.#plan;
      this.#slot = slots.take(this);
      const failure = binding.begin(
        this.#client.slot, this.#slot, this.#key, ttl, lease, wait, MAX_STALL, failOnCrash,
        fingerprint,
      );
      if (failure !== null) {
        slots.give(this.#slot);
        reject(this.#failed(failure));
      } else if (signal !== undefined) {
        this.#onAbort = () => this.#giveUp();
        aborts.listen(signal, this.#onAbort);
      }
    });
  }

  #giveUp() {
    this.#onAbort = null;
    this.#state = GIVEN_UP;
    this.#reject(this.#plan.signal.reason);
    binding.cancelRun(this.#slot);
  }

  [slots.ON](event, result) {
    if (event === EVENT_BEGUN) {
      this.#onBegun(result);
    } else if (event === EVENT_LOST) {
      this.#onLost(result);
    } else if ((result.flags & RECORD_FAILED) !== 0) {
      this.#reject(this.#failed(result.extra));
    } else {
      this.#resolve();
    }
  }

  [slots.ENROL]() {
    if (this.#state !== RUNNING) return;
    renewals.add(this.#token0, this.#token1, () => this.#publish('renewed'));
  }

  #onBegun(result) {
    if (this.#onAbort !== null) {
      aborts.unlisten(this.#plan.signal, this.#onAbort);
      this.#onAbort = null;
    }
    const failed = (result.flags & RECORD_FAILED) !== 0;
    const wanted = this.#state === WAITING;
    if (!failed && (result.flags & RECORD_YES) === 0) {
      this.#onClaimed(result);
      if (!wanted) {
        // Claimed in the moment its caller gave up: nobody else will take it back.
        this.#abandonQuietly().then(() => this.#end());
        return;
      }
      this.#resolve(null);
      return;
    }
    slots.give(this.#slot);
    this.#state = ENDED;
    if (!wanted) return;
    if (failed) {
      const error = beginError(this.#key, result.extra, result.second);
      if (telemetry.once.hasSubscribers) this.#publish('refused', { error });
      this.#reject(error);
    } else {
      this.#replay(result);
    }
  }

  #onClaimed(result) {
    this.#state = RUNNING;
    this.#fence = result.first;
    this.#attempt = result.second;
    this.#token0 = result.token0;
    this.#token1 = result.token1;
    this.#token = tokenText(result.token0, result.token1, result.token2, result.token3);
    if (!telemetry.once.hasSubscribers) return;
    this[slots.ENROL]();
    this.#publish('claimed');
  }

  #replay({ flags, second: attempt, extra }) {
    this.#attempt = attempt;
    if (telemetry.once.hasSubscribers) this.#publish('replayed');
    const isError = (flags & RECORD_IS_ERROR) !== 0;
    try {
      const value = decode(extra, flags);
      this.#resolve({ value: isError ? decodeError(value) : value, isError, attempt });
    } catch (error) {
      this.#reject(error);
    }
  }

  #onLost(result) {
    if (this.#state !== RUNNING) return;
    this.#state = LOST;
    this.#why = result.extra === undefined ? null : result.extra;
    renewals.remove(this.#token0, this.#token1);
    if (telemetry.once.hasSubscribers) this.#publish('lost', { error: this.#lossError() });
    if (this.#controller !== null) this.#controller.abort(this.#lossError());
  }

  #finish(data, isBytes, isError) {
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
      const failure = binding.finish(this.#slot, data, isBytes, isError ? 1 : 0);
      if (failure === null) return;
      // That it is lost the core says; why, it has said before.
      reject(failure[0] === 'HF_ELOST' ? this.#lossError() : this.#failed(failure));
    }).then(() => {
      if (telemetry.once.hasSubscribers) this.#publish('finished', { isError });
    });
  }

  // Where the caller has a more important error to hear of.
  async #abandonQuietly() {
    try {
      await new Promise((resolve, reject) => {
        this.#resolve = resolve;
        this.#reject = reject;
        if (!binding.abandon(this.#slot)) resolve();
      });
      if (telemetry.once.hasSubscribers) this.#publish('abandoned');
    } catch (error) {
      telemetry.warn(this.#client.emitter, error);
    }
  }

  #end() {
    this.#state = ENDED;
    renewals.remove(this.#token0, this.#token1);
    binding.freeRun(this.#slot);
    slots.give(this.#slot);
  }

  // What its record is made of, for a statement that finishes it.
  #record() {
    const { ttl, fingerprint } = this.#plan;
    return {
      client: this.#client, key: this.#key, token: this.#token, ttl, fingerprint,
      isReserved: reserved.has(this),
    };
  }

  #failed(raw) {
    return fromNative(raw, { key: this.#key });
  }

  #lossError() {
    const details = { key: this.#key };
    if (this.#why !== null) return fromNative(this.#why, details);
    return new LockLostError(`the run of ${quote(this.#key)} was lost`, details);
  }

  #publish(event, more) {
    const message = { event, key: this.#key, ...more };
    if (this.#attempt !== 0) message.attempt = this.#attempt;
    if (this.#token !== null) message.token = this.#token;
    telemetry.once.publish(message);
  }
}

// What the operation did cannot be kept. It must not run again for that: its record says so
// instead.
async function finishUnstorable(run, cause, result) {
  const key = wholeKeyOf(run);
  const message = `operation ${quote(key)} has run, but its result cannot be kept: ` +
    `${cause.message}; it will not run again unless hf.forget(key) is called`;
  const code = cause.code === 'HF_ETOOBIG' ? 'HF_ETOOBIG' : 'HF_EINVAL';
  const error = new HoldfastError(code, message, { cause, key });
  await finishWith(run, encodeError(error), 0, true, result);
  error.result = result;
  throw error;
}

async function finishWith(run, data, isBytes, isError, result) {
  try {
    await finish(run, data, isBytes, isError);
  } catch (error) {
    // The function has returned: whoever called must get to what it returned.
    error.result = result;
    throw error;
  }
}

async function finishValue(run, value) {
  if (value === undefined) {
    await finishWith(run, '', 0, false, value);
    return;
  }
  let encoded;
  try {
    encoded = encode(value, 'the result', OUTCOME_MAX);
  } catch (error) {
    await finishUnstorable(run, error, value);
    return;
  }
  await finishWith(run, encoded.data, encoded.isBytes, false, value);
}

async function settleThrown(run, plan, error, emitter) {
  if (!plan.keepErrors) {
    await abandonQuietly(run);
    return;
  }
  try {
    await finish(run, encodeError(error), 0, true);
  } catch (problem) {
    telemetry.warn(emitter, problem);
  }
}

async function execute(run, plan, fn, emitter) {
  try {
    let value;
    try {
      value = await fn(run);
    } catch (error) {
      await settleThrown(run, plan, error, emitter);
      throw error;
    }
    await finishValue(run, value);
    return { value, replayed: false, attempt: run.attempt };
  } finally {
    end(run);
  }
}

/**
 * Runs `fn` unless an earlier run left its outcome, which it then returns or throws. `key` is the
 * whole one, `keyspace` what its caller names keys in.
 *
 * @returns {Promise<{ value: unknown, replayed: boolean, attempt: number }>}
 */
async function runOnce(client, keyspace, key, plan, fn) {
  const run = new Run(client, keyspace, key, plan);
  const earlier = await begin(run);
  if (earlier === null) return execute(run, plan, fn, client.emitter);
  if (earlier.isError) throw earlier.value;
  return { value: earlier.value, replayed: true, attempt: earlier.attempt };
}

function stateOf(claimed, leaseLeft) {
  if (!claimed) return 'done';
  return leaseLeft > 0 ? 'running' : 'crashed';
}

/** What the addon tells of a record, [flags, attempt, leaseLeft, keptLeft, storedMs, value]. */
function recordInfo(key, [flags, attempt, leaseLeft, keptLeft, storedMs, data]) {
  const claimed = (flags & RECORD_CLAIMED) !== 0;
  const info = {
    key,
    state: stateOf(claimed, leaseLeft),
    attempt,
    leaseLeft: claimed ? leaseLeft : 0,
    storedAt: new Date(storedMs),
    expiresAt: keptLeft === Infinity ? null : new Date(Date.now() + keptLeft),
  };
  if (claimed) return info;
  const value = decode(data, flags);
  if ((flags & RECORD_IS_ERROR) !== 0) {
    info.error = decodeError(value);
  } else {
    info.value = value;
  }
  return info;
}

/** @returns {Promise<object | null>} the record of the whole `key`, or null */
function readRecord(client, keyspace, key) {
  return client.call(
    (handle, slot) => binding.record(handle, slot, key),
    ({ flags, extra }) =>
      ((flags & RECORD_PRESENT) === 0 ? null : recordInfo(keyspace.leave(key), extra)),
  );
}

/** @returns {Promise<boolean>} whether there was a record of `key` */
function forgetRecord(client, key) {
  return client.call(
    (handle, slot) => binding.forget(handle, slot, key),
    ({ flags }) => (flags & RECORD_YES) !== 0,
  );
}

/** From now on nobody but whoever called once() may finish the record of `run`. */
function reserve(run) {
  reserved.add(run);
}

module.exports = {
  IDEMPOTENT_OPTIONS, Run, forgetRecord, oncePlan, readRecord, recordOf, reserve,
  runOnce,
};
