'use strict';

// The guards as plain statements, { text, values }, for whatever client the user has: what they ask
// for they see to themselves, by an error of the server that fails the transaction they are in.

const { readId } = require('./advisory-id');
const { OUTCOME_MAX } = require('./binding').constants;
const { Lock, guardOf } = require('./lock');
const { Run, recordOf } = require('./once');
const {
  checkBoolean, checkInteger, checkOptions, isPromise, typeName, wrongType,
} = require('./validate');
const { encode } = require('./value');
const { readStatement } = require('./postgres-query');
const sql = require('./postgres-sql');

const FENCED = new Set(['set', 'where', 'lock', 'fence', 'column']);
const SHARED = new Set(['shared']);
// The stored form of a record: csrc/prim/record.h.
const RECORD_VERSION = 1;
const NO_ERROR = 0;
const FORMAT_BYTES = 0;
const FORMAT_JSON = 1;

function recordBytes(value, fingerprint = Buffer.alloc(0)) {
  const { data, isBytes } = value === undefined
    ? { data: '', isBytes: 0 } : encode(value, 'value', OUTCOME_MAX);
  const header = Buffer.from([RECORD_VERSION, NO_ERROR, fingerprint.length]);
  return {
    bytes: Buffer.concat([header, fingerprint, Buffer.from(data)]),
    format: isBytes ? FORMAT_BYTES : FORMAT_JSON,
  };
}

/**
 * Finishes the record of a run of `hf.once()` if and when the transaction commits in which it runs:
 * as the last of it. If the run has lost its claim it fails, with the SQLSTATE HF001, and the
 * transaction with it.
 *
 * @param {Run} run of a Holdfast on a postgres: URL, in the same database
 * @param {unknown} [value] JSON, a Buffer or undefined, as the function of once() may return it:
 *   return it there as well
 * @returns {{ text: string, values: string[] }}
 */
function finishRecord(run, value) {
  if (isPromise(run)) throw new TypeError('run is a Promise: pass what the function of once() got');
  if (!(run instanceof Run)) throw wrongType('run', 'what the function of once() got', run);
  const { client, key, token, ttl, fingerprint, isReserved } = recordOf(run);
  if (client.store !== 'postgres') {
    throw new TypeError('run must be of a Holdfast on a postgres: URL, in the same database; its ' +
      `store is ${client.store}`);
  }
  if (isReserved) {
    throw new TypeError('run is that of an idempotent route, whose record holds the whole ' +
      'answer: do the work in a hf.once() of its own');
  }
  if (isPromise(value)) throw new TypeError('value is a Promise: await it first');
  const { bytes, format } = recordBytes(value, fingerprint);
  // Text alone, which every client sends as it is.
  return {
    text: `SELECT "${client.schema}".must_finish_record(decode($1::text, 'hex'), ` +
      `decode($2::text, 'hex'), decode($3::text, 'hex'), ${format}::smallint, ${ttl}::bigint) ` +
      'AS finished',
    values: [Buffer.from(key).toString('hex'), token, bytes.toString('hex')],
  };
}

function fenceFrom({ lock, fence }) {
  if ((lock === undefined) === (fence === undefined)) {
    throw new TypeError('options must have a lock or a fence, one of the two');
  }
  if (lock === undefined) {
    if (fence === null) {
      throw new TypeError(
        'options.fence must be a number; got null: a lock without a fence guards no write');
    }
    checkInteger(fence, 'options.fence', 1);
    return fence;
  }
  if (isPromise(lock)) throw new TypeError('options.lock is a Promise: await the lock first');
  if (!(lock instanceof Lock)) {
    const got = lock instanceof Run ? 'a Run, which guards no write' : typeName(lock);
    throw new TypeError(`options.lock must be a Lock; got ${got}`);
  }
  const guard = guardOf(lock);
  if (typeof guard === 'string') throw new TypeError(`options.lock is ${guard}`);
  return guard.fence;
}

/**
 * Updates one row under a lock's fence, which the row then remembers in a column of its own: it
 * fails, with the SQLSTATE 22P02, if the row has seen a newer one, or if there is no such row.
 * Returns the row.
 *
 * @param {string | readonly string[]} table 'orders', 'shop.orders' or ['shop', 'orders']
 * @param {object} options
 * @param {object} options.set columns and their new values
 * @param {object} options.where columns and values that name the row
 * @param {Lock} [options.lock] an exclusive one of one key; or
 * @param {number} [options.fence] the fence of one, maybe of another process
 * @param {string} [options.column='fence'] a bigint, NULL or 0 at first
 * @returns {{ text: string, values: unknown[] }}
 */
function fencedUpdate(table, options) {
  checkOptions(options, FENCED);
  const { set, where, column = 'fence' } = options ?? {};
  return sql.fencedUpdate(table, { set, where, column, fence: fenceFrom(options ?? {}) });
}

/**
 * A statement that must affect exactly one row; else it fails, with the SQLSTATE 22P02. Returns
 * what it returns.
 *
 * @param {string} text INSERT, UPDATE, DELETE or MERGE; without RETURNING it gets one
 * @param {readonly unknown[]} [values]
 * @returns {{ text: string, values: unknown[] }}
 */
function affectOne(text, values = []) {
  readStatement([text, values]);
  const change = text.replace(/[\s;]+$/, '');
  const returns = /\breturning\b/i.test(change) ? '' : 'RETURNING 1 AS affected';
  // On a line of its own: a comment may end the text.
  return {
    text: sql.guarded(`${change}\n${returns}`, '= 1', 'exactly one row was to be affected'),
    values: [...values],
  };
}

/**
 * Updates one row if it still has the version that was read; else it fails, with the SQLSTATE
 * 22P02. Returns the row.
 *
 * @param {string | readonly string[]} table
 * @param {object} options as for pg.updateVersioned()
 * @returns {{ text: string, values: unknown[] }}
 */
function updateVersioned(table, options) {
  return sql.updateVersioned(table, options, true);
}

/**
 * pg_advisory_xact_lock().
 *
 * @param {number | bigint | string | readonly [number, number]} id as for pg.advisoryLock()
 * @param {object} [options]
 * @param {boolean} [options.shared=false]
 * @returns {{ text: string, values: string[] }}
 */
function advisoryXactLock(id, options, call = 'pg_advisory_xact_lock') {
  checkOptions(options, SHARED);
  const { shared = false } = options ?? {};
  checkBoolean(shared, 'options.shared');
  const { number, first, second } = readId(id);
  const name = `${call}${shared ? '_shared' : ''}`;
  // As text: not every client knows what to do with a result of the type void.
  return number === undefined
    ? { text: `SELECT ${name}($1::int, $2::int)::text AS locked`, values: [first, second] }
    : { text: `SELECT ${name}($1::bigint)::text AS locked`, values: [String(number)] };
}

/** The guards as plain statements, for a client of the user's own. */
const statements = Object.freeze({
  finishRecord,
  fencedUpdate,
  affectOne,
  updateVersioned,
  /** INSERT ... ON CONFLICT: as pg.upsert(). Whether it did is the column holdfast_inserted. */
  upsert: (table, row, options) => sql.upsert(table, row, options),
  /** SELECT ... FOR UPDATE: as tx.forUpdate(). */
  forUpdate: (table, where, options) => sql.forUpdate(table, where, options),
  advisoryXactLock: (id, options) => advisoryXactLock(id, options),
});

module.exports = { advisoryXactLock, finishRecord, statements };
