'use strict';

// What PostgreSQL's advisory locks are named by: a bigint, or two ints, which is another space. A
// string is a way to say a bigint.

const { createHash } = require('node:crypto');
const { quote } = require('./errors');
const { checkInteger, checkKey, wrongType } = require('./validate');

const BIGINT_MIN = -(2n ** 63n);
const BIGINT_MAX = 2n ** 63n - 1n;
const INT_MIN = -(2 ** 31);
const INT_MAX = 2 ** 31 - 1;
const FORMS = 'a number, a bigint, a string or an array of two numbers';

/**
 * The bigint that stands for a string: the first 8 bytes of the SHA-256 of its UTF-8, the highest
 * first, with a sign. In SQL:
 *
 *   ('x' || encode(substr(sha256(convert_to('name', 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint
 *
 * @param {string} name 1 to 1,024 bytes of UTF-8 without NUL
 * @returns {bigint}
 */
function advisoryId(name) {
  checkKey(name, 'name');
  return createHash('sha256').update(name, 'utf8').digest().readBigInt64BE(0);
}

function readPair(id) {
  if (id.length !== 2) throw new RangeError(`id must be ${FORMS}; got an array of ${id.length}`);
  const [first, second] = id;
  checkInteger(first, 'id[0]', INT_MIN, INT_MAX);
  checkInteger(second, 'id[1]', INT_MIN, INT_MAX);
  return {
    id: Object.freeze([first, second]), number: undefined, first, second,
    shown: `(${first}, ${second})`,
  };
}

function ofNumber(id, number, shown) {
  return { id, number, first: 0, second: 0, shown };
}

/**
 * Reads an id.
 *
 * @param {number | bigint | string | readonly [number, number]} id
 * @returns {{ id: number | bigint | string | readonly [number, number], number: bigint | undefined,
 *   first: number, second: number, shown: string }} as it was given; as PostgreSQL has it, `number`
 *   or else the two; and as messages show it
 * @throws {TypeError} if it is something else
 * @throws {RangeError} if PostgreSQL has no such number
 */
function readId(id) {
  if (Array.isArray(id)) return readPair(id);
  if (typeof id === 'number') {
    checkInteger(id, 'id');
    return ofNumber(id, BigInt(id), String(id));
  }
  if (typeof id === 'bigint') {
    if (id < BIGINT_MIN || id > BIGINT_MAX) {
      throw new RangeError(`id must be a bigint from ${BIGINT_MIN} to ${BIGINT_MAX}`);
    }
    return ofNumber(id, id, String(id));
  }
  if (typeof id !== 'string') throw wrongType('id', FORMS, id);
  checkKey(id, 'id');
  return ofNumber(id, advisoryId(id), quote(id));
}

module.exports = { advisoryId, readId };
