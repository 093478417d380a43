'use strict';

const { codes, constants } = require('./binding');
const { noteVotes, readVotes } = require('./votes');

// What PostgreSQL may tell of an error, in the order of the addon.
const SQL_DETAILS = ['severity', 'detail', 'hint', 'schema', 'table', 'column', 'dataType',
  'constraint', 'where', 'routine', 'position'];

// Serialization failures and deadlocks: whoever comes again may find that the others have gone.
const AGAIN = new Set(['40001', '40P01']);

/**
 * Every error that Holdfast itself reports, apart from a TypeError or RangeError for a bad
 * argument.
 *
 * @property {string} code 'HF_ETIMEDOUT' and so on: see the list in the documentation
 * @property {boolean} retryable the same call may succeed later
 * @property {boolean} outcomeUnknown the write may have landed
 * @property {string} [key] the key it is about
 * @property {number} [native] errno, or the extended code of SQLite
 */
class HoldfastError extends Error {
  /**
   * @param {string} code one of the codes that start with HF_
   * @param {string} [message] by default the general sentence of the code
   * @param {{ cause?: unknown, retryable?: boolean, outcomeUnknown?: boolean, key?: string }}
   *   [details]
   */
  constructor(code, message, details = {}) {
    super(message || codes[code], 'cause' in details ? { cause: details.cause } : undefined);
    this.code = code;
    this.retryable = details.retryable === true;
    this.outcomeUnknown = details.outcomeUnknown === true;
    if (details.key !== undefined) this.key = details.key;
  }
}

/** The wait for a lock ended while others held it. */
class LockTimeoutError extends HoldfastError {
  constructor(message, details = {}) {
    super('HF_ETIMEDOUT', message, { retryable: true, ...details });
    /** @type {number | null} how long the holder has held it, in milliseconds, if that is known */
    this.heldFor = details.heldFor ?? null;
    /** @type {object | null} who was in the way at the last attempt, if that is known */
    this.holder = details.holder ?? null;
  }
}

/** A lease ended before its work did. `result` is what the function returned nevertheless. */
class LockLostError extends HoldfastError {
  constructor(message, details = {}) {
    super('HF_ELOST', message, details);
    if ('result' in details) this.result = details.result;
  }
}

/** The condition of a write does not hold: the value is there, gone, or of another version. */
class ConflictError extends HoldfastError {
  constructor(message, details = {}) {
    super('HF_ECONFLICT', message, { retryable: true, ...details });
    /** @type {number | null} the present version, if that is known */
    this.version = details.version ?? null;
  }
}

/** A write came with an older fence than the newest seen. `fence` is the newest. */
class StaleFenceError extends HoldfastError {
  constructor(message, details = {}) {
    super('HF_ESTALE', message, details);
    /** @type {number | null} the newest fence seen */
    this.fence = details.fence ?? null;
  }
}

/** A counter would leave its bounds. */
class BoundsError extends HoldfastError {
  constructor(message, details = {}) {
    super('HF_EBOUNDS', message, details);
  }
}

/** The operation is running elsewhere, and has not ended within `wait`. */
class InProgressError extends HoldfastError {
  constructor(message, details = {}) {
    super('HF_EINPROGRESS', message, { retryable: true, ...details });
    /** @type {number} milliseconds after which the running claim lapses if its runner is dead */
    this.retryAfter = details.retryAfter ?? 0;
  }
}

/** The key was used before for an operation with another fingerprint. */
class MismatchError extends HoldfastError {
  constructor(message, details = {}) {
    super('HF_EMISMATCH', message, details);
  }
}

/** No majority of the nodes of a quorum agreed. */
class QuorumError extends HoldfastError {
  constructor(message, details = {}) {
    super('HF_EQUORUM', message, details);
    /**
     * @type {'down' | 'quarantined' | 'held' | 'time' | null} nodes did not answer, or had no vote,
     *   or a majority did not keep the fence, or came too late
     */
    this.reason = details.reason ?? null;
    /** @type {{ node: string, vote: string, error: HoldfastError | null }[]} what each node said */
    this.causes = details.causes ?? [];
  }
}

/** The store did not answer. */
class UnavailableError extends HoldfastError {
  constructor(message, details = {}) {
    super('HF_EUNAVAIL', message, details);
  }
}

/**
 * PostgreSQL refused a statement, or to commit. What it says beside the message is here as it says
 * it: `detail` may hold values of rows.
 */
class SqlError extends HoldfastError {
  constructor(message, details = {}) {
    super('HF_ESQL', message, details);
    /** @type {string} the SQLSTATE, such as '23505' */
    this.state = details.state ?? '';
    for (const name of SQL_DETAILS) this[name] = details[name] ?? null;
  }
}

const classes = new Map([
  ['HF_ETIMEDOUT', LockTimeoutError],
  ['HF_ELOST', LockLostError],
  ['HF_ECONFLICT', ConflictError],
  ['HF_ESTALE', StaleFenceError],
  ['HF_EBOUNDS', BoundsError],
  ['HF_EINPROGRESS', InProgressError],
  ['HF_EMISMATCH', MismatchError],
  ['HF_EQUORUM', QuorumError],
  ['HF_EUNAVAIL', UnavailableError],
  ['HF_ESQL', SqlError],
]);

/**
 * The error of class and code that the addon reported as [code, message, flags, native, state], and
 * behind that the votes of the nodes of a quorum.
 */
function fromNative([code, text, flags, native, state, votes], details = {}) {
  const message = details.message ?? text;
  const all = {
    ...details,
    retryable: (flags & constants.FLAG_RETRYABLE) !== 0,
    outcomeUnknown: (flags & constants.FLAG_OUTCOME_UNKNOWN) !== 0,
  };
  const causes = votes === undefined ? undefined : readVotes(votes, fromNative);
  if (code === 'HF_EQUORUM') Object.assign(all, { reason: state || null, causes });
  const Class = classes.get(code);
  const error = Class ? new Class(message, all) : new HoldfastError(code, message, all);
  if (native !== 0) error.native = native;
  if (state !== '' && code !== 'HF_EQUORUM') error.state = state;
  if (causes !== undefined) noteVotes(error, causes);
  return error;
}

/**
 * The error of a statement, as the addon reports it: [error, what the server says of it].
 */
function fromStatement([error, failure]) {
  // No lock, and nobody held it.
  if (error[0] === 'HF_ETIMEDOUT') {
    const [code, message, flags] = error;
    return new HoldfastError(code, message, {
      retryable: (flags & constants.FLAG_RETRYABLE) !== 0,
      outcomeUnknown: (flags & constants.FLAG_OUTCOME_UNKNOWN) !== 0,
    });
  }
  const details = { state: error[4] };
  SQL_DETAILS.forEach((name, i) => { details[name] = failure?.[i] || null; });
  if (error[0] !== 'HF_ESQL') return fromNative(error);
  const made = fromNative(error, details);
  if (AGAIN.has(made.state)) made.retryable = true;
  return made;
}

/** A key as messages show it: quoted, and not too long. */
function quote(key) {
  return JSON.stringify(key.length > 80 ? `${key.slice(0, 80)}...` : key);
}

function closedError() {
  return new HoldfastError('HF_ECLOSED');
}

const exported = {
  HoldfastError,
  LockTimeoutError,
  LockLostError,
  ConflictError,
  StaleFenceError,
  BoundsError,
  InProgressError,
  MismatchError,
  QuorumError,
  UnavailableError,
  SqlError,
};

// On the prototype, where Error keeps it too: instances stay free of it.
for (const [name, Class] of Object.entries(exported)) {
  Object.defineProperty(Class.prototype, 'name', {
    value: name, writable: true, configurable: true,
  });
}

module.exports = { ...exported, AGAIN, fromNative, fromStatement, closedError, quote };
