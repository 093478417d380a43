'use strict';

// Values between JavaScript and PostgreSQL, as with `pg`: parameters by its rules, results through
// `pg-types`.

const { isDate } = require('node:util/types');
const pgTypes = require('pg-types');
const { isPromise, typeName } = require('./validate');

const PARAMS_MAX = 65535;

function noNul(text, name) {
  if (text.includes('\0')) {
    throw new RangeError(`${name} must not contain NUL: PostgreSQL has no such text`);
  }
  if (!text.isWellFormed()) throw new RangeError(`${name} must not contain lone surrogates`);
  return text;
}

function bytesOf(view) {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

const pad = (number, digits) => String(number).padStart(digits, '0');

// In local time with its offset, so that a column without a time zone gets what a clock on the wall
// here would show.
function dateText(date, name) {
  if (Number.isNaN(date.getTime())) throw new RangeError(`${name} is an invalid Date`);
  const year = date.getFullYear();
  const offset = -date.getTimezoneOffset();
  const zone = Math.abs(offset);
  const day = [pad(year < 1 ? 1 - year : year, 4), pad(date.getMonth() + 1, 2),
    pad(date.getDate(), 2)].join('-');
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map((each) => pad(each, 2));
  const zoneText = `${offset < 0 ? '-' : '+'}${pad(Math.floor(zone / 60), 2)}:${pad(zone % 60, 2)}`;
  return `${day}T${time.join(':')}.${pad(date.getMilliseconds(), 3)}${zoneText}` +
    `${year < 1 ? ' BC' : ''}`;
}

function elementText(element, name) {
  if (Array.isArray(element)) return arrayText(element, name);
  const value = prepare(element, name);
  if (value === null) return 'NULL';
  if (typeof value !== 'string') return `\\\\x${Buffer.from(bytesOf(value)).toString('hex')}`;
  return `"${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
}

function arrayText(array, name) {
  return `{${Array.from(array, (each, i) => elementText(each, `${name}[${i}]`)).join(',')}}`;
}

function jsonText(value, name) {
  let text;
  try {
    text = JSON.stringify(value);
  } catch (error) {
    throw new TypeError(`${name} must be JSON: ${error?.message}`, { cause: error });
  }
  if (text === undefined) throw new TypeError(`${name} must be JSON, and toJSON() gave none`);
  return text;
}

function objectValue(value, name, seen) {
  if (typeof value.toPostgres !== 'function') return jsonText(value, name);
  if (seen.includes(value)) {
    throw new TypeError(`${name} must not be circular: its toPostgres() leads back to it`);
  }
  const own = [...seen, value];
  return prepare(value.toPostgres((each) => prepare(each, name)), name, own);
}

function prepare(value, name, seen = []) {
  if (value === null || value === undefined) return null;
  if (typeof value === 'string') return value;
  if (typeof value === 'function' || typeof value === 'symbol') {
    throw new TypeError(`${name} must be a value; got a ${typeName(value)}`);
  }
  if (typeof value !== 'object') return String(value);
  if (ArrayBuffer.isView(value)) return bytesOf(value);
  if (isDate(value)) return dateText(value, name);
  if (Array.isArray(value)) return arrayText(value, name);
  if (isPromise(value)) throw new TypeError(`${name} is a Promise: await it first`);
  if (value instanceof ArrayBuffer) {
    throw new TypeError(`${name} must be a value; got an ArrayBuffer: pass new Uint8Array(it)`);
  }
  return objectValue(value, name, seen);
}

/**
 * One parameter: null, text, or bytes for the binary format.
 *
 * @param {unknown} value null and undefined are NULL; a Date is its local time with the offset;
 *   typed arrays are bytes; arrays are PostgreSQL's; other objects are JSON, or what their
 *   toPostgres() gives
 * @param {string} name of the argument, for errors
 * @returns {null | string | Uint8Array}
 * @throws {TypeError} if it is no value
 * @throws {RangeError} if PostgreSQL has no such text
 */
function toParam(value, name) {
  const param = prepare(value, name);
  return typeof param === 'string' ? noNul(param, name) : param;
}

/** All parameters of a statement. */
function toParams(values, name) {
  if (values.length > PARAMS_MAX) {
    throw new RangeError(`${name} must be at most ${PARAMS_MAX} values; got ${values.length}`);
  }
  return Array.from(values, (value, i) => toParam(value, `${name}[${i}]`));
}

function fieldInfo([name, tableID, columnID, dataTypeID, dataTypeSize, dataTypeModifier]) {
  return {
    name, tableID, columnID, dataTypeID, dataTypeSize, dataTypeModifier, format: 'text',
  };
}

function parsed(text, parser) {
  return text === null ? null : parser(text);
}

function rowArrays(n, width, parsers, values) {
  return Array.from({ length: n }, (_, row) =>
    parsers.map((parser, i) => parsed(values[row * width + i], parser)));
}

function rowObjects(n, width, parsers, values, fields) {
  // With its members there is one shape for all rows, and a column `__proto__` is one like others.
  const empty = Object.create(null);
  for (const { name } of fields) empty[name] = null;
  const rows = new Array(n);
  for (let row = 0, at = 0; row < n; row++) {
    const made = { ...empty };
    for (let i = 0; i < width; i++, at++) {
      if (values[at] !== null) made[fields[i].name] = parsers[i](values[at]);
      else made[fields[i].name] = null;
    }
    rows[row] = made;
  }
  return rows;
}

/**
 * What a statement came to, as `pg` has it.
 *
 * @param {{ first: number, second: number, extra: unknown[] }} result of the addon
 * @param {boolean} asArrays rows as arrays of values
 * @returns {{ rows: object[] | unknown[][], rowCount: number | null, fields: object[],
 *   command: string }}
 */
function toResult({ first, second: n, extra: [command, rawFields, values] }, asArrays) {
  const fields = rawFields.map(fieldInfo);
  const parsers = fields.map(({ dataTypeID }) => pgTypes.getTypeParser(dataTypeID, 'text'));
  const make = asArrays ? rowArrays : rowObjects;
  return {
    command: /^\w*/.exec(command)[0],
    rowCount: first < 0 ? null : first,
    fields,
    rows: make(n, fields.length, parsers, values, fields),
  };
}

module.exports = { noNul, toParam, toParams, toResult };
