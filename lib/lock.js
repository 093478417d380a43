'use strict';

const { hostname } = require('node:os');
const { inspect } = require('node:util');

const aborts = require('./aborts');
const binding = require('./binding');
const renewals = require('./renewals');
const slots = require('./slots');
const telemetry = require('./telemetry');
const { tokenText } = require('./client');
const { duration } = require('./duration');
const { HoldfastError, LockLostError, closedError, fromNative, quote } = require('./errors');
const { holderInfo, modeOf } = require('./holder');
const {
  checkBoolean, checkChoice, checkInteger, checkNote, checkOptions, checkSignal,
} = require('./validate');
const { noteVotes, readVotes, wantsVotes } = require('./votes');

const {
  EVENT_ACQUIRED, EVENT_LOST, RECORD_FAILED, RECORD_HELD_HERE, RECORD_YES,
  LOCK_RENEW, LOCK_VOTES, RELEASE_GONE, RELEASE_LOST, RELEASE_NOMEM, SHARED, TTL_MIN, TTL_MAX,
} = binding.constants;

const WAIT = { min: 0, infinite: true };
const HOLD = { min: TTL_MIN, infinite: true };
const STALL = { min: TTL_MIN, infinite: true };
const EXCLUSIVE = 1;
const PERMITS_MAX = 1_000_000;
const MODES = ['exclusive', 'shared'];

const LOCK_OPTIONS = new Set([
  'ttl', 'wait', 'renew', 'maxHold', 'maxStall', 'mode', 'permits', 'signal', 'note',
]);
const TRY_OPTIONS = new Set([...LOCK_OPTIONS].filter((name) => name !== 'wait'));

const DEFAULTS = Object.freeze({
  ttl: 30000,
  wait: 10000,
  maxHold: Infinity,
  maxStall: 60000,
  limit: EXCLUSIVE,
  flags: LOCK_RENEW,
  note: '',
  signal: undefined,
});
const TRY_DEFAULTS = Object.freeze({ ...DEFAULTS, wait: 0 });

// In this order a lock goes through them; from WAITING it may also end at once.
const WAITING = 0;
const GIVEN_UP = 1; // its caller has its answer, the addon's is still to come
const HELD = 2;
const RELEASING = 3;
const RELEASED = 4;
const LOST = 5;

function noop() {}

// How many may hold it at a time.
function limitOf(mode, permits) {
  if (mode !== undefined) checkChoice(mode, 'options.mode', MODES);
  if (permits === undefined) return mode === 'shared' ? SHARED : EXCLUSIVE;
  checkInteger(permits, 'options.permits', 1, PERMITS_MAX);
  if (mode !== undefined) {
    throw new TypeError('options.mode and options.permits exclude each other: give one of them');
  }
  return permits;
}

/**
 * Reads the options of lock(), or of tryLock() where `single` is true. `maxTtl` is the longest time
 * to live that the store allows.
 */
function lockPlan(options, single, maxTtl = TTL_MAX) {
  checkOptions(options, single ? TRY_OPTIONS : LOCK_OPTIONS);
  const defaults = single ? TRY_DEFAULTS : DEFAULTS;
  const fits = defaults.ttl <= maxTtl;
  if (options === undefined && fits) return defaults;
  const { ttl, wait, renew, maxHold, maxStall, mode, permits, signal, note } = options ?? {};
  const plan = { ...defaults };
  if (!fits) plan.ttl = maxTtl;
  if (ttl !== undefined) plan.ttl = duration(ttl, 'options.ttl', { min: TTL_MIN, max: maxTtl });
  if (wait !== undefined) plan.wait = duration(wait, 'options.wait', WAIT);
  if (maxHold !== undefined) plan.maxHold = duration(maxHold, 'options.maxHold', HOLD);
  if (maxStall !== undefined) plan.maxStall = duration(maxStall, 'options.maxStall', STALL);
  plan.limit = limitOf(mode, permits);
  if (renew !== undefined) {
    checkBoolean(renew, 'options.renew');
    if (!renew) plan.flags &= ~LOCK_RENEW;
  }
  if (note !== undefined) {
    checkNote(note, 'options.note');
    plan.note = note;
  }
  if (signal !== undefined) {
    checkSignal(signal, 'options.signal');
    plan.signal = signal;
  }
  return plan;
}

const NOT_REENTRANT = ' (locks are not re-entrant)';

/** What is locked, as messages name it. */
function nameOf(key) {
  if (!Array.isArray(key)) return quote(key);
  const shown = key.slice(0, 2).map(quote).join(', ');
  return key.length > 2 ? `of ${shown} and ${key.length - 2} more` : `of ${shown}`;
}

// What an error gives as its `key`.
function firstOf(key) {
  return Array.isArray(key) ? key[0] : key;
}

function listOf(key) {
  return Array.isArray(key) ? key : [key];
}

function nameOfHolder({ pid, host, note }, here) {
  const there = pid === null ? host : `process ${pid} on ${host}`;
  const who = here ? 'this process' : there;
  return note === '' ? who : `${who} (${note})`;
}

/** The error of a wait that ended; `holder` may be null. */
function timeoutError(key, wait, raw, holder, here) {
  const start = `the lock ${nameOf(key)} was not free within ${wait} ms`;
  const about = { key: firstOf(key) };
  if (holder === null) {
    const message = here ? `${start}: held by this process${NOT_REENTRANT}` : start;
    return fromNative(raw, { ...about, message });
  }
  if (holder.permits === 0) {
    // No holder: the mark that a waiting writer leaves, which later readers must not overtake.
    const who = nameOfHolder(holder, here);
    const message = `${start}: ${who} waits to hold it alone, and goes first`;
    return fromNative(raw, { ...about, message });
  }
  // A holder that is no Holdfast does not say since when. Clocks of two machines differ; nobody
  // holds for less than no time.
  const since = holder.since.getTime();
  const heldFor = since === 0 ? null : Math.max(0, Date.now() - since);
  const message = `${start}: held by ${nameOfHolder(holder, here)}` +
    (heldFor === null ? '' : ` for ${heldFor} ms`) + (here ? NOT_REENTRANT : '');
  return fromNative(raw, { ...about, message, holder, heldFor });
}

// Set by class Lock: what other files may do with a lock and its users may not.
let start;
let inspectLoss;
let readGuard;
let emitterOf;
let abort;

/**
 * A lock that is held, until `release()` or until its lease is lost. Made by `lock()`, `tryLock()`
 * and `withLock()`.
 */
class Lock {
  #client;
  #keyspace;
  // Whole, as the store has it; an array where there are several.
  #key;
  #plan;
  #ttl;
  #state = WAITING;
  #slot = -1;
  // Of the promise under way: first the acquisition's, then the release's.
  #resolve = null;
  #reject = null;
  #release = null;
  #onAbort = null;
  #fence = 0;
  #token0 = 0;
  #token1 = 0;
  #token2 = 0;
  #token3 = 0;
  #token = null;
  #keys = null;
  #controller = null;
  #why = null;
  // Instead of `why`, where only the release showed that it was lost.
  #missed = 'its lease has ended';
  #since = 0;

  /** Not for users: see acquireLock. */
  constructor(client, keyspace, key, plan) {
    this.#client = client;
    this.#keyspace = keyspace;
    this.#key = key;
    this.#plan = plan;
    this.#ttl = plan.ttl;
  }

  static {
    start = (lock) => lock.#start();
    emitterOf = (lock) => lock.#client.emitter;
    readGuard = (lock) => lock.#guard();
    inspectLoss = (lock) => (lock.#state === LOST ? lock.#lossError() : null);
    abort = (lock, reason) => lock.#abort(reason);
  }

  /** The keys that are locked. */
  get keys() {
    this.#keys ??= Object.freeze(listOf(this.#key).map((key) => this.#keyspace.leave(key)));
    return this.#keys;
  }

  /** 32 hexadecimal digits that name this holder and no other. */
  get token() {
    this.#token ??= tokenText(this.#token0, this.#token1, this.#token2, this.#token3);
    return this.#token;
  }

  /**
   * Grows with every take of the key: what a guarded write is compared by. Null where there is
   * none.
   */
  get fence() {
    return this.#fence === 0 ? null : this.#fence;
  }

  /**
   * Aborts with a LockLostError in the first loop turn after the lease was lost; never by a
   * release. That of a leader aborts with an AbortError when it is to stop.
   */
  get signal() {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.#state === LOST) this.#controller.abort(this.#lossError());
    }
    return this.#controller.signal;
  }

  /** Whether it is held: exact at any instant, also within one long synchronous function. */
  get held() {
    return this.#state === HELD && binding.held(this.#slot);
  }

  /**
   * How long the lease lasts if it is not renewed again, exact at any instant.
   *
   * @returns {number} milliseconds; 0 when it is not held
   */
  remaining() {
    return this.#state === HELD ? binding.remaining(this.#slot) : 0;
  }

  /**
   * Goes on only if the lock is held.
   *
   * @throws {LockLostError} if it is not: lost, or released
   */
  assertHeld() {
    if (this.held) return;
    if (this.#state === RELEASING || this.#state === RELEASED) {
      throw new LockLostError(`lock ${nameOf(this.#key)} was released`, this.#about());
    }
    throw this.#lossError();
  }

  /**
   * Sets the lease to `ttl` from now, and this and later renewals too, within `maxHold`.
   *
   * @param {number | string} [ttl] 50 ms to 24 h; by default as before
   * @returns {Promise<void>}
   * @throws {LockLostError} if it is not held any more
   * @throws {HoldfastError} if the store could not be reached: it is then held for what was left
   */
  async extend(ttl) {
    const range = { min: TTL_MIN, max: this.#client.maxTtl };
    const time = ttl === undefined ? this.#ttl : duration(ttl, 'ttl', range);
    this.assertHeld();
    const slot = this.#slot;
    await this.#client.call(
      (client, call) => binding.extend(slot, call, time),
      () => undefined,
    );
    this.#ttl = time;
  }

  /**
   * Ends the lock: `held` is false at once. A second call does nothing and resolves with false.
   *
   * @returns {Promise<boolean>} false if the lease had been lost before
   * @throws {HoldfastError} if the store could not be told: the lease then ends by itself. Nobody
   *   needs to handle this: a rejection that is not awaited stays without consequence.
   */
  release() {
    if (this.#state !== HELD) return Promise.resolve(false);
    this.#state = RELEASING;
    const outcome = binding.release(this.#slot);
    if (outcome === RELEASE_NOMEM) return this.#releasedUntold();
    if (outcome === RELEASE_LOST || outcome === RELEASE_GONE) {
      // With RELEASE_GONE the record that tells of the loss is still to come, and gives the slot
      // back.
      this.#lose(null, outcome === RELEASE_LOST);
      return Promise.resolve(false);
    }
    this.#release = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    return this.#release;
  }

  /** What `console.log` shows: enough to tell it by, and no token that another could use. */
  [inspect.custom](depth, options) {
    const { keys, held, fence } = this;
    return depth < 0 ? '[Lock]' : `Lock ${inspect({ keys, held, fence }, options)}`;
  }

  /** Releases it, for `await using`. Never rejects: see the event 'error' of Holdfast. */
  async [Symbol.asyncDispose]() {
    await releaseQuietly(this);
  }

  #start() {
    const { signal } = this.#plan;
    if (signal !== undefined && signal.aborted) return Promise.reject(signal.reason);
    if (this.#client.closed) return Promise.reject(closedError());
    renewals.follow();
    if (telemetry.lock.hasSubscribers) this.#publish('wait');
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
      this.#acquire();
    });
  }

  #acquire() {
    const { ttl, wait, maxHold, maxStall, limit, flags, note, signal } = this.#plan;
    const slot = slots.take(this);
    this.#slot = slot;
    const failure = binding.acquire(
      this.#client.slot, slot, this.#key, ttl, wait, maxHold, maxStall, limit,
      this.#wantsVotes() ? flags | LOCK_VOTES : flags, note,
    );
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
    binding.cancelLock(this.#slot);
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

  [slots.ENROL]() {
    if (this.#state !== HELD) return;
    renewals.add(this.#token0, this.#token1, () => this.#publish('renewed'));
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
    this.#fence = result.first;
    this.#token0 = result.token0;
    this.#token1 = result.token1;
    this.#token2 = result.token2;
    this.#token3 = result.token3;
    const givenUp = this.#state === GIVEN_UP;
    this.#state = HELD;
    if (givenUp) {
      // Won in the moment its caller gave up: nobody else will release it.
      releaseQuietly(this);
      return;
    }
    this.#since = Date.now();
    if (this.#wantsVotes()) noteVotes(this, () => this.#votes());
    if (telemetry.lock.hasSubscribers) {
      this[slots.ENROL]();
      this.#publish('held', { waited: result.second });
    }
    this.#resolve(this);
  }

  #refusal(result) {
    const [error, raw] = result.extra;
    if (error[0] !== 'HF_ETIMEDOUT') return fromNative(error, this.#about());
    const here = (result.flags & RECORD_HELD_HERE) !== 0;
    // What this process holds it knows without asking the store.
    const holder = here ? this.#holderHere() : raw === null ? null : holderInfo(raw);
    return timeoutError(this.#key, this.#plan.wait, error, holder, here);
  }

  // Of several keys some may be held by those who would let this one in.
  #holderHere() {
    const held = [];
    for (const owner of slots.live()) {
      if (!(owner instanceof Lock) || owner.#client !== this.#client) continue;
      if (owner.#state === HELD) held.push(owner);
    }
    for (const key of listOf(this.#key)) {
      const holders = held.filter((owner) => listOf(owner.#key).includes(key));
      let limit = this.#plan.limit;
      for (const owner of holders) limit = Math.min(limit, owner.#plan.limit);
      if (holders.length >= limit) return holders[0].#info();
    }
    return null;
  }

  #info() {
    return {
      token: this.token,
      fence: this.fence,
      remaining: this.remaining(),
      since: new Date(this.#since),
      pid: process.pid,
      host: hostname(),
      note: this.#plan.note,
      ...modeOf(this.#plan.limit),
    };
  }

  #onLost(result) {
    const why = result.extra === undefined ? null : result.extra;
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
    renewals.remove(this.#token0, this.#token1);
    if (giveSlot) slots.give(this.#slot);
    if (telemetry.lock.hasSubscribers) this.#publish('lost', { error: this.#lossError() });
  }

  #onReleased(result) {
    slots.give(this.#slot);
    renewals.remove(this.#token0, this.#token1);
    const held = (result.flags & RECORD_YES) !== 0;
    const error = (result.flags & RECORD_FAILED) === 0 ? null : fromNative(result.extra);
    if (error === null && result.extra !== undefined) {
      noteVotes(this, readVotes(result.extra, fromNative));
    }
    this.#state = held || error !== null ? RELEASED : LOST;
    this.#missed = 'the store no longer had it when it was released';
    if (telemetry.lock.hasSubscribers) {
      if (this.#state === LOST) {
        this.#publish('lost', { error: this.#lossError() });
      } else {
        this.#publish('released', error === null ? {} : { error });
      }
    }
    if (error === null) {
      this.#resolve(held);
    } else {
      this.#release.catch(noop);
      this.#reject(error);
    }
  }

  #wantsVotes() {
    return this.#client.isQuorum && wantsVotes(this.#client.emitter);
  }

  #votes() {
    const raw = this.#state === HELD ? binding.votes(this.#slot) : undefined;
    return raw === undefined ? null : readVotes(raw, fromNative);
  }

  #guard() {
    const { limit } = this.#plan;
    if (limit === SHARED) return 'a shared Lock, which guards no write';
    if (limit !== EXCLUSIVE) return 'a Lock with several permits, which guards no write';
    if (Array.isArray(this.#key)) return 'a Lock of several keys, which guards no write';
    if (this.#fence === 0) return 'a Lock without a fence';
    return { key: this.#key, fence: this.#fence };
  }

  // It is given up, but for want of memory the store was not told at once.
  #releasedUntold() {
    slots.give(this.#slot);
    renewals.remove(this.#token0, this.#token1);
    this.#state = RELEASED;
    const message = `out of memory while releasing the lock ${nameOf(this.#key)}: ` +
      'it is no longer held, and its lease ends by itself';
    const error = new HoldfastError('HF_ENOMEM', message, this.#about());
    if (telemetry.lock.hasSubscribers) this.#publish('released', { error });
    const rejected = Promise.reject(error);
    rejected.catch(noop);
    return rejected;
  }

  // Aborts the signal, and leaves the lock as it is.
  #abort(reason) {
    this.#controller ??= new AbortController();
    this.#controller.abort(reason);
  }

  #about() {
    return { key: firstOf(this.#key) };
  }

  #lossError() {
    const details = this.#about();
    if (this.#why !== null) return fromNative(this.#why, details);
    return new LockLostError(`the lock ${nameOf(this.#key)} was lost: ${this.#missed}`, details);
  }

  #publish(event, more) {
    const message = {
      event, key: firstOf(this.#key), keys: listOf(this.#key), note: this.#plan.note, ...more,
    };
    if (event !== 'wait') {
      message.token = this.token;
      message.fence = this.fence;
    }
    if (event === 'lost' || event === 'released') message.heldFor = Date.now() - this.#since;
    telemetry.lock.publish(message);
  }
}

/**
 * Releases `lock` where no caller waits to hear of a store that could not be told.
 *
 * @returns {Promise<boolean>} false if the lease had been lost
 */
async function releaseQuietly(lock) {
  try {
    return await lock.release();
  } catch (error) {
    telemetry.warn(emitterOf(lock), error);
    return true;
  }
}

/**
 * Asks for a lock. `key` is whole, or several that are; `keyspace` is what its user names keys in;
 * `plan` is what lockPlan made.
 */
function acquireLock(client, keyspace, key, plan) {
  return start(new Lock(client, keyspace, key, plan));
}

/** Aborts the signal of a lock that goes on being held: its user is to end. */
function abortSignal(lock, reason) {
  abort(lock, reason);
}

/**
 * What a lock guards a write by.
 *
 * @returns {{ key: string, fence: number } | string} or what it is that guards none
 */
function guardOf(lock) {
  return readGuard(lock);
}

/** The LockLostError of a lock whose lease was lost, else null. */
function lossOf(lock) {
  return inspectLoss(lock);
}

module.exports = {
  Lock, abortSignal, acquireLock, guardOf, lockPlan, lossOf, nameOf, releaseQuietly,
};
