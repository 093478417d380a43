'use strict';

// The errors of redlock 4 and 5, by the names that their users look for.

/**
 * What calls of redlock 4's kind fail with.
 *
 * @property {number} attempts how many were made
 * @property {HoldfastError} [cause] why the last of them failed
 */
class LockError extends Error {
  constructor(message = 'Failed to lock the resource.', attempts = undefined, options = undefined) {
    super(message, options);
    this.attempts = attempts;
  }
}

/**
 * What calls of redlock 5's kind fail with. It is a LockError too: so do calls that either of the
 * two could have made, such as `acquire(['key'], ttl)`.
 *
 * @property {Promise<object>[]} attempts who voted how, in each of them
 * @property {HoldfastError} [cause] why the last of them failed
 */
class ExecutionError extends LockError {
  constructor(message, attempts = [], options = undefined) {
    super(message, attempts, options);
  }
}

/** A node says that another has the resource, or, when a lock ends, that it has another holder. */
class ResourceLockedError extends Error {}

// On the prototype, where Error keeps it too.
for (const Class of [LockError, ExecutionError, ResourceLockedError]) {
  Object.defineProperty(Class.prototype, 'name', {
    value: Class.name, writable: true, configurable: true,
  });
}

module.exports = { LockError, ExecutionError, ResourceLockedError };
