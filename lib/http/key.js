'use strict';

// The Idempotency-Key header and the name of the record that stands behind it.

const { createHash } = require('node:crypto');

const KEY_MAX = 255; // characters of a client's key
const SCOPE_MAX = 256; // characters of an encoded scope before it is hashed
const RECORD_PREFIX = 'http:';

// A bare key: visible ASCII without what would make a list, a parameter or a string of it. Proxies
// join repeated headers with a comma, so a comma means that there were several keys.
const BARE = /^[!#-+\--:<-[\]-~]+$/;
const QUOTED = /^"(?:[ !#-[\]-~]|\\["\\])*"$/;

/**
 * Reads a key: an RFC 8941 string in double quotes (`\"` and `\\` are its only escapes) or the bare
 * characters. `"abc"` and `abc` are the same key.
 *
 * @param {string} value the header's value
 * @returns {{ key: string, problem: null } | { key: null, problem: string }} the key, or what is
 *   wrong with it, as a sentence for the client
 */
function parseKey(value) {
  const text = value.replace(/^[ \t]+|[ \t]+$/g, '');
  if (text === '' || text === '""') return malformed('The key is empty.');
  let key = text;
  if (text.startsWith('"')) {
    if (!QUOTED.test(text)) return malformed('The quoted key is not a valid RFC 8941 string.');
    key = text.slice(1, -1).replace(/\\(.)/g, '$1');
  } else if (!BARE.test(text)) {
    return malformed('A key without quotes may hold visible ASCII characters '
      + 'other than " , ; and \\; put others between double quotes.');
  }
  if (key.length > KEY_MAX) return malformed(`The key is longer than ${KEY_MAX} characters.`);
  return { key, problem: null };
}

function malformed(problem) {
  return { key: null, problem };
}

/**
 * Names the record of a client's key, for `hf.record()` and `hf.forget()`: `http:SCOPE:KEY`, where
 * SCOPE is percent-encoded, so that no scope and key can spell the name of another pair. A scope of
 * more than 256 encoded characters is replaced by `+` and its SHA-256. The prefix keeps what
 * clients send apart from the keys that the service itself gives to `hf.once`.
 *
 * @param {string} key the client's key, without quotes
 * @param {string} [scope] what the `scope` option returned
 * @returns {string} at most 517 bytes
 * @throws {TypeError} when key or scope is not a string
 * @throws {RangeError} when either is empty, key is too long, or scope is not well-formed Unicode
 */
function recordKey(key, scope) {
  if (typeof key !== 'string') throw new TypeError('key must be a string');
  if (key === '' || key.length > KEY_MAX) {
    throw new RangeError(`key must have 1 to ${KEY_MAX} characters`);
  }
  return `${RECORD_PREFIX}${scope === undefined ? '' : encodeScope(scope)}:${key}`;
}

function encodeScope(scope) {
  if (typeof scope !== 'string') throw new TypeError('scope must be a string');
  if (scope === '') throw new RangeError('scope must not be empty');
  if (!scope.isWellFormed()) throw new RangeError('scope must be well-formed Unicode');
  const encoded = encodeURIComponent(scope);
  if (encoded.length <= SCOPE_MAX) return encoded;
  return `+${createHash('sha256').update(scope).digest('base64url')}`; // never encodes to a plus
}

module.exports = { parseKey, recordKey };
