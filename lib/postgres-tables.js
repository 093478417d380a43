'use strict';

// Guarded changes of the user's tables, by whatever runs a statement: a transaction, or none.

const { setTimeout: sleep } = require('node:timers/promises');
const { ConflictError } = require('./errors');
const { checkFunction, checkInteger, checkOptions } = require('./validate');
const sql = require('./postgres-sql');

const RETRIES = 30;
const RETRIES_MAX = 10000;
const PAUSE_MAX_MS = 100;
const CHANGE = new Set(['where', 'set', 'column', 'retries']);
const BAD_TEXT = '22P02';

/** Why a statement that affected another number of rows than one is a conflict. */
function notOne({ command, rowCount }) {
  const text = rowCount === null
    ? `${command} does not affect rows: affectOne is for INSERT, UPDATE, DELETE and MERGE`
    : `the statement affected ${rowCount} rows, not one: ${rowCount === 0
      ? 'its condition does not hold, or the row is not there'
      : 'it was rolled back; make its condition name one row'}`;
  return new ConflictError(text);
}

/** @returns {Promise<{ row: object, inserted: boolean }>} */
async function upsertBy(run, table, row, options) {
  const { rows: [made] } = await run(sql.upsert(table, row, options));
  const { [sql.INSERTED]: inserted, ...rest } = made;
  return { row: rest, inserted };
}

function numberOf(version) {
  const number = Number(version);
  return Number.isSafeInteger(number) ? number : null;
}

async function versionConflict(run, table, { where, version, column }) {
  const { rows } = await run(sql.versionOf(table, where, column));
  const name = sql.quoteTable(table);
  if (rows.length === 0) {
    return new ConflictError(`there is no such row in ${name}: it has no version ${version}`);
  }
  return new ConflictError(
    `the row in ${name} has version ${rows[0].version}, not ${version}: read it again`,
    { version: numberOf(rows[0].version) });
}

function severalRows(table, cause) {
  return new ConflictError(
    `options.where names several rows of ${sql.quoteTable(table)}: nothing was changed`,
    { cause, retryable: false });
}

/** @returns {Promise<object>} the row */
async function updateVersionedBy(run, table, options) {
  const statement = sql.updateVersioned(table, options, false);
  let rows;
  try {
    ({ rows } = await run(statement));
  } catch (error) {
    if (error?.state !== BAD_TEXT || !error.message.includes('"holdfast: ')) throw error;
    throw severalRows(table, error);
  }
  // Of none there is one all the same, of nothing but NULL: see guarded().
  const column = options.column ?? 'version';
  if (rows.length === 1 && rows[0][column] !== null) return rows[0];
  throw await versionConflict(run, table, options);
}

/** Reads the row, has `set` say what is to be changed, and writes, until nobody comes between. */
async function changeVersionedBy(run, table, options) {
  checkOptions(options, CHANGE);
  const { where, set, column = 'version', retries = RETRIES } = options;
  checkFunction(set, 'options.set');
  checkInteger(retries, 'options.retries', 0, RETRIES_MAX);
  for (let retry = 0; ; retry++) {
    const { rows } = await run(sql.rowOf(table, where));
    if (rows.length === 0) {
      throw new ConflictError(`there is no such row in ${sql.quoteTable(table)}`);
    }
    if (rows.length > 1) throw severalRows(table);
    const row = rows[0];
    const changes = await set(row);
    try {
      return await updateVersionedBy(run, table,
        { where, set: changes, version: row[column], column });
    } catch (error) {
      if (!(error instanceof ConflictError && error.retryable) || retry >= retries) throw error;
      await sleep(Math.random() * Math.min(2 ** retry, PAUSE_MAX_MS));
    }
  }
}

module.exports = { changeVersionedBy, notOne, updateVersionedBy, upsertBy };
