'use strict';

// What redlock's calls have in common, whichever generation they are of: attempts of Holdfast's,
// one after another, and how the nodes voted in each.

const { ExecutionError, LockError } = require('./redlock-errors');
const { Lock, held } = require('./redlock-lock');
const { checkDuration, readResources, readSettings } = require('./redlock-settings');
const { statsOf } = require('./redlock-stats');
const { LockLostError } = require('./errors');
const { typeName } = require('./validate');
const { wantVotes } = require('./votes');

const NO_QUORUM = 'The operation was unable to achieve a quorum during its retry window.';
const EXPIRED = 'Cannot extend an already-expired lock.';
// Another attempt would end with them as well.
const FINAL = new Set(['HF_ECLOSED', 'HF_ENOTSUP', 'HF_ELOST']);

function noop() {}

function delayOf({ retryDelay, retryJitter }) {
  return Math.max(0, retryDelay + Math.floor((Math.random() * 2 - 1) * retryJitter));
}

// The start of the attempt that won counts, not that of the call. And never more than Holdfast,
// whose clock is none that somebody can set, vouches for.
function expirationOf(hold, start, duration, { driftFactor }) {
  const drift = Math.round(driftFactor * duration) + 2;
  return Math.min(start + duration - drift, Date.now() + Math.floor(hold.remaining()));
}

/**
 * A lock that is held: `hold` is Holdfast's, `keys` what it is of, `resources` what the user called
 * it, `legacy` whether it was taken by a call of redlock 4's kind, `latest` the Lock for it.
 *
 * @typedef {{ hold: object, keys: string[], resources: string[], legacy: boolean, latest: Lock }}
 *   Entry
 */

class Core {
  #redlock;
  #hf;
  #clients;
  #maxTtl;
  #tell;
  #sleepers = new Set();
  #closed = false;

  /**
   * @param {Redlock} redlock
   * @param {Holdfast} hf
   * @param {readonly unknown[]} clients in the order of the nodes
   * @param {number} maxTtl milliseconds
   * @param {(error: Error) => void} tell hears of every vote against
   */
  constructor(redlock, hf, clients, maxTtl, tell) {
    this.#redlock = redlock;
    this.#hf = hf;
    this.#clients = clients;
    this.#maxTtl = maxTtl;
    this.#tell = tell;
    wantVotes(hf);
  }

  /**
   * @param {{ resources: string | string[], duration: number, settings?: object, legacy: boolean,
   *   renew?: boolean }} call
   * @returns {Promise<Lock>}
   */
  async acquire({ resources, duration, settings, legacy, renew = false }) {
    const plan = readSettings(settings, this.#redlock.settings);
    const keys = readResources(resources);
    checkDuration(duration, this.#maxTtl);
    const names = typeof resources === 'string' ? keys : Array.from(resources);
    return this.#repeat(keys, plan, async () => {
      const start = Date.now();
      const hold = await this.#hf.lock(keys, { ttl: duration, wait: 0, renew });
      const expiration = expirationOf(hold, start, duration, plan);
      // With a great drift factor nothing may be left of it.
      if (expiration > Date.now()) return { told: hold, hold, expiration };
      await hold.release().catch(noop);
      return { told: hold };
    }, ({ hold, expiration }, attempts) => {
      const entry = { hold, keys, resources: names, legacy, latest: null };
      const lock = this.#lockOf(entry, attempts, expiration);
      if (legacy) lock.attemptsRemaining = plan.retryCount - attempts.length;
      return lock;
    }, (attempts, cause) => {
      if (!legacy) return new ExecutionError(NO_QUORUM, attempts, { cause });
      return new LockError(`Exceeded ${plan.retryCount} attempts to lock the resource "${names}".`,
        attempts.length, { cause });
    });
  }

  /**
   * @param {{ lock: Lock, duration: number, settings?: object, legacy: boolean }} call
   * @returns {Promise<Lock>} the same where it is of redlock 4's kind
   */
  async extend({ lock, duration, settings, legacy }) {
    const entry = this.entryOf(lock);
    const { hold, keys } = entry;
    const plan = readSettings(settings, this.#redlock.settings);
    checkDuration(duration, this.#maxTtl);
    const isLegacy = legacy || entry.legacy;
    if (!hold.held) throw expiredError(entry, isLegacy);
    return this.#repeat(keys, plan, async () => {
      const start = Date.now();
      await hold.extend(duration);
      return { told: hold, hold, expiration: expirationOf(hold, start, duration, plan) };
    }, ({ expiration }, attempts) => {
      entry.latest.expiration = 0;
      lock.expiration = isLegacy ? expiration : 0;
      if (!isLegacy) return this.#lockOf(entry, attempts, expiration);
      entry.latest = lock;
      return lock;
    }, (attempts, cause) => {
      if (!isLegacy) return new ExecutionError(NO_QUORUM, attempts, { cause });
      return new LockError(`Exceeded ${plan.retryCount} attempts to lock the resource ` +
        `"${entry.resources}".`, attempts.length, { cause });
    });
  }

  /**
   * @param {{ lock: Lock, legacy: boolean }} call
   * @returns {Promise<{ attempts: Promise<object>[] }>}
   */
  async release({ lock, legacy }) {
    const entry = this.entryOf(lock);
    lock.expiration = 0;
    const { stats, cause } = await this.#end(entry);
    const attempts = [Promise.resolve(stats)];
    if (cause === null) return { attempts };
    if (!legacy && !entry.legacy) throw new ExecutionError(NO_QUORUM, attempts, { cause });
    throw new LockError(`Unable to fully release the lock on resource "${entry.resources}".`,
      undefined, { cause });
  }

  /**
   * Releases a lock whose user waits for no answer.
   *
   * @returns {Promise<Error | null>} why it was lost before, if it was
   */
  async releaseQuietly(lock) {
    const { cause } = await this.#end(this.entryOf(lock));
    return cause instanceof LockLostError ? cause : null;
  }

  /** @returns {Entry} what stands behind a Lock; a TypeError if it is not one of this Redlock's. */
  entryOf(lock) {
    const entry = held.get(lock);
    if (entry !== undefined && lock.redlock === this.#redlock) return entry;
    throw new TypeError('lock must be a Lock that this Redlock gave (that of another process, or ' +
      `of another Redlock, it can neither extend nor release); got ${typeName(lock)}`);
  }

  /** Ends the attempts that are under way. What is held is released. */
  async close() {
    this.#closed = true;
    for (const wake of this.#sleepers) wake();
    await this.#hf.close({ timeout: 0 });
  }

  /**
   * Tries until `attempt` resolves with a `hold`, or there is no point in it any more; what it
   * resolves with, and `told`, who voted how, make the result: `succeed(won, attempts)`, or the
   * error `fail(attempts, cause)`.
   */
  async #repeat(keys, { retryCount, ...settings }, attempt, succeed, fail) {
    const attempts = [];
    for (;;) {
      let result;
      let error = null;
      try {
        result = await attempt();
      } catch (caught) {
        // What is wrong with an argument is no vote.
        if (caught instanceof TypeError || caught instanceof RangeError) throw caught;
        error = caught;
      }
      attempts.push(Promise.resolve(this.#count(keys, result?.told ?? error, error)));
      if (result?.hold !== undefined) return succeed(result, attempts);
      const isLast = retryCount !== -1 && attempts.length > retryCount;
      if (isLast || FINAL.has(error?.code)) throw fail(attempts, error ?? undefined);
      await this.#pause(delayOf(settings));
    }
  }

  #count(keys, told, error) {
    const stats = statsOf(this.#clients, keys, told, error);
    for (const each of stats.votesAgainst.values()) this.#tell(each);
    return stats;
  }

  #lockOf(entry, attempts, expiration) {
    const { hold, resources, legacy } = entry;
    const count = legacy ? attempts.length : attempts;
    const lock = new Lock(this.#redlock, resources, hold.token, count, expiration);
    entry.latest = lock;
    held.set(lock, entry);
    return lock;
  }

  // `cause` is null when it was held until now, and the store could be told.
  async #end({ hold, keys, latest }) {
    latest.expiration = 0;
    try {
      if (await hold.release()) return { stats: this.#count(keys, hold, null), cause: null };
    } catch (error) {
      return { stats: this.#count(keys, error, error), cause: error };
    }
    const { reason } = hold.signal;
    const cause = reason ?? new LockLostError('the lock was released, or lost, before');
    return { stats: this.#count(keys, null, cause), cause };
  }

  #pause(delay) {
    if (this.#closed) return undefined;
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.#sleepers.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, delay);
      this.#sleepers.add(wake);
    });
  }
}

function expiredError({ resources }, legacy) {
  if (!legacy) return new ExecutionError(EXPIRED, []);
  return new LockError(`Cannot extend lock on resource "${resources}" because the lock has ` +
    'already expired.', 0);
}

module.exports = { Core };
