'use strict';

// Transactions, and what can be done in one.

const { setTimeout: sleep } = require('node:timers/promises');
const { inspect } = require('node:util');
const { readId } = require('./advisory-id');
const { duration } = require('./duration');
const {
  AGAIN, HoldfastError, LockLostError, LockTimeoutError, SqlError, quote,
} = require('./errors');
const {
  checkBoolean, checkChoice, checkFunction, checkInteger, checkOptions, checkSignal,
} = require('./validate');
const { TIMEOUT, nameCause, own, readStatement, traced, within } = require('./postgres-query');
const { Session } = require('./postgres-session');
const { forUpdate } = require('./postgres-sql');
const { advisoryXactLock, finishRecord } = require('./postgres-statements');
const { notOne, updateVersionedBy, upsertBy } = require('./postgres-tables');

const ISOLATIONS = ['read committed', 'repeatable read', 'serializable'];
const OPTIONS = new Set(['isolation', 'readOnly', 'retries', 'timeout', 'signal']);
const LOCK_OPTIONS = new Set(['shared', 'wait']);
const TRY_OPTIONS = new Set(['shared']);
// Who retries for ever hides that a transaction is too long; who never does has every caller write
// the loop. Three to five is what others do: Exposed, Firestore.
const RETRIES = 5;
const RETRIES_MAX = 10000;
const PAUSE_MIN_MS = 5;
const PAUSE_MAX_MS = 500;
const WAIT = { min: 0, max: 2 ** 31 - 1, infinite: true };
const WAIT_MS = 10000;
const LOCK_NOT_AVAILABLE = '55P03';
const IN_FAILED = '25P02';
const LOST_CLAIM = 'HF001';

const DEFAULTS = Object.freeze({
  isolation: 0, readOnly: false, retries: RETRIES, timeout: Infinity, signal: undefined,
});

function noop() {}

/** Reads the options of transaction(). */
function transactionPlan(options) {
  checkOptions(options, OPTIONS);
  if (options === undefined) return DEFAULTS;
  const { isolation, readOnly, retries, timeout, signal } = options;
  const plan = { ...DEFAULTS };
  if (isolation !== undefined) {
    checkChoice(isolation, 'options.isolation', ISOLATIONS);
    plan.isolation = ISOLATIONS.indexOf(isolation) + 1;
  }
  if (readOnly !== undefined) {
    checkBoolean(readOnly, 'options.readOnly');
    plan.readOnly = readOnly;
  }
  if (retries !== undefined) {
    checkInteger(retries, 'options.retries', 0, RETRIES_MAX);
    plan.retries = retries;
  }
  if (timeout !== undefined) plan.timeout = duration(timeout, 'options.timeout', TIMEOUT);
  if (signal !== undefined) {
    checkSignal(signal, 'options.signal');
    plan.signal = signal;
  }
  return plan;
}

// What a function must not have left behind when it ends.
function unawaited(n) {
  const what = n === 1 ? 'a query of it was' : `${n} queries of it were`;
  return new HoldfastError('HF_EINVAL',
    `the function of a transaction ended while ${what} under way, so it was rolled back: ` +
    'await every tx.query(), and whatever else is called on tx');
}

// The function went on after a failure, which PostgreSQL does not.
function wentOn(error, cause) {
  const why = cause === null ? '' : `: ${cause.message}`;
  const made = new SqlError('the transaction was rolled back, since a statement in it had failed ' +
    `and its function went on${why}. To go on, put what may fail into tx.transaction()`,
  { state: IN_FAILED, cause: cause ?? error });
  made.retryable = cause?.retryable === true;
  return made;
}

// Set by class Transaction: what this file may do with one and its users may not.
let close;
let pendingOf;
let failureOf;

const OPEN = 0;
const INNER = 1; // a savepoint of it is at work
const ENDED = 2;

/** A transaction, or a savepoint in one, as its function sees it. */
class Transaction {
  #session;
  #state = OPEN;
  // What its function has to await.
  #pending = new Set();
  // The first of its statements that failed, if the transaction went on after that.
  #failure = null;

  /** Not for users: see pg.transaction(). */
  constructor(session) {
    this.#session = session;
  }

  static {
    close = (tx) => { tx.#state = ENDED; };
    pendingOf = (tx) => tx.#pending;
    failureOf = (tx) => tx.#failure;
  }

  /** Aborts when it cannot be committed any more: `signal`, `timeout`, or its connection broke. */
  get signal() {
    return this.#session.signal;
  }

  /**
   * Runs a statement in the transaction: as pg.query().
   *
   * @param {...unknown} args as for pg.query()
   * @returns {Promise<{ rows: object[], rowCount: number | null, fields: object[],
   *   command: string }>}
   */
  query(...args) {
    return this.#track(async () => this.#run(readStatement(args)));
  }

  /**
   * A part that may fail by itself: a savepoint. An error of `fn` undoes what it did, and no more.
   * Until it ends everything goes through the `tx` that `fn` gets.
   *
   * @template T
   * @param {(tx: Transaction) => T | Promise<T>} fn
   * @returns {Promise<T>} what `fn` returned
   */
  transaction(fn, ...rest) {
    return this.#track(async () => {
      if (rest.length > 0) {
        throw new TypeError('a transaction within another has no options: tx.transaction(fn)');
      }
      checkFunction(fn);
      this.#check();
      this.#state = INNER;
      return this.#within(fn);
    });
  }

  /**
   * Runs a statement that must affect exactly one row: as pg.affectOne(). Where it affected several
   * the transaction can only be rolled back.
   *
   * @throws {ConflictError} if it affected none, or several
   */
  affectOne(...args) {
    return this.#track(async () => {
      const result = await this.#run(readStatement(args));
      if (result.rowCount === 1) return result;
      const error = notOne(result);
      if (result.rowCount > 1) this.#session.doom ??= error;
      throw error;
    });
  }

  /** As pg.upsert(). */
  upsert(table, row, options) {
    const run = (statement) => this.#run(own(statement));
    return this.#track(async () => upsertBy(run, table, row, options));
  }

  /** As pg.updateVersioned(), without `retries`. */
  updateVersioned(table, options) {
    const run = (statement) => this.#part(() => this.#run(own(statement)));
    return this.#track(async () => updateVersionedBy(run, table, options));
  }

  /**
   * Reads rows and locks them until the transaction ends.
   *
   * @param {string | readonly string[]} table 'orders', 'shop.orders' or ['shop', 'orders']
   * @param {object} where columns and their values: null is IS NULL, an array is any of it
   * @param {object} [options]
   * @param {boolean} [options.skipLocked=false] leaves out rows that others have locked
   * @param {boolean} [options.noWait=false] does not wait for them: a LockTimeoutError, after which
   *   the transaction goes on
   * @param {boolean} [options.share=false] FOR SHARE: others may lock them so, too
   * @param {string | readonly string[]} [options.orderBy] columns
   * @param {number} [options.limit] from 1
   * @returns {Promise<object[]>} the rows
   * @throws {LockTimeoutError} with `noWait`
   */
  forUpdate(table, where, options) {
    return this.#track(async () => {
      const statement = own(forUpdate(table, where, options));
      if (options?.noWait !== true) return (await this.#run(statement)).rows;
      try {
        return (await this.#part(() => this.#run(statement))).rows;
      } catch (error) {
        if (error?.state !== LOCK_NOT_AVAILABLE) throw error;
        throw new LockTimeoutError('the rows are locked by others', { cause: error });
      }
    });
  }

  /**
   * Waits for one of PostgreSQL's advisory locks, which ends with the transaction.
   *
   * @param {number | bigint | string | readonly [number, number]} id as for pg.advisoryLock()
   * @param {object} [options]
   * @param {boolean} [options.shared=false] others that are shared may have it too
   * @param {number | string} [options.wait='10s'] up to 24 days; 0 is one attempt; Infinity
   * @returns {Promise<void>}
   * @throws {LockTimeoutError} if others held it all the time; the transaction goes on
   */
  advisoryLock(id, options) {
    return this.#track(async () => {
      checkOptions(options, LOCK_OPTIONS);
      const { shared = false, wait = WAIT_MS } = options ?? {};
      const time = duration(wait, 'options.wait', WAIT);
      const { shown } = readId(id);
      const got = time === 0 ? await this.#tryLock(id, { shared })
        : await this.#lockWithin(own(advisoryXactLock(id, { shared })), time);
      if (got) return;
      throw new LockTimeoutError(`the advisory lock ${shown} was not free within ${time} ms: ` +
        'pg.advisoryLocks() tells who holds it', { key: typeof id === 'string' ? id : shown });
    });
  }

  /**
   * One attempt for an advisory lock, which ends with the transaction.
   *
   * @param {number | bigint | string | readonly [number, number]} id as for pg.advisoryLock()
   * @param {object} [options] as for advisoryLock(), without `wait`
   * @returns {Promise<boolean>} whether it is held now
   */
  tryAdvisoryLock(id, options) {
    return this.#track(async () => {
      checkOptions(options, TRY_OPTIONS);
      return this.#tryLock(id, options);
    });
  }

  /**
   * Finishes the record of a run of `hf.once()`, if and when the transaction commits. The last
   * thing to do in it.
   *
   * @param {Run} run of a Holdfast in the same database
   * @param {unknown} [value] as the function of once() may return it: return it there as well
   * @returns {Promise<void>}
   * @throws {LockLostError} if the run has lost its claim: the transaction can only be rolled back
   */
  finishRecord(run, value) {
    return this.#track(async () => {
      const statement = own(finishRecord(run, value));
      try {
        await this.#run(statement);
      } catch (error) {
        if (error?.state !== LOST_CLAIM) throw error;
        throw new LockLostError(`the run of ${quote(run.key)} was lost: its record was taken ` +
          'over or forgotten', { key: run.key, cause: error });
      }
    });
  }

  /** What `console.log` shows. */
  [inspect.custom](depth, options) {
    return `Transaction ${inspect({ ended: this.#state === ENDED }, options)}`;
  }

  #check() {
    if (this.#state === OPEN) return;
    throw new HoldfastError('HF_EINVAL', this.#state === ENDED
      ? 'the transaction has ended: use tx only within its function, and await what it returns'
      : 'a tx.transaction() of it is at work: use the tx that its function gets, or await it');
  }

  #track(fn) {
    const promise = this.#follow(fn, () => this.#pending.delete(promise));
    this.#pending.add(promise);
    return promise;
  }

  // Without a reaction of ours to the promise: V8 would not know any more who awaits it.
  async #follow(fn, over) {
    try {
      return await fn();
    } catch (error) {
      throw traced(error);
    } finally {
      over();
    }
  }

  async #run(statement) {
    this.#check();
    return this.#send(statement);
  }

  async #send(statement) {
    try {
      return await this.#session.run(statement);
    } catch (error) {
      if (this.#session.owns(error)) this.#failure ??= error;
      throw error;
    }
  }

  async #tryLock(id, options) {
    const statement = own(advisoryXactLock(id, options, 'pg_try_advisory_xact_lock'));
    return (await this.#run(statement)).rows[0].locked === 'true';
  }

  // What may fail without an end of the transaction.
  async #part(fn) {
    this.#check();
    const { doom } = this.#session;
    const failure = this.#failure;
    const name = this.#session.nextSavepoint();
    // All three on their way at once: in a transaction that has failed the last is refused.
    const parts = [this.#session.command(`SAVEPOINT ${name}`), fn(),
      this.#session.command(`RELEASE SAVEPOINT ${name}`)];
    parts.forEach((each) => each.catch(noop));
    try {
      await parts[0];
      const result = await parts[1];
      await parts[2];
      return result;
    } catch (error) {
      await Promise.allSettled(parts);
      await this.#backTo(name, doom, failure).catch(noop);
      throw error;
    }
  }

  async #backTo(name, doom, failure) {
    await this.#session.command(`ROLLBACK TO SAVEPOINT ${name}`);
    await this.#session.command(`RELEASE SAVEPOINT ${name}`);
    this.#session.doom = doom;
    this.#failure = failure;
  }

  async #within(fn) {
    const session = this.#session;
    const { doom } = session;
    const failure = this.#failure;
    const name = session.nextSavepoint();
    const inner = new Transaction(session);
    let begun = false;
    try {
      await session.command(`SAVEPOINT ${name}`);
      begun = true;
      const result = await runFunction(inner, fn);
      if (session.doom !== doom) throw session.doom;
      await endInner(session, name, inner);
      return result;
    } catch (error) {
      close(inner);
      if (begun) await this.#backTo(name, doom, failure).catch(noop);
      throw error;
    } finally {
      if (this.#state === INNER) this.#state = OPEN;
    }
  }

  // lock_timeout is set for the one statement, and what it was is kept beside it; if the wait is
  // over the savepoint has it all back.
  async #lockWithin(statement, time) {
    const set = (name, value) => this.#run(own({
      text: `SELECT set_config('${name}', ${value}, true)`,
    }));
    try {
      await this.#part(() => {
        const before = [set('holdfast.lock_timeout', 'current_setting(\'lock_timeout\')'),
          set('lock_timeout', `'${time === Infinity ? 0 : time}'`)];
        const locked = this.#run(statement);
        return Promise.all([...before, locked,
          set('lock_timeout', 'current_setting(\'holdfast.lock_timeout\')')]);
      });
      return true;
    } catch (error) {
      if (error?.state === LOCK_NOT_AVAILABLE) return false;
      throw error;
    }
  }
}

/**
 * Runs the function, and sees to it that it has left nothing behind.
 *
 * @param {() => void} [cancel] what is left behind, if there is no more to be done then
 */
async function runFunction(tx, fn, cancel = noop) {
  const pending = pendingOf(tx);
  let result;
  try {
    result = await fn(tx);
  } catch (error) {
    close(tx);
    if (pending.size > 0) cancel();
    await Promise.allSettled(pending);
    throw error;
  }
  close(tx);
  if (pending.size === 0) return result;
  const { size } = pending;
  cancel();
  await Promise.allSettled(pending);
  throw unawaited(size);
}

async function endInner(session, name, inner) {
  try {
    await session.command(`RELEASE SAVEPOINT ${name}`);
  } catch (error) {
    if (error?.state !== IN_FAILED) throw error;
    throw wentOn(error, failureOf(inner));
  }
}

async function commit(session, tx) {
  if (session.doom !== null) {
    await session.rollBack();
    throw session.doom;
  }
  if (session.aborted) {
    await session.rollBack();
    throw session.reason;
  }
  try {
    await session.end(true);
  } catch (error) {
    if (error?.state !== IN_FAILED) throw error;
    throw wentOn(error, failureOf(tx));
  }
}

async function attempt(session, fn, timeout) {
  const { client } = session;
  try {
    await session.begin(timeout);
  } catch (error) {
    throw nameCause(error, client);
  }
  const tx = new Transaction(session);
  const here = { client, outer: within.getStore(), isOver: false };
  try {
    const result = await within.run(here, () => runFunction(tx, fn, () => session.cancel()))
      .catch(async (error) => {
        await session.rollBack();
        throw error;
      });
    await commit(session, tx);
    return result;
  } finally {
    here.isOver = true;
  }
}

/** Whether it failed because of others, by the error itself or by what it was made of. */
function mayRetry(error, session) {
  for (let each = error, depth = 0; each instanceof Error && depth < 10; depth++) {
    if (session.owns(each) && each instanceof SqlError && AGAIN.has(each.state)) {
      return !each.outcomeUnknown;
    }
    each = each.cause;
  }
  return false;
}

/**
 * Runs `fn` in a transaction, again where it failed because of others.
 *
 * @param {object} plan what transactionPlan() made
 */
async function runTransaction(client, plan, fn) {
  const end = plan.timeout === Infinity ? Infinity : performance.now() + plan.timeout;
  for (let retry = 0; ; retry++) {
    const session = new Session(client, plan);
    try {
      return await attempt(session, fn, Math.ceil(end - performance.now()));
    } catch (error) {
      if (retry >= plan.retries || !mayRetry(error, session)) throw error;
      const most = Math.min(PAUSE_MIN_MS * 2 ** retry, PAUSE_MAX_MS);
      const pause = Math.random() * most;
      if (performance.now() + pause + 1 >= end) throw error;
      await sleep(pause);
      if (session.aborted) throw session.reason;
    }
  }
}

module.exports = { DEFAULTS, Transaction, runTransaction, transactionPlan };
