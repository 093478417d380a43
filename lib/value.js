'use strict';

// Values between JavaScript and the store: JSON text, or bytes.

const { createHash } = require('node:crypto');
const { HoldfastError } = require('./errors');
const { isPromise, typeName } = require('./validate');
const { RECORD_IS_BYTES } = require('./binding').constants;

// What JSON unwraps, though it has no members.
const WRAPPERS = [Number, String, Boolean, BigInt];

// Of any realm.
function isPlain(object) {
  const prototype = Object.getPrototypeOf(object);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

// A Map, a Promise, an instance with nothing but private fields: JSON would make {} of it. Of an
// Error it would keep anything but the message.
function isLostInJson(value) {
  if (typeof value !== 'object' || value === null) return false;
  if (value instanceof Error) return true;
  if (Array.isArray(value) || isPlain(value) || Object.keys(value).length > 0) return false;
  return !WRAPPERS.some((Class) => value instanceof Class);
}

function nameOf(object) {
  const name = object.constructor?.name;
  return typeof name === 'string' && name !== '' ? name.slice(0, 64) : 'a class without a name';
}

/** The error that `value`, a part of what is called `name`, must not be stored for; or null. */
function lossOf(value, name) {
  if (typeof value === 'number' && !Number.isFinite(value)) {
    return new RangeError(`${name} must not contain ${value}: JSON has no such number`);
  }
  if (!isLostInJson(value)) return null;
  const hint = isPromise(value) ? 'await it first' : 'JSON would not keep what is in it';
  return new TypeError(
    `${name} must not be or contain an instance of ${nameOf(value)}: ${hint}`,
  );
}

function toJson(value, name) {
  let text;
  let loss = null;
  try {
    // What JSON drops without a word must not be stored as if it were kept.
    text = JSON.stringify(value, (_key, part) => {
      loss = lossOf(part, name);
      if (loss !== null) throw loss;
      return part;
    });
  } catch (error) {
    if (loss !== null || error instanceof RangeError) throw error;
    throw new TypeError(`${name} must be JSON or a Buffer: ${error?.message}`, { cause: error });
  }
  if (text === undefined) {
    throw new TypeError(`${name} must be JSON or a Buffer; got ${typeName(value)}`);
  }
  return text;
}

/**
 * @param {unknown} value JSON or a Uint8Array
 * @param {string} name of the argument, for errors
 * @param {number} max bytes
 * @returns {{ data: string | Uint8Array, isBytes: 0 | 1 }}
 * @throws {TypeError} if it is neither, or contains what JSON would silently empty, such as a Map
 * @throws {RangeError} if it is too large (with code HF_ETOOBIG), or contains NaN or an infinite
 *   number
 */
function encode(value, name, max) {
  const isBytes = value instanceof Uint8Array;
  const data = isBytes ? value : toJson(value, name);
  const size = isBytes ? value.byteLength : Buffer.byteLength(data);
  if (size > max) {
    const error = new RangeError(`${name} must be at most ${max} bytes; got ${size}`);
    throw Object.assign(error, { code: 'HF_ETOOBIG' });
  }
  return { data, isBytes: isBytes ? 1 : 0 };
}

/**
 * The value that came with `flags`: a Buffer as it is, JSON parsed. No text at all is undefined.
 */
function decode(data, flags) {
  if ((flags & RECORD_IS_BYTES) !== 0) return data;
  if (data === '') return undefined;
  try {
    return JSON.parse(data);
  } catch (error) {
    throw new HoldfastError('HF_EPROTO', 'the stored value is not JSON', { cause: error });
  }
}

// JSON in which members come in one order, whatever order they were set in.
function canonical(_key, value) {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const sorted = Object.create(null);
  for (const key of Object.keys(value).sort()) sorted[key] = value[key];
  return sorted;
}

/**
 * 32 bytes that tell one fingerprint from another: a string, bytes, or JSON in canonical form.
 *
 * @throws {TypeError} if it is none of these
 */
function digest(value, name) {
  const hash = createHash('sha256');
  if (typeof value === 'string') return hash.update('string\0').update(value).digest();
  if (value instanceof Uint8Array) return hash.update('bytes\0').update(value).digest();
  toJson(value, name);
  return hash.update('json\0').update(JSON.stringify(value, canonical)).digest();
}

module.exports = { encode, decode, digest };
