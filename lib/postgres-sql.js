'use strict';

// The text of statements on the user's tables. Identifiers are quoted, values are parameters: each
// `$n` stands in the text once, in order, so that it can be written for clients that say `?`.

const { checkInteger, checkOptions, wrongType } = require('./validate');
const { noNul } = require('./postgres-values');

const NAME_MAX = 63;
const LOCKING = new Set(['skipLocked', 'noWait', 'share', 'orderBy', 'limit']);

function quoteName(name, argument) {
  if (typeof name !== 'string') throw wrongType(argument, 'a string', name);
  noNul(name, argument);
  const length = Buffer.byteLength(name);
  if (length === 0 || length > NAME_MAX) {
    throw new RangeError(`${argument} must be a name of 1 to ${NAME_MAX} bytes; got ${length}`);
  }
  return `"${name.replaceAll('"', '""')}"`;
}

/**
 * @param {string | readonly string[]} table 'orders', 'shop.orders' or ['shop', 'orders']
 * @returns {string} quoted
 */
function quoteTable(table) {
  if (typeof table !== 'string' && !Array.isArray(table)) {
    throw wrongType('table', 'a string or an array of strings', table);
  }
  const parts = typeof table === 'string' ? table.split('.') : table;
  if (parts.length < 1 || parts.length > 2) {
    throw new RangeError('table must be a name, \'schema.name\' or [\'schema\', \'name\']');
  }
  return Array.from(parts, (part) => quoteName(part, 'table')).join('.');
}

/** A text that is being written, and its parameters. */
class Writer {
  values = [];

  /** A parameter. */
  add(value) {
    this.values.push(value);
    return `$${this.values.length}`;
  }

  /** `made`, a text, as a statement. */
  statement(made) {
    return { text: made, values: this.values };
  }
}

/** The members of an object that has some, none of which is undefined. */
function members(object, argument) {
  if (typeof object !== 'object' || object === null || Array.isArray(object)) {
    throw wrongType(argument, 'an object', object);
  }
  const entries = Object.entries(object);
  if (entries.length === 0) {
    throw new RangeError(`${argument} must not be empty: name the columns`);
  }
  for (const [name, value] of entries) {
    if (value !== undefined) continue;
    throw new TypeError(`${argument}.${name.slice(0, 64)} is undefined: use null for NULL, or ` +
      'leave it out');
  }
  return entries;
}

function condition(writer, where, argument = 'options.where') {
  return members(where, argument).map(([name, value]) => {
    const column = quoteName(name, `a column of ${argument}`);
    if (value === null) return `${column} IS NULL`;
    if (Array.isArray(value)) return `${column} = ANY (${writer.add(value)})`;
    return `${column} = ${writer.add(value)}`;
  }).join(' AND ');
}

function assignments(writer, set, forbidden) {
  return members(set, 'options.set').map(([name, value]) => {
    if (name === forbidden) {
      throw new TypeError(`options.set must not have ${forbidden.slice(0, 64)}: that is set here`);
    }
    return `${quoteName(name, 'a column of options.set')} = ${writer.add(value)}`;
  }).join(', ');
}

/**
 * `change`, which returns rows, so that it fails unless their number is as `allowed`: by a cast of
 * `why`, which needs nothing that is not in every database. It is joined, not merely computed, lest
 * a planner leaves it out.
 */
function guarded(change, allowed, why) {
  return `WITH changed AS (${change}), counted AS (SELECT count(*) AS n FROM changed) ` +
    'SELECT changed.* FROM counted LEFT JOIN changed ON true ' +
    `WHERE CASE WHEN counted.n ${allowed} THEN true ` +
    `ELSE ('holdfast: ${why}; rows: ' || counted.n)::boolean END`;
}

/** SELECT ... FOR UPDATE. */
function forUpdate(table, where, options) {
  checkOptions(options, LOCKING);
  const { skipLocked = false, noWait = false, share = false, orderBy, limit } = options ?? {};
  for (const [name, value] of Object.entries({ skipLocked, noWait, share })) {
    if (typeof value !== 'boolean') throw wrongType(`options.${name}`, 'true or false', value);
  }
  if (skipLocked && noWait) {
    throw new TypeError('options.skipLocked and options.noWait exclude each other');
  }
  const writer = new Writer();
  const parts = [`SELECT * FROM ${quoteTable(table)} WHERE ${condition(writer, where, 'where')}`];
  if (orderBy !== undefined) {
    const columns = names(orderBy, 'options.orderBy').map((each) => quoteName(each, ''));
    parts.push(`ORDER BY ${columns.join(', ')}`);
  }
  if (limit !== undefined) {
    checkInteger(limit, 'options.limit', 1);
    parts.push(`LIMIT ${limit}`);
  }
  parts.push(`FOR ${share ? 'SHARE' : 'UPDATE'}`);
  if (skipLocked) parts.push('SKIP LOCKED');
  if (noWait) parts.push('NOWAIT');
  return writer.statement(parts.join(' '));
}

const UPSERT = new Set(['key', 'update']);
const INSERTED = 'holdfast_inserted';

function names(value, argument) {
  const list = Array.isArray(value) ? [...value] : [value];
  if (list.length === 0) throw new RangeError(`${argument} must not be empty`);
  for (const each of list) quoteName(each, argument);
  return list;
}

// What is set where the row is there: columns of the row, or values of their own.
function updates(writer, table, row, key, update) {
  const others = Object.keys(row).filter((name) => !key.includes(name));
  const taken = (list) => list.map((name) => {
    if (!Object.hasOwn(row, name)) {
      throw new TypeError(`options.update names ${name.slice(0, 64)}, which row does not have`);
    }
    return `${quoteName(name, 'options.update')} = EXCLUDED.${quoteName(name, 'options.update')}`;
  });
  // The row is to be returned, so it has to be written, though nothing of it changes.
  const nothing = [`${quoteName(key[0], 'options.key')} = EXCLUDED.${quoteName(key[0], '')}`];
  if (update === false || Array.isArray(update)) {
    return update === false || update.length === 0 ? nothing : taken(update);
  }
  if (update === undefined) return others.length === 0 ? nothing : taken(others);
  return members(update, 'options.update').map(([name, value]) =>
    `${quoteName(name, 'a column of options.update')} = ${writer.add(value)}`);
}

/** INSERT ... ON CONFLICT DO UPDATE. */
function upsert(table, row, options) {
  checkOptions(options, UPSERT);
  const { key, update } = options ?? {};
  if (key === undefined) {
    throw new TypeError('options.key is missing: name the columns that are unique');
  }
  const writer = new Writer();
  const into = quoteTable(table);
  const entries = members(row, 'row');
  const unique = names(key, 'options.key');
  for (const each of unique) {
    if (!Object.hasOwn(row, each)) {
      throw new TypeError(`options.key names ${each.slice(0, 64)}, which row does not have`);
    }
  }
  const columns = entries.map(([name]) => quoteName(name, 'a column of row')).join(', ');
  const values = entries.map(([, value]) => writer.add(value)).join(', ');
  const target = unique.map((each) => quoteName(each, 'options.key')).join(', ');
  return writer.statement(`INSERT INTO ${into} (${columns}) VALUES (${values}) ` +
    `ON CONFLICT (${target}) DO UPDATE SET ` +
    `${updates(writer, into, row, unique, update).join(', ')} ` +
    `RETURNING *, (xmax = 0) AS ${INSERTED}`);
}

const VERSIONED = new Set(['where', 'set', 'version', 'column']);

/**
 * UPDATE ... SET version = version + 1 WHERE version = $n. With `exactly` it fails where no row was
 * changed; else only where several were.
 */
function updateVersioned(table, options, exactly) {
  checkOptions(options, VERSIONED);
  const { where, set, version, column = 'version' } = options ?? {};
  if (version === undefined || version === null) {
    throw new TypeError('options.version is missing: pass the one that was read');
  }
  const quoted = quoteName(column, 'options.column');
  const writer = new Writer();
  const change = `UPDATE ${quoteTable(table)} ` +
    `SET ${assignments(writer, set, column)}, ${quoted} = ${quoted} + 1 ` +
    `WHERE ${condition(writer, where)} AND ${quoted} = ${writer.add(version)} RETURNING *`;
  return writer.statement(exactly
    ? guarded(change, '= 1', 'the row is gone or has another version')
    : guarded(change, '<= 1', 'options.where must name one row'));
}

/** The version of the rows that are there. */
function versionOf(table, where, column = 'version') {
  const writer = new Writer();
  return writer.statement(`SELECT ${quoteName(column, 'options.column')} AS version ` +
    `FROM ${quoteTable(table)} WHERE ${condition(writer, where)}`);
}

/** All of the rows that are there: at most two, which is one too many. */
function rowOf(table, where) {
  const writer = new Writer();
  return writer.statement(
    `SELECT * FROM ${quoteTable(table)} WHERE ${condition(writer, where)} LIMIT 2`);
}

/** UPDATE of one row that has seen no newer fence, which it then remembers. */
function fencedUpdate(table, { set, where, fence, column }) {
  const quoted = quoteName(column, 'options.column');
  const writer = new Writer();
  const change = `UPDATE ${quoteTable(table)} ` +
    `SET ${assignments(writer, set, column)}, ${quoted} = ${writer.add(fence)} ` +
    `WHERE ${condition(writer, where)} ` +
    `AND (${quoted} IS NULL OR ${quoted} <= ${writer.add(fence)}) RETURNING *`;
  return writer.statement(
    guarded(change, '= 1', 'the row has seen a newer fence, or is not there, or is not one'));
}

module.exports = {
  INSERTED, fencedUpdate, forUpdate, guarded, quoteTable, rowOf, updateVersioned, upsert,
  versionOf,
};
