'use strict';

const { setTimeout: sleep } = require('node:timers/promises');

const binding = require('./binding');
const telemetry = require('./telemetry');
const { duration } = require('./duration');
const {
  BoundsError, ConflictError, HoldfastError, StaleFenceError, quote,
} = require('./errors');
const { Lock, guardOf } = require('./lock');
const { Run } = require('./once');
const {
  checkFunction, checkInteger, checkOptions, isPromise, readCondition, typeName,
} = require('./validate');
const { decode, encode } = require('./value');

const {
  IF_ABSENT, IF_ANY, IF_VERSION, OP_HAS_MAX, OP_HAS_MIN, OP_KEEP_TTL, OP_WANT_ENTRY,
  RECORD_PRESENT, RECORD_REFUSAL_SHIFT, RECORD_YES, REFUSED_BOUNDS, REFUSED_FENCE,
  REFUSED_FENCE_KEY, REFUSED_PRESENT, REFUSED_TYPE, REFUSED_VERSION, VALUE_MAX,
} = binding.constants;

const INT_MIN = Number.MIN_SAFE_INTEGER;
const INT_MAX = Number.MAX_SAFE_INTEGER;
const READ_AGAIN = 'read it again, or use kv.update';
const KEPT = { min: 1, infinite: true };
const RETRIES = 30;
const RETRIES_MAX = 10000;
// The longest pause between two attempts of update(); the first are much shorter.
const PAUSE_MAX_MS = 100;

const CREATE_OPTIONS = new Set(['ttl', 'fence']);
const PUT_OPTIONS = new Set(['version', 'fence', 'ttl']);
const UPDATE_OPTIONS = new Set(['retries', 'fence', 'ttl']);
const INCREMENT_OPTIONS = new Set(['min', 'max', 'initial', 'fence']);
const DELETE_OPTIONS = new Set(['version', 'fence']);
const NONE = Object.freeze({});
const NO_FENCE = Object.freeze({ key: '', fence: 0 });
const FENCE = 'options.fence';

// { key, fence } of a lock, maybe of another process. Its key is one of the caller's.
function fenceOfPair({ key, fence }, keyspace) {
  const whole = keyspace.enter(key, `${FENCE}.key`);
  if (fence === undefined) {
    throw new TypeError(`${FENCE}.fence must be a number; got undefined: await the lock first`);
  }
  if (fence === null) {
    throw new TypeError(
      `${FENCE}.fence must be a number; got null: a lock without a fence guards no write`,
    );
  }
  checkInteger(fence, `${FENCE}.fence`, 1);
  return { key: whole, fence };
}

/** Reads the option `fence`: an exclusive Lock of one key, or { key, fence } of one. */
function fenceOf(options, keyspace) {
  const fence = readCondition(options, 'fence', 'await the lock first');
  if (fence === undefined) return NO_FENCE;
  if (isPromise(fence)) throw new TypeError(`${FENCE} is a Promise: await the lock first`);
  if (typeof fence !== 'object' || fence === null || Array.isArray(fence) || fence instanceof Run) {
    const got = fence instanceof Run ? 'a Run, which guards no write' : typeName(fence);
    throw new TypeError(`${FENCE} must be a Lock or { key, fence }; got ${got}`);
  }
  if (!(fence instanceof Lock)) return fenceOfPair(fence, keyspace);
  const guard = guardOf(fence);
  if (typeof guard === 'string') throw new TypeError(`${FENCE} is ${guard}`);
  return guard;
}

// The core's word for "for ever" is 0.
function ttlOf(ttl) {
  if (ttl === undefined) return 0;
  const time = duration(ttl, 'options.ttl', KEPT);
  return time === Infinity ? 0 : time;
}

function versionOf(options) {
  const version = readCondition(options, 'version', 'read the value first');
  if (version !== undefined) checkInteger(version, 'options.version', 1);
  return version;
}

function boundOf(value, name) {
  if (value !== undefined) checkInteger(value, name);
  return value;
}

function versionConflict(key, asked, present, hint) {
  const state = present === null
    ? `does not exist: it has no version ${asked}`
    : `has version ${present}, not ${asked}`;
  return new ConflictError(`${quote(key)} ${state}: ${hint}`, { key, version: present });
}

function staleFence(key, fence, newest) {
  const message = `${quote(key)} was written under fence ${newest} of the lock ` +
    `${quote(fence.key)}, and this write comes with ${fence.fence}: ` +
    'this lock was lost: stop writing';
  return new StaleFenceError(message, { key, fence: newest });
}

// The sum may lie beyond what a number can tell.
function outOfBounds(key, { by, initial, min, max }, present) {
  const sum = BigInt(present ?? initial) + BigInt(by);
  const bound = sum < min ? `min ${min}` : `max ${max}`;
  return new BoundsError(`${quote(key)} would become ${sum} (${bound})`, { key });
}

/** Why the store refused a write; `asked` is what the write was made with. */
function refusal(key, asked, { flags, first, second, extra }) {
  const shown = quote(key);
  const present = (flags & RECORD_PRESENT) !== 0 ? first : null;
  switch (flags >> RECORD_REFUSAL_SHIFT) {
    case REFUSED_PRESENT:
      return new ConflictError(`${shown} exists, with version ${present}`, {
        key, version: present,
      });
    case REFUSED_VERSION:
      return versionConflict(key, asked.version, present, asked.hint);
    case REFUSED_FENCE_KEY:
      return new ConflictError(
        `${shown} is guarded by another lock key than ${quote(asked.fence.key)}: ` +
        'use the lock that guarded its last write',
        { key, version: present, retryable: false },
      );
    case REFUSED_FENCE:
      return staleFence(key, asked.fence, second);
    case REFUSED_BOUNDS:
      return outOfBounds(key, asked, present === null ? null : extra);
    case REFUSED_TYPE:
      return new HoldfastError('HF_ETYPE', `${shown} is no whole number`, { key });
    default:
      return new HoldfastError('HF_EPROTO', undefined, { key });
  }
}

function applied(result) {
  return (result.flags & RECORD_YES) !== 0;
}

function versionRead(key, asked) {
  return (result) => {
    if (!applied(result)) throw refusal(key, asked, result);
    return result.first;
  };
}

function checkBy(by) {
  if (typeof by === 'object' && by !== null) {
    throw new TypeError(
      `by must be a number; got ${typeName(by)}: options come third, increment(key, by, options)`,
    );
  }
  checkInteger(by, 'by');
}

// What update() is to write in place of `present`, which may be null.
async function make(fn, present) {
  const value = await fn(present === null ? undefined : present.value);
  const name = 'the result of fn';
  if (value === undefined) {
    throw new TypeError(
      `${name} must be JSON or a Buffer; got undefined: return the new value from fn`,
    );
  }
  return { value, encoded: encode(value, name, VALUE_MAX) };
}

function keptChanging(key, retries, cause) {
  const times = retries === 1 ? '1 retry' : `${retries} retries`;
  return new ConflictError(`${quote(key)} kept changing: gave up after ${times}`, {
    key, version: cause.version, cause,
  });
}

/** Values that change only when their condition holds. */
class KV {
  #client;
  #keyspace;

  /** Not for users: see Holdfast.kv. */
  constructor(client, keyspace) {
    this.#client = client;
    this.#keyspace = keyspace;
  }

  /**
   * Reads a value.
   *
   * @param {string} key 1 to 1,024 bytes of UTF-8 without NUL
   * @returns {Promise<{ value: unknown, version: number } | null>} null where there is none. What
   *   was stored as bytes comes as a Buffer, anything else as JSON.
   */
  async get(key) {
    const whole = this.#keyspace.enter(key);
    return this.#get(whole);
  }

  /**
   * Stores a value only where there is none.
   *
   * @param {string} key 1 to 1,024 bytes of UTF-8 without NUL
   * @param {unknown} value JSON or a Uint8Array, at most 1 MiB
   * @param {object} [options]
   * @param {number | string} [options.ttl] from 1 ms: when it expires; by default never
   * @param {Lock | { key: string, fence: number }} [options.fence] refuses the write if a newer
   *   fence of that lock key has been seen, and remembers this one. Not undefined: that is a
   *   TypeError, since it would guard nothing
   * @returns {Promise<number>} its version
   * @throws {ConflictError} if there is one, or it is guarded by another lock key
   * @throws {StaleFenceError} if a newer fence has been seen
   */
  async create(key, value, options = NONE) {
    const whole = this.#keyspace.enter(key);
    const encoded = encode(value, 'value', VALUE_MAX);
    checkOptions(options, CREATE_OPTIONS);
    const asked = { ttl: ttlOf(options.ttl), fence: fenceOf(options, this.#keyspace) };
    return this.#put('create', whole, encoded, IF_ABSENT, 0, asked);
  }

  /**
   * Stores a value.
   *
   * @param {string} key 1 to 1,024 bytes of UTF-8 without NUL
   * @param {unknown} value JSON or a Uint8Array, at most 1 MiB
   * @param {object} [options]
   * @param {number} [options.version] writes only if this is the present version. Not
   *   undefined: that is a TypeError, since it would check nothing
   * @param {Lock | { key: string, fence: number }} [options.fence] as for create()
   * @param {number | string} [options.ttl] from 1 ms: when it expires; without it never, whatever
   *   was set before
   * @returns {Promise<number>} the new version: greater than any that the key had, also before it
   *   was deleted
   * @throws {ConflictError} if `version` is not the present one, or it is guarded by another lock
   *   key
   * @throws {StaleFenceError} if a newer fence has been seen
   */
  async put(key, value, options = NONE) {
    const whole = this.#keyspace.enter(key);
    const encoded = encode(value, 'value', VALUE_MAX);
    checkOptions(options, PUT_OPTIONS);
    const version = versionOf(options);
    const condition = version === undefined ? IF_ANY : IF_VERSION;
    const fence = fenceOf(options, this.#keyspace);
    const asked = { version, ttl: ttlOf(options.ttl), fence, hint: READ_AGAIN };
    return this.#put('put', whole, encoded, condition, 0, asked);
  }

  /**
   * Replaces a value by what `fn` makes of it. Where another write comes between, it is done again
   * with the newer value, after a short random pause.
   *
   * @param {string} key 1 to 1,024 bytes of UTF-8 without NUL
   * @param {(value: unknown) => unknown} fn gets the present value, or undefined; returns the new
   *   one. It may run several times.
   * @param {object} [options]
   * @param {number} [options.retries=30] 0 to 10,000: how often it is done again at most
   * @param {Lock | { key: string, fence: number }} [options.fence] as for create()
   * @param {number | string} [options.ttl] from 1 ms, or Infinity; by default the value's time
   *   stays
   * @returns {Promise<{ value: unknown, version: number }>} the new value
   * @throws {ConflictError} if other writes came between each time, or it is guarded by another
   *   lock key
   * @throws {TypeError} if `fn` returns undefined, or what cannot be stored
   * @throws {StaleFenceError} if a newer fence has been seen
   */
  async update(key, fn, options = NONE) {
    const whole = this.#keyspace.enter(key);
    checkFunction(fn);
    checkOptions(options, UPDATE_OPTIONS);
    const { retries = RETRIES, ttl } = options;
    checkInteger(retries, 'options.retries', 0, RETRIES_MAX);
    const asked = { ttl: ttlOf(ttl), fence: fenceOf(options, this.#keyspace), hint: READ_AGAIN };
    const flags = ttl === undefined ? OP_KEEP_TTL : 0;
    for (let attempt = 0; ; attempt++) {
      const present = await this.#get(whole);
      const { value, encoded } = await make(fn, present);
      try {
        const version = await this.#replace(whole, encoded, present, flags, asked);
        return { value, version };
      } catch (error) {
        if (!(error instanceof ConflictError && error.retryable)) throw error;
        if (attempt >= retries) throw keptChanging(whole, retries, error);
      }
      await sleep(Math.random() * Math.min(PAUSE_MAX_MS, 2 ** Math.min(attempt, 10)));
    }
  }

  /**
   * Adds to a whole number, in one step. Never done twice: after an error with `outcomeUnknown` the
   * number may have changed.
   *
   * @param {string} key 1 to 1,024 bytes of UTF-8 without NUL
   * @param {number} [by=1] a safe integer, may be negative
   * @param {object} [options]
   * @param {number} [options.min] the least that may result; by default the least safe integer
   * @param {number} [options.max] the most that may result; by default the greatest safe integer
   * @param {number} [options.initial=0] what is added to where there is no value
   * @param {Lock | { key: string, fence: number }} [options.fence] as for create()
   * @returns {Promise<number>} the new number
   * @throws {BoundsError} if it would leave its bounds; nothing is changed then
   * @throws {ConflictError} if it is guarded by another lock key
   * @throws {HoldfastError} HF_ETYPE if the value is no whole number
   * @throws {StaleFenceError} if a newer fence has been seen
   */
  async increment(key, by = 1, options = NONE) {
    const whole = this.#keyspace.enter(key);
    checkBy(by);
    checkOptions(options, INCREMENT_OPTIONS);
    const min = boundOf(readCondition(options, 'min', 'give a number'), 'options.min');
    const max = boundOf(readCondition(options, 'max', 'give a number'), 'options.max');
    const initial = boundOf(options.initial, 'options.initial') ?? 0;
    if (min !== undefined && max !== undefined && min > max) {
      throw new RangeError(`options.min must be at most options.max; got ${min} and ${max}`);
    }
    const fence = fenceOf(options, this.#keyspace);
    const flags = OP_WANT_ENTRY |
      (min === undefined ? 0 : OP_HAS_MIN) | (max === undefined ? 0 : OP_HAS_MAX);
    const asked = { by, initial, min: min ?? INT_MIN, max: max ?? INT_MAX, fence };
    return this.#client.call(
      (client, slot) => binding.add(
        client, slot, whole, by, initial, min ?? 0, max ?? 0, flags, fence.key, fence.fence,
      ),
      this.#told('increment', whole, (result) => {
        if (!applied(result)) throw refusal(whole, asked, result);
        return result.second;
      }),
    );
  }

  /**
   * Deletes a value.
   *
   * @param {string} key 1 to 1,024 bytes of UTF-8 without NUL
   * @param {object} [options]
   * @param {number} [options.version] deletes only if this is the present version. Not
   *   undefined, as for put()
   * @param {Lock | { key: string, fence: number }} [options.fence] as for create()
   * @returns {Promise<boolean>} false where there was none
   * @throws {ConflictError} if it has another version, or is guarded by another lock key
   * @throws {StaleFenceError} if a newer fence has been seen
   */
  async delete(key, options = NONE) {
    const whole = this.#keyspace.enter(key);
    checkOptions(options, DELETE_OPTIONS);
    const version = versionOf(options);
    const fence = fenceOf(options, this.#keyspace);
    const asked = { version, fence, hint: 'read it again' };
    const condition = version === undefined ? IF_ANY : IF_VERSION;
    return this.#client.call(
      (client, slot) => binding.del(
        client, slot, whole, condition, version ?? 0, OP_WANT_ENTRY, fence.key, fence.fence,
      ),
      this.#told('delete', whole, (result) => {
        if (applied(result)) return true;
        const absent = (result.flags & RECORD_PRESENT) === 0;
        if (absent && result.flags >> RECORD_REFUSAL_SHIFT === REFUSED_VERSION) return false;
        throw refusal(whole, asked, result);
      }),
    );
  }

  #get(key) {
    return this.#client.call(
      (client, slot) => binding.get(client, slot, key),
      this.#told('get', key, ({ flags, first, extra }) => {
        if ((flags & RECORD_PRESENT) === 0) return null;
        return { value: decode(extra, flags), version: first };
      }),
    );
  }

  #put(event, key, { data, isBytes }, condition, flags, asked) {
    const { version = 0, ttl, fence } = asked;
    return this.#client.call(
      (client, slot) => binding.put(
        client, slot, key, data, isBytes, condition, version, ttl, flags | OP_WANT_ENTRY,
        fence.key, fence.fence,
      ),
      this.#told(event, key, versionRead(key, asked)),
    );
  }

  // Writes for update() only over what `present` is, or where there was nothing.
  #replace(key, encoded, present, flags, asked) {
    if (present === null) return this.#put('update', key, encoded, IF_ABSENT, flags, asked);
    const { version } = present;
    return this.#put('update', key, encoded, IF_VERSION, flags, { ...asked, version });
  }

  // Reads a result with `read`, and publishes it where somebody subscribes.
  #told(event, key, read) {
    if (!telemetry.kv.hasSubscribers) return read;
    const started = performance.now();
    return (result) => {
      const took = performance.now() - started;
      try {
        const value = read(result);
        telemetry.kv.publish({ event, key, took });
        return value;
      } catch (error) {
        telemetry.kv.publish({ event, key, took, error });
        throw error;
      }
    };
  }
}

module.exports = { KV };
