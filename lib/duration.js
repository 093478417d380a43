'use strict';

const ms = require('ms');

// Beyond this nobody means a duration; Infinity is the word for that.
const MAX = 3650 * 24 * 3600 * 1000;
const FORM = /^\s*\d*\.?\d+\s*[a-z]*\s*$/i;

function parse(text) {
  if (text.length > 64 || !FORM.test(text)) return NaN;
  const value = ms(text.trim());
  return typeof value === 'number' ? value : NaN;
}

function describe(range) {
  const max = range.max ?? MAX;
  return `from ${range.min} to ${max} ms${range.infinite ? ', or Infinity' : ''}`;
}

/**
 * Reads a duration: milliseconds as a number, or a string such as '30s', '5m', '24h'.
 *
 * @param {number | string} value
 * @param {string} name of the argument, for errors
 * @param {{ min: number, max?: number, infinite?: boolean }} range allowed, in milliseconds
 * @returns {number} whole milliseconds (a fraction is rounded up), or Infinity
 * @throws {TypeError} if it is neither a number nor a string
 * @throws {RangeError} if it is not understood or out of range
 */
function duration(value, name, range) {
  if (typeof value !== 'number' && typeof value !== 'string') {
    throw new TypeError(`${name} must be milliseconds or a string such as '30s'`);
  }
  const read = typeof value === 'string' ? parse(value) : value;
  if (read === Infinity && range.infinite) return Infinity;
  const whole = Math.ceil(read);
  // Written so that NaN is refused as well.
  if (!(read >= 0 && whole >= range.min && whole <= (range.max ?? MAX))) {
    const shown = typeof value === 'string' ? JSON.stringify(value.slice(0, 64)) : String(value);
    throw new RangeError(`${name} must be ${describe(range)}; got ${shown}`);
  }
  return whole;
}

module.exports = { duration };
