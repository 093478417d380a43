'use strict';

const ms = require('ms');
const { wrongType } = require('./validate');

// Beyond this nobody means a duration; Infinity is the word for that.
const MAX = 3650 * 24 * 3600 * 1000;
const FORM = /^\s*\d*\.?\d+\s*[a-z]*\s*$/i;

function parse(text) {
  if (text.length > 64 || !FORM.test(text)) return NaN;
  const value = ms(text.trim());
  return typeof value === 'number' ? value : NaN;
}

const UNITS = [['years', 365 * 24 * 3600 * 1000], ['h', 3600 * 1000], ['ms', 1]];
const FORMS = 'milliseconds or a string such as \'500ms\', \'30s\', \'5m\', \'24h\'';

// As people say it: 50 ms, 24 h, 10 years.
function words(time) {
  if (time === 0) return '0';
  const [unit, size] = UNITS.find(([, each]) => time % each === 0);
  return `${time / size} ${unit}`;
}

function describe(range) {
  const max = range.max ?? MAX;
  return `from ${words(range.min)} to ${words(max)}${range.infinite ? ', or Infinity' : ''}`;
}

function refusal(value, read, name, range) {
  const isText = typeof value === 'string';
  const shown = isText ? JSON.stringify(value.slice(0, 64)) : String(value);
  if (Number.isNaN(read)) return new RangeError(`${name} must be ${FORMS}; got ${shown}`);
  const unit = isText ? '' : ' (numbers are milliseconds)';
  return new RangeError(`${name} must be ${describe(range)}; got ${shown}${unit}`);
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
    throw wrongType(name, FORMS, value);
  }
  const read = typeof value === 'string' ? parse(value) : value;
  if (read === Infinity && range.infinite) return Infinity;
  const whole = Math.ceil(read);
  // Written so that NaN is refused as well.
  if (!(read >= 0 && whole >= range.min && whole <= (range.max ?? MAX))) {
    throw refusal(value, read, name, range);
  }
  return whole;
}

module.exports = { duration };
