'use strict';

// What only PostgreSQL gives: `require('holdfast/postgres')`.

const { inspect } = require('node:util');

const binding = require('./binding');
const { advisoryId, readId } = require('./advisory-id');
const { AdvisoryLock, acquireAdvisory, advisoryPlan, endAdvisory } = require('./advisory-lock');
const { LockLostError, LockTimeoutError, SqlError } = require('./errors');
const { Holdfast, clientOf, optionsAndFunction } = require('./holdfast');
const { checkFunction, isPromise, wrongType } = require('./validate');
const { own, readStatement, runQuery } = require('./postgres-query');
const { statements } = require('./postgres-statements');
const { changeVersionedBy, updateVersionedBy, upsertBy } = require('./postgres-tables');
const {
  DEFAULTS, Transaction, runTransaction, transactionPlan,
} = require('./postgres-transaction');

const SCHEME = /^postgres(ql)?:/i;

function holderInfo([id, shared, granted, here, pid, queryAge, waiting, applicationName]) {
  const known = (time) => (time === Infinity ? null : time);
  return {
    id: typeof id === 'bigint' ? id : Object.freeze(id),
    mode: shared ? 'shared' : 'exclusive',
    granted,
    here,
    pid,
    applicationName,
    queryAge: known(queryAge),
    waiting: known(waiting),
  };
}

// One for each client, however often it is asked for.
const known = new WeakMap();

/** What PostgreSQL gives beside the store: made by `postgres()`. */
class Postgres {
  #holdfast;
  #client;
  #isOwn;

  /** Not for users: see postgres(). */
  constructor(holdfast, client, isOwn) {
    this.#holdfast = holdfast;
    this.#client = client;
    this.#isOwn = isOwn;
  }

  /** The Holdfast that it is a part of, also where `postgres()` has opened it. */
  get holdfast() {
    return this.#holdfast;
  }

  /**
   * Runs one statement, as a transaction of its own, on a connection of the pool. Also as a
   * template, where each value is a parameter: pg.query`select ${x}`. Values and results are as
   * with `pg`.
   *
   * @param {string | { text: string, values?: unknown[] } | TemplateStringsArray} sql one
   *   statement, with $1, $2 ... for `params`; or both in one object
   * @param {readonly unknown[]} [params]
   * @param {object} [options] also in the object, beside text and values
   * @param {number | string} [options.timeout=Infinity] from 1 ms: from the call; then it is
   *   cancelled, and has no effect
   * @param {AbortSignal} [options.signal] cancels it. If it was done by then it resolves; else it
   *   rejects with the signal's reason, and has no effect
   * @param {'object' | 'array'} [options.rowMode='object']
   * @returns {Promise<{ rows: object[], rowCount: number | null, fields: object[],
   *   command: string }>}
   * @throws {SqlError} if the server refuses it
   * @throws {UnavailableError} if there is no connection to be had; with `outcomeUnknown`, if the
   *   connection broke when it had been sent
   * @throws {HoldfastError} HF_ETIMEDOUT after `timeout`
   */
  async query(...args) {
    return runQuery(this.#client, readStatement(args));
  }

  /**
   * Runs `fn` in a transaction, which is committed when it returns and rolled back when it throws.
   * An error of `fn` always wins. What failed because of others (SQLSTATE 40001, 40P01) is done
   * again, `fn` included.
   *
   * @template T
   * @param {(tx: Transaction) => T | Promise<T>} fn every query of it has to be awaited
   * @param {object} [options] may also come first
   * @param {'read committed' | 'repeatable read' | 'serializable'} [options.isolation] by default
   *   the database's
   * @param {boolean} [options.readOnly=false]
   * @param {number} [options.retries=5] 0 to 10,000
   * @param {number | string} [options.timeout=Infinity] from 1 ms: of everything, the wait for a
   *   connection and the repetitions included
   * @param {AbortSignal} [options.signal] cancels it
   * @returns {Promise<T>} what `fn` returned
   * @throws {SqlError} if a statement of it, or its commit, was refused
   * @throws {UnavailableError} with `outcomeUnknown`, if the connection broke during the commit
   * @throws {HoldfastError} HF_ETIMEDOUT after `timeout`; HF_EINVAL if `fn` left something behind
   */
  async transaction(fn, options) {
    const [given, run] = typeof fn === 'function' || isPromise(fn) ? [options, fn] : [fn, options];
    checkFunction(run);
    return runTransaction(this.#client, transactionPlan(given), run);
  }

  /**
   * Runs a statement that must affect exactly one row. If it affects none, or several, nothing has
   * been done.
   *
   * @param {...unknown} args as for query()
   * @returns {Promise<object>} as of query()
   * @throws {ConflictError} if it affected none, or several
   */
  async affectOne(...args) {
    const statement = readStatement(args);
    const { timeout, signal } = statement;
    const plan = { ...DEFAULTS, signal, timeout: timeout === 0 ? Infinity : timeout };
    const { text, params: values, asArrays } = statement;
    const whole = { text, values, rowMode: asArrays ? 'array' : 'object' };
    return runTransaction(this.#client, plan, (tx) => tx.affectOne(whole));
  }

  /**
   * Inserts a row, or updates that which is there, in one statement.
   *
   * @param {string | readonly string[]} table 'orders', 'shop.orders' or ['shop', 'orders']
   * @param {object} row columns and their values
   * @param {object} options
   * @param {string | readonly string[]} options.key the columns of `row` that are unique
   * @param {false | readonly string[] | object} [options.update] what changes where it is there:
   *   columns of `row`, by default all but the key; or columns and values; false: nothing
   * @returns {Promise<{ row: object, inserted: boolean }>} the row as it is now
   * @throws {SqlError} if the server refuses it
   */
  async upsert(table, row, options) {
    return upsertBy((statement) => runQuery(this.#client, own(statement)), table, row, options);
  }

  /**
   * Updates one row if nobody has changed it since it was read, and counts its version up.
   *
   * @param {string | readonly string[]} table 'orders', 'shop.orders' or ['shop', 'orders']
   * @param {object} options
   * @param {object} options.where columns and values that name the row: null is IS NULL, an array
   *   is any of it
   * @param {object | ((row: object) => object | Promise<object>)} options.set columns and their new
   *   values; a function gets the row as it is, and says what to change, again if somebody came
   *   between
   * @param {number | string | bigint} [options.version] that was read; not with a function
   * @param {string} [options.column='version'] a whole number
   * @param {number} [options.retries=30] with a function: 0 to 10,000
   * @returns {Promise<object>} the row as it is now
   * @throws {ConflictError} with the present `version`, or null if there is no such row
   * @throws {SqlError} if the server refuses it
   */
  async updateVersioned(table, options) {
    const run = (statement) => runQuery(this.#client, own(statement));
    if (typeof options?.set === 'function') return changeVersionedBy(run, table, options);
    return updateVersionedBy(run, table, options);
  }

  /** The guards as plain statements, { text, values }, for a client of one's own. */
  get statements() {
    return statements;
  }

  /**
   * Waits until one of PostgreSQL's advisory locks is held. It excludes everyone who locks the same
   * id in the same database, also from SQL; callers of one process, too. It lasts until
   * `release()`, or until its session with the server ends.
   *
   * @param {number | bigint | string | readonly [number, number]} id a safe integer or a bigint of
   *   64 bits: PostgreSQL's `pg_advisory_lock(bigint)`; two ints of 32 bits:
   *   `pg_advisory_lock(int, int)`, which is another space; a string stands for the bigint
   *   `advisoryId(id)`
   * @param {object} [options]
   * @param {boolean} [options.shared=false] others that are shared may have it too
   * @param {number | string} [options.wait='10s'] from the call; 0 is one attempt, Infinity until
   *   `signal` aborts
   * @param {AbortSignal} [options.signal] ends the wait; the promise rejects with its reason
   * @param {boolean} [options.dedicated=false] on a connection of its own, where it waits in
   *   PostgreSQL's queue; else all share one, and who waits for another process asks again every
   *   5 to 50 ms
   * @returns {Promise<AdvisoryLock>}
   * @throws {LockTimeoutError} if others held it all the time
   * @throws {UnavailableError} if there was no connection to be had
   * @throws {HoldfastError} HF_ENOTSUP behind a pooler that lends connections for each transaction;
   *   HF_ECLOSED after `close()`; what else the server reports
   */
  async advisoryLock(id, options) {
    return acquireAdvisory(this.#client, readId(id), advisoryPlan(options, false));
  }

  /**
   * One attempt, which never overtakes those of this process that wait.
   *
   * @param {number | bigint | string | readonly [number, number]} id as for advisoryLock()
   * @param {object} [options] as for advisoryLock(), without `wait`
   * @returns {Promise<AdvisoryLock | null>} null if others hold it, or wait for it here
   * @throws {HoldfastError} what the server reports
   */
  async tryAdvisoryLock(id, options) {
    const whole = readId(id);
    try {
      return await acquireAdvisory(this.#client, whole, advisoryPlan(options, true));
    } catch (error) {
      if (error instanceof LockTimeoutError) return null;
      throw error;
    }
  }

  /**
   * Runs `fn` while the lock is held, and releases it. An error of `fn` always wins. A release that
   * fails does not mask the result: see the event 'error' of Holdfast.
   *
   * @template T
   * @param {number | bigint | string | readonly [number, number]} id as for advisoryLock()
   * @param {object | ((lock: AdvisoryLock) => T | Promise<T>)} options as for advisoryLock(); may
   *   be left out
   * @param {(lock: AdvisoryLock) => T | Promise<T>} [fn]
   * @returns {Promise<T>} what `fn` returned
   * @throws {LockLostError} if it was lost while `fn` ran; `result` is what it returned
   * @throws {LockTimeoutError} as advisoryLock() does, and its other errors
   */
  async withAdvisoryLock(id, options, fn) {
    const [given, run] = optionsAndFunction('withAdvisoryLock', options, fn);
    const lock = await acquireAdvisory(this.#client, readId(id), advisoryPlan(given, false));
    let result;
    try {
      result = await run(lock);
    } catch (error) {
      await endAdvisory(lock);
      throw error;
    }
    const loss = await endAdvisory(lock);
    if (loss === null) return result;
    throw new LockLostError(loss.message, { key: loss.key, result, cause: loss.cause });
  }

  /**
   * Lists who holds advisory locks of the database and who waits for them, of all its clients, by
   * id, the holders of each first. Who asks again and again, as locks do that are not `dedicated`,
   * is not to be seen while waiting.
   *
   * @returns {Promise<{ id: bigint | readonly [number, number], mode: 'exclusive' | 'shared',
   *   granted: boolean, here: boolean, pid: number, applicationName: string,
   *   queryAge: number | null, waiting: number | null }[]>} `here`: on a connection of this
   *   Holdfast's; `pid`: of the server's process; `queryAge`: milliseconds since that began its
   *   latest statement, null if the user may not know; `waiting`: since it began to wait, null if
   *   it does not or the server is older than 14
   * @throws {HoldfastError} what the server reports
   */
  async advisoryLocks() {
    return this.#client.call(
      (client, slot) => binding.advisoryHolders(client, slot),
      ({ extra }) => extra.map(holderInfo),
    );
  }

  /**
   * Closes what `postgres()` has opened: as `close()` of Holdfast.
   *
   * @param {object} [options]
   * @param {number | string} [options.timeout='5s'] how long holders may take; 0, or Infinity
   * @returns {Promise<void>} when everything has ended
   * @throws {TypeError} if it was made of a Holdfast: that is to be closed
   */
  async close(options) {
    if (!this.#isOwn) {
      throw new TypeError('it is closed with the Holdfast that it was made of: close that one');
    }
    await this.#holdfast.close(options);
  }

  /** What `console.log` shows: not the URL, which may hold a password. */
  [inspect.custom](depth, options) {
    if (depth < 0) return '[Postgres]';
    return `Postgres ${inspect({ closed: this.#client.closed }, options)}`;
  }

  /** Closes it, for `await using`. One that was made of a Holdfast goes on until that is closed. */
  async [Symbol.asyncDispose]() {
    if (this.#isOwn) await this.close();
  }
}

function ofHoldfast(holdfast) {
  const client = clientOf(holdfast);
  if (client === null) {
    throw new TypeError(
      'hf must not be a namespace, which has no part in ids: pass the Holdfast it came from');
  }
  if (client.store !== 'postgres') {
    throw new TypeError(`hf must be a Holdfast on a postgres: URL; its store is ${client.store}`);
  }
  if (!known.has(client)) known.set(client, new Postgres(holdfast, client, false));
  return known.get(client);
}

/**
 * What only PostgreSQL gives, on a Holdfast that is there, or on one that this opens.
 *
 * @param {Holdfast | string} hf a Holdfast on a postgres: URL, or such a URL
 * @param {object} [options] with a URL: as for `open()`
 * @returns {Postgres} of one Holdfast always the same
 * @throws {TypeError} if it is something else, or on another store
 * @throws {RangeError} if the URL is of another store, or not understood
 */
function postgres(hf, options) {
  if (hf instanceof Holdfast) {
    if (options !== undefined) {
      throw new TypeError('options go with a URL: a Holdfast has its own');
    }
    return ofHoldfast(hf);
  }
  if (typeof hf !== 'string') throw wrongType('hf', 'a Holdfast or a URL', hf);
  if (!SCHEME.test(hf)) {
    throw new RangeError('url must be one of PostgreSQL, such as \'postgres://host/database\'');
  }
  const holdfast = new Holdfast(hf, options);
  const client = clientOf(holdfast);
  const made = new Postgres(holdfast, client, true);
  known.set(client, made);
  return made;
}

// Named one by one, so that `import { postgres }` finds them as well.
exports.postgres = postgres;
exports.Postgres = Postgres;
exports.AdvisoryLock = AdvisoryLock;
exports.Transaction = Transaction;
exports.SqlError = SqlError;
exports.statements = statements;
exports.advisoryId = advisoryId;
