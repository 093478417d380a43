'use strict';

const { inspect } = require('node:util');

const aborts = require('./aborts');
const binding = require('./binding');
const slots = require('./slots');
const telemetry = require('./telemetry');
const { duration } = require('./duration');
const { LockLostError, closedError, fromNative } = require('./errors');
const { checkBoolean, checkOptions, checkSignal } = require('./validate');

const {
  EVENT_ACQUIRED, EVENT_LOST, RECORD_FAILED, RECORD_HELD_HERE, RECORD_YES,
  ADVISORY_DEDICATED, ADVISORY_SHARED, RELEASE_GONE, RELEASE_LOST,
} = binding.constants;

const WAIT = { min: 0, infinite: true };
const LOCK_OPTIONS = new Set(['shared', 'wait', 'signal', 'dedicated']);
const TRY_OPTIONS = new Set([...LOCK_OPTIONS].filter((name) => name !== 'wait'));
const WAIT_MS = 10000;

// In this order a lock goes through them; from WAITING it may also end at once.
const WAITING = 0;
const GIVEN_UP = 1; // its caller has its answer, the addon's is still to come
const HELD = 2;
const RELEASING = 3;
const RELEASED = 4;
const LOST = 5;

function noop() {}

/** Reads the options of advisoryLock(), or of tryAdvisoryLock() where `single` is true. */
function advisoryPlan(options, single) {
  checkOptions(options, single ? TRY_OPTIONS : LOCK_OPTIONS);
  const { shared = false, dedicated = false, wait, signal } = options ?? {};
  checkBoolean(shared, 'options.shared');
  checkBoolean(dedicated, 'options.dedicated');
  if (signal !== undefined) checkSignal(signal, 'options.signal');
  const plan = { shared, dedicated, signal, wait: single ? 0 : WAIT_MS };
  if (wait !== undefined) plan.wait = duration(wait, 'options.wait', WAIT);
  return plan;
}

// Set by class AdvisoryLock: what other files may do with a lock and its users may not.
let start;
let inspectLoss;
let emitterOf;

/**
 * One of PostgreSQL's advisory locks that is held, until `release()` or until its session with the
 * server ends. Made by `advisoryLock()`, `tryAdvisoryLock()` and `withAdvisoryLock()`.
 */
class AdvisoryLock {
  #client;
  #id;
  #plan;
  #state = WAITING;
  #slot = -1;
  // Of the promise under way: first the acquisition's, then the release's.
  #resolve = null;
  #reject = null;
  #onAbort = null;
  #controller = null;
  #why = null;
  #since = 0;

  /** Not for users: see acquireAdvisory. */
  constructor(client, id, plan) {
    this.#client = client;
    this.#id = id;
    this.#plan = plan;
  }

  static {
    start = (lock) => lock.#start();
    inspectLoss = (lock) => (lock.#state === LOST ? lock.#lossError() : null);
    emitterOf = (lock) => lock.#client.emitter;
  }

  /** What was locked, as it was asked for. */
  get id() {
    return this.#id.id;
  }

  /** Whether others that are shared may have it too. */
  get shared() {
    return this.#plan.shared;
  }

  /**
   * Aborts with a LockLostError in the loop turn in which the end of the session was seen; never by
   * a release.
   */
  get signal() {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.#state === LOST) this.#controller.abort(this.#lossError());
    }
    return this.#controller.signal;
  }

  /**
   * Whether it is held: exact at any instant, also within one long synchronous function. It ends
   * 8 s after the last sign of life from the server, which is before the server lets go of it.
   */
  get held() {
    return this.#state === HELD && binding.heldAdvisory(this.#slot);
  }

  /**
   * Goes on only if the lock is held.
   *
   * @throws {LockLostError} if it is not: lost, or released
   */
  assertHeld() {
    if (this.held) return;
    if (this.#state === RELEASING || this.#state === RELEASED) {
      throw new LockLostError(`the advisory lock ${this.#id.shown} was released`, this.#about());
    }
    throw this.#lossError();
  }

  /**
   * Ends the lock: `held` is false at once. A second call does nothing and resolves with false.
   *
   * @returns {Promise<boolean>} false if it had been lost before
   * @throws {LockLostError} if the server says that this session did not have it (any more)
   * @throws {HoldfastError} HF_EUNAVAIL if the session ended meanwhile: it is free at the latest
   *   when the server has noticed that. Nobody needs to handle these: a rejection that is not
   *   awaited stays without consequence.
   */
  release() {
    if (this.#state !== HELD) return Promise.resolve(false);
    this.#state = RELEASING;
    const outcome = binding.releaseAdvisory(this.#slot);
    if (outcome === RELEASE_LOST || outcome === RELEASE_GONE) {
      // With RELEASE_GONE the record that tells of the loss is still to come, and gives the slot
      // back.
      this.#lose(null, outcome === RELEASE_LOST);
      return Promise.resolve(false);
    }
    const released = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    released.catch(noop);
    return released;
  }

  /** What `console.log` shows. */
  [inspect.custom](depth, options) {
    const { id, shared, held } = this;
    return depth < 0 ? '[AdvisoryLock]' : `AdvisoryLock ${inspect({ id, shared, held }, options)}`;
  }

  /** Releases it, for `await using`. Never rejects: see the event 'error' of Holdfast. */
  async [Symbol.asyncDispose]() {
    await releaseQuietly(this);
  }

  #start() {
    const { signal } = this.#plan;
    if (signal !== undefined && signal.aborted) return Promise.reject(signal.reason);
    if (this.#client.closed) return Promise.reject(closedError());
    if (telemetry.advisory.hasSubscribers) this.#publish('wait');
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
      this.#acquire();
    });
  }

  #acquire() {
    const { shared, dedicated, wait, signal } = this.#plan;
    const { number, first, second } = this.#id;
    const flags = (shared ? ADVISORY_SHARED : 0) | (dedicated ? ADVISORY_DEDICATED : 0);
    const slot = slots.take(this);
    this.#slot = slot;
    const failure = binding.acquireAdvisory(
      this.#client.slot, slot, number, first, second, flags, wait);
    if (failure !== null) {
      slots.give(slot);
      this.#reject(fromNative(failure, this.#about()));
    } else if (signal !== undefined) {
      this.#onAbort = () => this.#giveUp();
      aborts.listen(signal, this.#onAbort);
    }
  }

  #giveUp() {
    this.#onAbort = null;
    this.#state = GIVEN_UP;
    this.#reject(this.#plan.signal.reason);
    binding.cancelAdvisory(this.#slot);
  }

  [slots.ON](event, result) {
    if (event === EVENT_ACQUIRED) {
      this.#onAcquired(result);
    } else if (event === EVENT_LOST) {
      this.#onLost(result);
    } else {
      this.#onReleased(result);
    }
  }

  #onAcquired(result) {
    if (this.#onAbort !== null) {
      aborts.unlisten(this.#plan.signal, this.#onAbort);
      this.#onAbort = null;
    }
    if ((result.flags & RECORD_FAILED) !== 0) {
      slots.give(this.#slot);
      if (this.#state === WAITING) this.#reject(this.#refusal(result));
      return;
    }
    const givenUp = this.#state === GIVEN_UP;
    this.#state = HELD;
    if (givenUp) {
      // Won in the moment its caller gave up: nobody else will release it.
      releaseQuietly(this);
      return;
    }
    this.#since = Date.now();
    if (telemetry.advisory.hasSubscribers) this.#publish('held', { waited: result.second });
    this.#resolve(this);
  }

  #refusal({ flags, extra }) {
    if (extra[0] !== 'HF_ETIMEDOUT') return fromNative(extra, this.#about());
    const here = (flags & RECORD_HELD_HERE) !== 0;
    const who = here
      ? 'held by this process (locks are not re-entrant)'
      : 'pg.advisoryLocks() tells who holds it';
    const name = `the advisory lock ${this.#id.shown}`;
    const message = `${name} was not free within ${this.#plan.wait} ms: ${who}`;
    return fromNative(extra, { ...this.#about(), message });
  }

  #onLost(result) {
    const why = result.extra;
    if (this.#state !== HELD) {
      slots.give(this.#slot);
      return;
    }
    this.#lose(why, true);
    if (this.#controller !== null) this.#controller.abort(this.#lossError());
  }

  #lose(why, giveSlot) {
    this.#state = LOST;
    this.#why = why;
    if (giveSlot) slots.give(this.#slot);
    if (telemetry.advisory.hasSubscribers) this.#publish('lost', { error: this.#lossError() });
  }

  #onReleased(result) {
    slots.give(this.#slot);
    const failed = (result.flags & RECORD_FAILED) !== 0;
    const error = failed ? this.#named(result.extra) : null;
    this.#state = error instanceof LockLostError ? LOST : RELEASED;
    if (this.#state === LOST) this.#why = result.extra;
    if (telemetry.advisory.hasSubscribers) {
      if (this.#state === LOST) this.#publish('lost', { error });
      else this.#publish('released', error === null ? {} : { error });
    }
    if (error === null) this.#resolve((result.flags & RECORD_YES) !== 0);
    else this.#reject(error);
  }

  #about() {
    return { key: typeof this.id === 'string' ? this.id : this.#id.shown };
  }

  // The core knows a string by its number only.
  #named(failure) {
    const message = failure[1].replace(/^the advisory lock (\(.*?\)|\S+)/,
      () => `the advisory lock ${this.#id.shown}`);
    return fromNative(failure, { ...this.#about(), message });
  }

  #lossError() {
    if (this.#why !== null) return this.#named(this.#why);
    const why = 'its session with the server has ended, or may have';
    return new LockLostError(`the advisory lock ${this.#id.shown} was lost: ${why}`, this.#about());
  }

  #publish(event, more) {
    const message = {
      event, id: this.id, shared: this.shared, dedicated: this.#plan.dedicated, ...more,
    };
    if (event === 'lost' || event === 'released') message.heldFor = Date.now() - this.#since;
    telemetry.advisory.publish(message);
  }
}

/** Releases `lock` where no caller waits to hear of an error, but maybe of a loss. */
async function releaseQuietly(lock, tellsLoss = false) {
  try {
    await lock.release();
  } catch (error) {
    if (tellsLoss && error instanceof LockLostError) return;
    telemetry.warn(emitterOf(lock), error);
  }
}

/** Asks for a lock: `id` is what readId made, `plan` what advisoryPlan did. */
function acquireAdvisory(client, id, plan) {
  return start(new AdvisoryLock(client, id, plan));
}

/**
 * Releases a lock.
 *
 * @returns {Promise<LockLostError | null>} the error of one that was lost; another is an event
 */
async function endAdvisory(lock) {
  await releaseQuietly(lock, true);
  return inspectLoss(lock);
}

module.exports = { AdvisoryLock, acquireAdvisory, advisoryPlan, endAdvisory };
