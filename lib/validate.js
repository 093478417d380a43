'use strict';

// Checks of arguments. A wrong type is a TypeError, a wrong value a RangeError, each with the
// argument's name; nothing has been started when one is thrown.

const { KEY_MAX, KEYS_MAX, NOTE_MAX } = require('./binding').constants;

// No UTF-16 string this short can be longer than KEY_MAX in UTF-8.
const SURELY_SHORT = Math.floor(KEY_MAX / 3);

function isPromise(value) {
  return typeof value === 'object' && value !== null && typeof value.then === 'function';
}

function typeName(value) {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'an array' : typeof value;
}

function wrongType(name, wanted, value) {
  return new TypeError(`${name} must be ${wanted}; got ${typeName(value)}`);
}

/** A key: 1 to 1,024 bytes of UTF-8 without NUL. */
function checkKey(key, name = 'key') {
  if (typeof key !== 'string') throw wrongType(name, 'a string', key);
  if (key.length === 0) throw new RangeError(`${name} must not be empty`);
  if (key.length > SURELY_SHORT && Buffer.byteLength(key) > KEY_MAX) {
    throw new RangeError(`${name} must be at most ${KEY_MAX} bytes of UTF-8`);
  }
  if (key.includes('\0')) throw new RangeError(`${name} must not contain NUL`);
  if (!key.isWellFormed()) throw new RangeError(`${name} must not contain lone surrogates`);
}

/** How keys begin: at most 1,024 bytes of UTF-8 without NUL, maybe none. */
function checkPrefix(prefix, name) {
  if (typeof prefix !== 'string') throw wrongType(name, 'a string', prefix);
  if (prefix !== '') checkKey(prefix, name);
}

/**
 * The key of a lock, or an array of 1 to 64 different ones.
 *
 * @returns {string | readonly string[]} a copy, and an array only where there are several
 */
function lockKeys(key) {
  if (!Array.isArray(key)) {
    if (typeof key !== 'string') throw wrongType('key', 'a string or an array of strings', key);
    checkKey(key);
    return key;
  }
  const { length } = key;
  if (!(length >= 1 && length <= KEYS_MAX)) {
    throw new RangeError(`key must be 1 to ${KEYS_MAX} keys; got ${length}`);
  }
  // One by one: an iterator of the caller's could give any number of them, and a getter another
  // one each time.
  const keys = new Set();
  for (let i = 0; i < length; i++) {
    const each = key[i];
    checkKey(each, `key[${i}]`);
    if (keys.has(each)) throw new RangeError(`key[${i}] is the same as one before it`);
    keys.add(each);
  }
  const copy = [...keys];
  return copy.length === 1 ? copy[0] : Object.freeze(copy);
}

function distance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = a[i - 1] === b[j - 1] ? 0 : 1;
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + change);
    }
    row = next;
  }
  return row[b.length];
}

/** The name among `names` that `name` may have been meant to be, or undefined. */
function nearest(name, names) {
  const ranked = names
    .map((each) => [distance(name.toLowerCase(), each.toLowerCase()), each])
    .sort(([a], [b]) => a - b);
  const close = ranked.length > 0 && ranked[0][0] <= Math.max(2, name.length / 2);
  return close ? ranked[0][1] : undefined;
}

function unknownOption(option, names, name) {
  const shown = option.slice(0, 64);
  const near = nearest(shown, names);
  const hint = near === undefined
    ? names.length > 0 ? `the options are ${names.join(', ')}` : 'there are no options'
    : `did you mean ${near}?`;
  return new TypeError(`${name} has an unknown option '${shown}': ${hint}`);
}

/** An options object (or undefined) with no names but those of the Map or Set `known`. */
function checkOptions(options, known, name = 'options') {
  if (options === undefined) return;
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw wrongType(name, 'an object', options);
  }
  for (const option in options) {
    if (!known.has(option)) throw unknownOption(option, [...known.keys()], name);
  }
}

/**
 * The condition `options[name]`. One that is there and undefined would guard nothing, and whoever
 * wrote it believes that it does.
 */
function readCondition(options, name, hint) {
  const value = options[name];
  if (value !== undefined || !(name in options)) return value;
  throw new TypeError(`options.${name} is undefined: ${hint}, or leave the option out`);
}

function checkFunction(fn, name = 'fn') {
  if (isPromise(fn)) {
    throw new TypeError(
      `${name} is a Promise: pass the function itself, not the promise that calling it gave`,
    );
  }
  if (typeof fn !== 'function') throw wrongType(name, 'a function', fn);
}

function checkBoolean(value, name) {
  if (typeof value !== 'boolean') {
    throw wrongType(name, 'true or false', value);
  }
}

function checkSignal(signal, name) {
  if (!(signal instanceof AbortSignal)) {
    throw wrongType(name, 'an AbortSignal', signal);
  }
}

/** A safe integer from `min` to `max`. */
function checkInteger(value, name, min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER) {
  if (typeof value !== 'number') throw wrongType(name, 'a number', value);
  if (!Number.isSafeInteger(value) || value < min || value > max) {
    throw new RangeError(`${name} must be a whole number from ${min} to ${max}; got ${value}`);
  }
}

function checkNote(note, name) {
  if (typeof note !== 'string') throw wrongType(name, 'a string', note);
  if (Buffer.byteLength(note) > NOTE_MAX) {
    throw new RangeError(`${name} must be at most ${NOTE_MAX} bytes of UTF-8`);
  }
  if (note.includes('\0')) throw new RangeError(`${name} must not contain NUL`);
  if (!note.isWellFormed()) throw new RangeError(`${name} must not contain lone surrogates`);
}

/** One of the strings `choices`. */
function checkChoice(value, name, choices) {
  if (typeof value !== 'string') throw wrongType(name, 'a string', value);
  if (!choices.includes(value)) {
    const list = choices.map((choice) => `'${choice}'`).join(' or ');
    throw new RangeError(`${name} must be ${list}; got ${JSON.stringify(value.slice(0, 64))}`);
  }
}

module.exports = {
  checkKey,
  checkPrefix,
  lockKeys,
  checkOptions,
  readCondition,
  checkFunction,
  checkBoolean,
  checkSignal,
  checkInteger,
  checkNote,
  checkChoice,
  isPromise,
  typeName,
  wrongType,
};
