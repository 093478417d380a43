'use strict';

// One statement: how it may be written, and its way to the addon and back.

const { AsyncLocalStorage } = require('node:async_hooks');
const aborts = require('./aborts');
const binding = require('./binding');
const slots = require('./slots');
const { duration } = require('./duration');
const { HoldfastError, closedError, fromStatement } = require('./errors');
const { checkChoice, checkOptions, checkSignal, isPromise, wrongType } = require('./validate');
const { noNul, toParams, toResult } = require('./postgres-values');

const { RECORD_FAILED } = binding.constants;

const TIMEOUT = { min: 1, max: 24 * 3600 * 1000, infinite: true };
const OPTIONS = new Set(['timeout', 'signal', 'rowMode']);
// `name` is what pg calls a prepared statement; the core prepares by itself.
const CONFIG = new Set(['text', 'values', 'name', ...OPTIONS]);
// Statements that begin or end transactions, which is not theirs to do.
const CONTROL = new Set(['begin', 'start', 'commit', 'end', 'rollback', 'abort', 'savepoint',
  'release', 'prepare']);
const NO_PARAMS = Object.freeze([]);

// The transactions whose functions the present code runs in, innermost first.
const within = new AsyncLocalStorage();

/** The first word of SQL, in small letters, behind blanks and comments. */
function firstWord(sql) {
  const blank = /\s+|;|--[^\n]*|\/\*[\s\S]*?\*\//y;
  let at = 0;
  for (;;) {
    blank.lastIndex = at;
    if (!blank.test(sql)) break;
    at = blank.lastIndex;
  }
  const word = /\w+/y;
  word.lastIndex = at;
  return { word: word.exec(sql)?.[0].toLowerCase() ?? '', rest: sql.slice(word.lastIndex) };
}

function checkText(text, name) {
  if (typeof text !== 'string') {
    throw wrongType(name, 'a string, a template or an object with text and values', text);
  }
  noNul(text, name);
  const { word, rest } = firstWord(text);
  if (!CONTROL.has(word) || (word === 'prepare' && !/^\s+transaction\b/i.test(rest))) return;
  throw new TypeError(`${name} must not begin or end a transaction (${word.toUpperCase()}): use ` +
    'pg.transaction(), and tx.transaction() for a savepoint');
}

function checkTemplateValue(value, i) {
  const name = `the value in place ${i + 1}`;
  if (isPromise(value)) throw new TypeError(`${name} is a Promise: await it first`);
  if (typeof value === 'object' && value !== null && typeof value.text === 'string' &&
    Array.isArray(value.values)) {
    throw new TypeError(`${name} is a statement, and only values can be put in: write its SQL ` +
      'out, or build the text and call query(text, values)');
  }
}

function readTemplate(strings, values) {
  let text = '';
  strings.forEach((part, i) => {
    if (part === undefined) throw new TypeError('sql has an escape that JavaScript does not know');
    text += part;
    if (i === values.length) return;
    if (part.endsWith('\'') && strings[i + 1]?.startsWith('\'')) {
      throw new TypeError(`the value in place ${i + 1} must not stand in quotes: it is sent apart`);
    }
    checkTemplateValue(values[i], i);
    text += `$${i + 1}`;
  });
  return { text, values };
}

function readTimes(options, plan, name) {
  const { timeout, signal, rowMode } = options;
  if (timeout !== undefined) {
    const ms = duration(timeout, `${name}.timeout`, TIMEOUT);
    plan.timeout = ms === Infinity ? 0 : ms;
  }
  if (signal !== undefined) {
    checkSignal(signal, `${name}.signal`);
    plan.signal = signal;
  }
  if (rowMode !== undefined) {
    checkChoice(rowMode, `${name}.rowMode`, ['array', 'object']);
    plan.asArrays = rowMode === 'array';
  }
}

/**
 * Reads a statement: of a template, (text, values?, options?) or ({ text, values, ... }, values?).
 *
 * @returns {{ text: string, params: (null | string | Uint8Array)[], timeout: number,
 *   signal: AbortSignal | undefined, asArrays: boolean }} timeout 0: none
 */
function readStatement(args) {
  const [sql, given, options] = args;
  const plan = { text: '', params: NO_PARAMS, timeout: 0, signal: undefined, asArrays: false };
  const isConfig = typeof sql === 'object' && sql !== null && !Array.isArray(sql);
  let values = given;
  let name = 'params';
  if (Array.isArray(sql) && Array.isArray(sql.raw)) {
    ({ text: plan.text, values } = readTemplate(sql, args.slice(1)));
    name = 'the values';
  } else if (isConfig) {
    checkOptions(sql, CONFIG, 'sql');
    plan.text = sql.text;
    if (values === undefined) {
      values = sql.values;
      name = 'sql.values';
    }
    readTimes(sql, plan, 'sql');
  } else {
    plan.text = sql;
  }
  checkText(plan.text, isConfig ? 'sql.text' : 'sql');
  if (name !== 'the values' && options !== undefined) {
    checkOptions(options, OPTIONS);
    readTimes(options, plan, 'options');
  }
  if (values === undefined || values === null) return plan;
  if (!Array.isArray(values)) throw wrongType(name, 'an array', values);
  plan.params = toParams(values, name);
  return plan;
}

/** A statement under way. */
class Query {
  #statement;
  #resolve;
  #reject;
  #slot = -1;
  #onAbort = null;

  constructor(statement, resolve, reject) {
    this.#statement = statement;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** `send(slot, text, params, timeout)` returns null, or why it could not be sent. */
  start(send) {
    const { text, params, timeout, signal } = this.#statement;
    const slot = slots.take(this);
    this.#slot = slot;
    const failure = send(slot, text, params, timeout);
    if (failure !== null) {
      slots.give(slot);
      this.#reject(fromStatement([failure]));
    } else if (signal !== undefined) {
      this.#onAbort = () => {
        this.#onAbort = null;
        binding.pgCancelQuery(slot);
      };
      aborts.listen(signal, this.#onAbort);
    }
  }

  [slots.ON](event, result) {
    const { signal, asArrays } = this.#statement;
    slots.give(this.#slot);
    if (this.#onAbort !== null) aborts.unlisten(signal, this.#onAbort);
    try {
      if ((result.flags & RECORD_FAILED) !== 0) throw this.#failure(result.extra);
      this.#resolve(toResult(result, asArrays));
    } catch (error) {
      this.#reject(error);
    }
  }

  #failure(extra) {
    const { signal } = this.#statement;
    const error = fromStatement(extra);
    return error.code === 'HF_ECANCELED' && signal?.aborted ? signal.reason : error;
  }
}

/**
 * Sends a statement that readStatement() made.
 *
 * @param {(slot: number, text: string, params: unknown[], timeout: number) => unknown[] | null}
 *   send
 * @returns {Promise<object>} what toResult() makes
 */
function sendQuery(statement, send) {
  const { signal } = statement;
  if (signal !== undefined && signal.aborted) return Promise.reject(signal.reason);
  return new Promise((resolve, reject) => {
    new Query(statement, resolve, reject).start(send);
  });
}

/** The error of a statement, with the stack of who awaits it, which its own does not tell. */
function traced(error) {
  if (error instanceof HoldfastError) Error.captureStackTrace(error, traced);
  return error;
}

/** A wait for a connection that this very code stands in the way of, maybe. */
function nameCause(error, client) {
  if (!(error instanceof HoldfastError) || error.code !== 'HF_ETIMEDOUT') return error;
  for (let at = within.getStore(); at !== undefined; at = at.outer) {
    if (at.client !== client || at.isOver) continue;
    error.message += ' (it was asked for within the function of a transaction, which keeps a ' +
      'connection meanwhile: use tx there, or the pool may run dry; its size is the option max)';
    break;
  }
  return error;
}

/** Runs a statement as a transaction of its own. */
async function runQuery(client, statement) {
  if (client.closed) throw closedError();
  try {
    return await sendQuery(statement, (slot, text, params, timeout) =>
      binding.pgQuery(client.slot, slot, text, params, timeout));
  } catch (error) {
    throw nameCause(traced(error), client);
  }
}

/** A statement of our own making, as readStatement() gives it. */
function own({ text, values = [] }, plan) {
  return {
    text, params: toParams(values, 'params'), timeout: 0, signal: undefined, asArrays: false,
    ...plan,
  };
}

module.exports = {
  TIMEOUT, nameCause, own, readStatement, runQuery, sendQuery, traced, within,
};
