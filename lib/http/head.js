'use strict';

// The head of a response (status, reason phrase, headers) as Node's ServerResponse has it.

/**
 * The headers set on a response, in order, with the case they were given. A header with several
 * values has an array.
 *
 * @param {import('node:http').ServerResponse} res
 * @returns {Array<[string, string | string[]]>}
 */
function headersOf(res) {
  return res.getRawHeaderNames().map((name) => [name, asText(res.getHeader(name))]);
}

function asText(value) {
  return Array.isArray(value) ? value.map(String) : String(value);
}

/**
 * Sets the headers that writeHead was called with, in any of the forms it takes: an object, a flat
 * array of names and values, or an array of pairs. A name that comes twice gets both values.
 *
 * @param {import('node:http').ServerResponse} res
 * @param {object | unknown[]} headers
 */
function setHeaders(res, headers) {
  const values = new Map();
  for (const [name, value] of pairsOf(headers)) {
    const key = String(name).toLowerCase();
    const entry = values.get(key);
    if (entry) entry[1] = [entry[1], value].flat();
    else values.set(key, [name, value]);
  }
  for (const [name, value] of values.values()) res.setHeader(name, value);
}

function pairsOf(headers) {
  if (!Array.isArray(headers)) return Object.entries(headers);
  if (Array.isArray(headers[0])) return headers;
  const pairs = [];
  for (let i = 0; i < headers.length; i += 2) pairs.push([headers[i], headers[i + 1]]);
  return pairs;
}

/** Removes every header of a response but those named, in lower case. */
function clearHeaders(res, except = []) {
  for (const name of res.getHeaderNames()) {
    if (!except.includes(name)) res.removeHeader(name);
  }
}

/** The body's length that headers announce, or null. */
function announcedLength(headers) {
  const found = headers.find(([name]) => name.toLowerCase() === 'content-length');
  const length = Number(found?.[1] ?? NaN);
  return Number.isSafeInteger(length) && length >= 0 ? length : null;
}

module.exports = { headersOf, setHeaders, clearHeaders, announcedLength };
