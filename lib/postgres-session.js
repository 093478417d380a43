'use strict';

// The addon's side of a transaction: a session of the pool from BEGIN to its end.

const aborts = require('./aborts');
const binding = require('./binding');
const slots = require('./slots');
const { HoldfastError, closedError, fromStatement } = require('./errors');
const { own, sendQuery } = require('./postgres-query');

const { EVENT_PG_BEGUN, RECORD_FAILED } = binding.constants;

/** One attempt of a transaction, from its wait for a connection to its end. */
class Session {
  #client;
  #plan;
  #slot = -1;
  #resolve = null;
  #reject = null;
  #onAbort = null;
  #savepoints = 0;
  #errors = new WeakSet();
  #controller = null;
  #why = null;
  #timer = undefined;
  /** Why it must not be committed: what its function went on after. */
  doom = null;

  /** @param {{ isolation: number, readOnly: boolean, signal: AbortSignal | undefined }} plan */
  constructor(client, plan) {
    this.#client = client;
    this.#plan = plan;
  }

  get client() {
    return this.#client;
  }

  get aborted() {
    return this.#plan.signal !== undefined && this.#plan.signal.aborted;
  }

  /** Aborts when nothing more can come of it: `signal`, its time is over, the connection broke. */
  get signal() {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.#why !== null) this.#controller.abort(this.#why.reason);
    }
    return this.#controller.signal;
  }

  /** What the user's signal was aborted with. */
  get reason() {
    return this.#plan.signal.reason;
  }

  /** Whether `error` came from one of its statements, or from its end. */
  owns(error) {
    return typeof error === 'object' && error !== null && this.#errors.has(error);
  }

  nextSavepoint() {
    return `holdfast_${++this.#savepoints}`;
  }

  /** Resolves when it has a connection. */
  begin(timeout) {
    const { isolation, readOnly, signal } = this.#plan;
    if (this.#client.closed) return Promise.reject(closedError());
    if (this.aborted) return Promise.reject(signal.reason);
    return this.#ask(() => {
      this.#slot = slots.take(this);
      const failure = binding.pgBegin(
        this.#client.slot, this.#slot, isolation, readOnly ? 1 : 0, timeout);
      if (failure === null) this.#watch(signal, timeout);
      return failure;
    });
  }

  #watch(signal, timeout) {
    if (timeout !== Infinity) {
      const late = new HoldfastError('HF_ETIMEDOUT', 'the transaction took too long: see timeout');
      this.#timer = setTimeout(() => this.#fail(late), timeout).unref();
    }
    if (signal === undefined) return;
    this.#onAbort = () => {
      this.#onAbort = null;
      binding.pgCancelTx(this.#slot);
      this.#fail(signal.reason);
    };
    aborts.listen(signal, this.#onAbort);
  }

  #unwatch() {
    clearTimeout(this.#timer);
    if (this.#onAbort !== null) aborts.unlisten(this.#plan.signal, this.#onAbort);
    this.#onAbort = null;
  }

  #fail(reason) {
    if (this.#why !== null) return;
    this.#why = { reason };
    if (this.#controller !== null) this.#controller.abort(reason);
  }

  /** A statement, as readStatement() makes it. They run in the order of the calls. */
  async run(statement) {
    try {
      return await sendQuery(statement, (slot, text, params, timeout) =>
        binding.pgTxQuery(this.#slot, slot, text, params, timeout));
    } catch (error) {
      throw this.#remember(error);
    }
  }

  /** A statement of ours without parameters. */
  command(text) {
    return this.run(own({ text }));
  }

  /** Nothing but its end is of any use any more. */
  cancel() {
    binding.pgCancelTx(this.#slot);
  }

  /** Commits or rolls back. Rejects if it was not committed, or that is not known. */
  end(commit) {
    this.#unwatch(); // from here on it is too late to give up
    return this.#ask(() => binding.pgEnd(this.#slot, commit ? 1 : 0));
  }

  /** Rolls back. Where that does not reach the server, the connection's end does it. */
  async rollBack() {
    try {
      await this.end(false);
    } catch {
      // Whoever called has a more important error to tell of.
    }
  }

  #ask(start) {
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
      const failure = start();
      if (failure === null) return;
      this.#over();
      reject(this.#remember(fromStatement([failure])));
    });
  }

  [slots.ON](event, result) {
    const failed = (result.flags & RECORD_FAILED) !== 0;
    if (event !== EVENT_PG_BEGUN || failed) this.#over();
    if (failed) this.#reject(this.#remember(fromStatement(result.extra)));
    else this.#resolve();
  }

  #over() {
    this.#unwatch();
    slots.give(this.#slot);
  }

  #remember(error) {
    if (error?.code === 'HF_ECANCELED' && this.aborted) return this.#plan.signal.reason;
    if (typeof error === 'object' && error !== null) this.#errors.add(error);
    if (error?.code === 'HF_EUNAVAIL' || error?.code === 'HF_ECLOSED') this.#fail(error);
    return error;
  }
}

module.exports = { Session };
