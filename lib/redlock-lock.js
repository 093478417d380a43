'use strict';

// The Lock that users of redlock hold. It is but a name for what is held; several may be for the
// same, since redlock 5 gives another one for every extension.

// What Redlock knows of a Lock, and its users do not.
const held = new WeakMap();

/** A lock that is held, until it is released or its time is over. */
class Lock {
  /**
   * Not for users: only `acquire` and `lock` make a Lock that holds something.
   *
   * @param {Redlock} redlock whose it is
   * @param {readonly string[]} resources
   * @param {string} value what the nodes keep under each resource
   * @param {readonly Promise<object>[] | number} attempts
   * @param {number} expiration when its time is over, as Date.now() gives it
   */
  constructor(redlock, resources, value, attempts, expiration) {
    // Not to be shown along with it: it knows the clients, and they their passwords.
    Object.defineProperty(this, 'redlock', { value: redlock });
    this.resources = resources;
    this.value = value;
    this.attempts = attempts;
    this.expiration = expiration;
  }

  /** What redlock 4 calls `resources`: an array as well. */
  get resource() {
    return this.resources;
  }

  /**
   * Grows with every lock of a resource, for writes that are guarded by it. Null on a quorum
   * without `connection: { fencing: true }`.
   *
   * @returns {number | null}
   */
  get fence() {
    return held.get(this)?.hold.fence ?? null;
  }

  /**
   * As `redlock.release(lock)`.
   *
   * @param {object | ((error: Error | null) => void)} [settings]
   * @returns {Promise<{ attempts: Promise<object>[] }>}
   */
  release(settings) {
    return this.redlock.release(this, settings);
  }

  /**
   * As `redlock.unlock(lock)`.
   *
   * @param {(error: Error | null) => void} [callback]
   * @returns {Promise<void>}
   */
  unlock(callback) {
    return this.redlock.unlock(this, callback);
  }

  /**
   * As `redlock.extend(lock, duration)`.
   *
   * @param {number} duration milliseconds from now
   * @param {object | ((error: Error | null, lock?: Lock) => void)} [settings]
   * @returns {Promise<Lock>}
   */
  extend(duration, settings) {
    return this.redlock.extend(this, duration, settings);
  }
}

module.exports = { Lock, held };
