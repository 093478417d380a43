'use strict';

// Errors as they are kept with `keepErrors`: name, message and code, nothing that tells of this
// process.

const { HoldfastError } = require('./errors');

const TEXT_MAX = 64 * 1024;
const BUILT_IN = new Map(
  [Error, TypeError, RangeError, SyntaxError, ReferenceError, EvalError, URIError]
    .map((Class) => [Class.name, Class]),
);

function text(value) {
  return String(value).slice(0, TEXT_MAX).toWellFormed();
}

function ofObject(error) {
  const kept = { name: text(error.name), message: text(error.message) };
  if (typeof error.code === 'string') kept.code = text(error.code);
  if (typeof error.code === 'number' && Number.isFinite(error.code)) kept.code = error.code;
  return kept;
}

/** JSON of what was thrown: an Error by its name, message and code, anything else by its text. */
function encodeError(thrown) {
  return JSON.stringify(thrown instanceof Error ? ofObject(thrown) : { thrown: text(thrown) });
}

function plain(kept) {
  const Class = BUILT_IN.get(kept.name) ?? Error;
  const error = new Class(kept.message);
  // As on a class of the user's own, `name` is not enumerable.
  if (error.name !== kept.name) {
    Object.defineProperty(error, 'name', { value: kept.name, writable: true, configurable: true });
  }
  if (kept.code !== undefined) error.code = kept.code;
  return error;
}

/** An error equal to the one that was kept. */
function decodeError(kept) {
  if (typeof kept !== 'object' || kept === null) return new Error(String(kept));
  if ('thrown' in kept) return new Error(kept.thrown);
  if (kept.name === 'HoldfastError') return new HoldfastError(kept.code, kept.message);
  return plain(kept);
}

module.exports = { encodeError, decodeError };
