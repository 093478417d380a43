'use strict';

const { setTimeout: sleep } = require('node:timers/promises');

const binding = require('./binding');
const telemetry = require('./telemetry');
const { duration } = require('./duration');
const {
  BoundsError, ConflictError, HoldfastError, StaleFenceError, quote,
} = require('./errors');
const { Lock } = require('./lock');
const { Run } = require('./once');
const { checkFunction, checkInteger, checkKey, checkOptions, typeName } = require('./validate');
const { decode, encode } = require('./value');

const {
  IF_ABSENT, IF_ANY, IF_VERSION, OP_HAS_MAX, OP_HAS_MIN, OP_KEEP_TTL, OP_WANT_ENTRY,
  RECORD_PRESENT, RECORD_REFUSAL_SHIFT, RECORD_YES, REFUSED_BOUNDS, REFUSED_FENCE,
  REFUSED_FENCE_KEY, REFUSED_PRESENT, REFUSED_TYPE, REFUSED_VERSION, VALUE_MAX,
} = binding.constants;

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

/** Reads the option `fence`: an exclusive Lock of one key, or { key, fence } of one. */
function fenceOf(fence) {
  if (fence === undefined) return NO_FENCE;
  const name = 'options.fence';
  if (typeof fence !== 'object' || fence === null || Array.isArray(fence) || fence instanceof Run) {
    const got = fence instanceof Run ? 'a Run' : typeName(fence);
    throw new TypeError(`${name} must be a Lock or { key, fence }; got ${got}`);
  }
  if (fence instanceof Lock) {
    if (fence.fence === null) throw new TypeError(`${name} is a Lock without a fence`);
    return { key: fence.keys[0], fence: fence.fence };
  }
  const { key, fence: number } = fence;
  checkKey(key, `${name}.key`);
  checkInteger(number, `${name}.fence`, 1);
  return { key, fence: number };
}

// The core's word for "for ever" is 0.
function ttlOf(ttl) {
  if (ttl === undefined) return 0;
  const time = duration(ttl, 'options.ttl', KEPT);
  return time === Infinity ? 0 : time;
}

function versionOf(version) {
  if (version !== undefined) checkInteger(version, 'options.version', 1);
  return version;
}

function boundOf(value, name) {
  if (value !== undefined) checkInteger(value, name);
  return value;
}

/** Why the store refused a write. */
function refusal(key, result) {
  const shown = quote(key);
  const present = (result.flags & RECORD_PRESENT) !== 0;
  const details = { key, version: present ? result.first : null };
  switch (result.flags >> RECORD_REFUSAL_SHIFT) {
    case REFUSED_PRESENT:
      return new ConflictError(`value ${shown} exists`, details);
    case REFUSED_VERSION:
      return new ConflictError(
        present ? `value ${shown} has version ${result.first}` : `value ${shown} does not exist`,
        details,
      );
    case REFUSED_FENCE_KEY:
      return new ConflictError(`value ${shown} is guarded by another lock key`, {
        ...details, retryable: false,
      });
    case REFUSED_FENCE:
      return new StaleFenceError(`value ${shown} was written under a newer fence`, {
        key, fence: result.second === 0 ? null : result.second,
      });
    case REFUSED_BOUNDS:
      return new BoundsError(`value ${shown} would leave its bounds`, { key });
    case REFUSED_TYPE:
      return new HoldfastError('HF_ETYPE', `value ${shown} is no whole number`, { key });
    default:
      return new HoldfastError('HF_EPROTO', undefined, { key });
  }
}

function applied(result) {
  return (result.flags & RECORD_YES) !== 0;
}

function versionRead(key) {
  return (result) => {
    if (!applied(result)) throw refusal(key, result);
    return result.first;
  };
}

/** Values that change only when their condition holds. */
class KV {
  #client;

  /** Not for users: see Holdfast.kv. */
  constructor(client) {
    this.#client = client;
  }

  /**
   * Reads a value.
   *
   * @param {string} key 1 to 1,024 bytes of UTF-8 without NUL
   * @returns {Promise<{ value: unknown, version: number } | null>} null where there is none. What
   *   was stored as bytes comes as a Buffer, anything else as JSON.
   */
  async get(key) {
    checkKey(key);
    return this.#get(key);
  }

  /**
   * Stores a value only where there is none.
   *
   * @param {string} key 1 to 1,024 bytes of UTF-8 without NUL
   * @param {unknown} value JSON or a Uint8Array, at most 1 MiB
   * @param {object} [options]
   * @param {number | string} [options.ttl] from 1 ms: when it expires; by default never
   * @param {Lock | { key: string, fence: number }} [options.fence] refuses the write if a newer
   *   fence of that lock key has been seen, and remembers this one
   * @returns {Promise<number>} its version
   * @throws {ConflictError} if there is one, or it is guarded by another lock key
   * @throws {StaleFenceError} if a newer fence has been seen
   */
  async create(key, value, options = NONE) {
    checkKey(key);
    const encoded = encode(value, 'value', VALUE_MAX);
    checkOptions(options, CREATE_OPTIONS);
    const { ttl, fence } = options;
    const plan = { ttl: ttlOf(ttl), fence: fenceOf(fence) };
    return this.#put('create', key, encoded, IF_ABSENT, 0, 0, plan);
  }

  /**
   * Stores a value.
   *
   * @param {string} key 1 to 1,024 bytes of UTF-8 without NUL
   * @param {unknown} value JSON or a Uint8Array, at most 1 MiB
   * @param {object} [options]
   * @param {number} [options.version] writes only if this is the present version
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
    checkKey(key);
    const encoded = encode(value, 'value', VALUE_MAX);
    checkOptions(options, PUT_OPTIONS);
    const { ttl, fence } = options;
    const version = versionOf(options.version);
    const plan = { ttl: ttlOf(ttl), fence: fenceOf(fence) };
    if (version === undefined) return this.#put('put', key, encoded, IF_ANY, 0, 0, plan);
    return this.#put('put', key, encoded, IF_VERSION, version, 0, plan);
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
   * @throws {ConflictError} if other writes came between each time
   * @throws {StaleFenceError} if a newer fence has been seen
   */
  async update(key, fn, options = NONE) {
    checkKey(key);
    checkFunction(fn);
    checkOptions(options, UPDATE_OPTIONS);
    const { retries = RETRIES, ttl, fence } = options;
    checkInteger(retries, 'options.retries', 0, RETRIES_MAX);
    const plan = { ttl: ttlOf(ttl), fence: fenceOf(fence) };
    const flags = ttl === undefined ? OP_KEEP_TTL : 0;
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#updateOnce(key, fn, flags, plan);
      } catch (error) {
        const again = error instanceof ConflictError && error.retryable && error.key === key;
        if (!again || attempt >= retries) throw error;
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
   * @throws {HoldfastError} HF_ETYPE if the value is no whole number
   * @throws {StaleFenceError} if a newer fence has been seen
   */
  async increment(key, by = 1, options = NONE) {
    checkKey(key);
    checkInteger(by, 'by');
    checkOptions(options, INCREMENT_OPTIONS);
    const min = boundOf(options.min, 'options.min');
    const max = boundOf(options.max, 'options.max');
    const initial = boundOf(options.initial, 'options.initial') ?? 0;
    if (min !== undefined && max !== undefined && min > max) {
      throw new RangeError(`options.min must be at most options.max; got ${min} and ${max}`);
    }
    const fence = fenceOf(options.fence);
    const flags = (min === undefined ? 0 : OP_HAS_MIN) | (max === undefined ? 0 : OP_HAS_MAX);
    return this.#client.call(
      (client, slot) => binding.add(
        client, slot, key, by, initial, min ?? 0, max ?? 0, flags, fence.key, fence.fence,
      ),
      this.#told('increment', key, (result) => {
        if (!applied(result)) throw refusal(key, result);
        return result.second;
      }),
    );
  }

  /**
   * Deletes a value.
   *
   * @param {string} key 1 to 1,024 bytes of UTF-8 without NUL
   * @param {object} [options]
   * @param {number} [options.version] deletes only if this is the present version
   * @param {Lock | { key: string, fence: number }} [options.fence] as for create()
   * @returns {Promise<boolean>} false where there was none
   * @throws {ConflictError} if it has another version, or is guarded by another lock key
   * @throws {StaleFenceError} if a newer fence has been seen
   */
  async delete(key, options = NONE) {
    checkKey(key);
    checkOptions(options, DELETE_OPTIONS);
    const version = versionOf(options.version);
    const fence = fenceOf(options.fence);
    const condition = version === undefined ? IF_ANY : IF_VERSION;
    return this.#client.call(
      (client, slot) => binding.del(
        client, slot, key, condition, version ?? 0, OP_WANT_ENTRY, fence.key, fence.fence,
      ),
      this.#told('delete', key, (result) => {
        if (applied(result)) return true;
        const absent = (result.flags & RECORD_PRESENT) === 0;
        if (absent && result.flags >> RECORD_REFUSAL_SHIFT === REFUSED_VERSION) return false;
        throw refusal(key, result);
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

  #put(event, key, { data, isBytes }, condition, version, flags, { ttl, fence }) {
    return this.#client.call(
      (client, slot) => binding.put(
        client, slot, key, data, isBytes, condition, version, ttl, flags | OP_WANT_ENTRY,
        fence.key, fence.fence,
      ),
      this.#told(event, key, versionRead(key)),
    );
  }

  async #updateOnce(key, fn, flags, plan) {
    const present = await this.#get(key);
    const value = await fn(present === null ? undefined : present.value);
    const encoded = encode(value, 'the result of fn', VALUE_MAX);
    const condition = present === null ? IF_ABSENT : IF_VERSION;
    const version = await this.#put(
      'update', key, encoded, condition, present === null ? 0 : present.version, flags, plan,
    );
    return { value, version };
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
