import type { Duration, Holdfast, HoldfastOptions, Lock, Run } from './index.js';

export { SqlError } from './index.js';

/** A row as an object, by the names of its columns. */
export type SqlRow = Record<string, any>;

/** A statement as text with `$1`, `$2` ..., and what they stand for. */
export interface SqlStatement {
  text: string;
  values: unknown[];
}

/** How a statement is run. */
export interface SqlQueryOptions {
  /** From the call; then it is cancelled, and has no effect. From 1 ms. Default `Infinity`. */
  timeout?: Duration | undefined;
  /** Cancels it: it rejects with the signal's reason, and has no effect, unless it was done. */
  signal?: AbortSignal | undefined;
  /** Rows as arrays of values. Default `'object'`. */
  rowMode?: 'object' | 'array' | undefined;
}

/** A statement and how it is run, in one object, as `pg` takes it. */
export interface SqlQuery extends SqlQueryOptions {
  text: string;
  values?: readonly unknown[] | undefined;
  /** What `pg` calls a prepared statement. It has no meaning here. */
  name?: string | undefined;
}

/** A column of a result, as `pg` tells of it. */
export interface SqlField {
  name: string;
  tableID: number;
  columnID: number;
  dataTypeID: number;
  dataTypeSize: number;
  dataTypeModifier: number;
  format: 'text';
}

/** What a statement came to, as `pg` has it. */
export interface SqlResult<R = SqlRow> {
  rows: R[];
  /** Rows that it returned, inserted, updated or deleted; null where it is not of that kind. */
  rowCount: number | null;
  fields: SqlField[];
  /** Its first word: `'UPDATE'`. */
  command: string;
}

/** Runs a statement. */
export interface SqlRunner {
  <R = SqlRow>(strings: TemplateStringsArray, ...values: unknown[]): Promise<SqlResult<R>>;
  <R = SqlRow>(
    sql: string,
    params?: readonly unknown[] | null,
    options?: SqlQueryOptions,
  ): Promise<SqlResult<R>>;
  <R = SqlRow>(sql: SqlQuery, params?: readonly unknown[] | null): Promise<SqlResult<R>>;
}

/** `'orders'`, `'shop.orders'`, or `['shop', 'orders']`. */
export type SqlTable = string | readonly string[];
/** Columns and values; null is `IS NULL`, an array is any of it. */
export type SqlWhere = Record<string, unknown>;

export interface TransactionOptions {
  /** Default: the database's. */
  isolation?: 'read committed' | 'repeatable read' | 'serializable' | undefined;
  /** Default false. */
  readOnly?: boolean | undefined;
  /** How often it is run again at most after a SQLSTATE 40001 or 40P01: 0 to 10,000. Default 5. */
  retries?: number | undefined;
  /**
   * From the call, the wait for a connection and all repetitions included: from 1 ms. Default
   * `Infinity`.
   */
  timeout?: Duration | undefined;
  /** Cancels it; it rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

export interface UpsertOptions {
  /** The columns of the row that are unique. */
  key: string | readonly string[];
  /**
   * What changes where the row is there: columns of it, by default all but the key; or columns and
   * values; false: nothing.
   */
  update?: false | readonly string[] | Record<string, unknown> | undefined;
}

export interface UpdateVersionedOptions {
  /** What names the row. */
  where: SqlWhere;
  /** Columns and their new values. */
  set: Record<string, unknown>;
  /** The one that was read. */
  version: number | string | bigint;
  /** Of the version, a whole number. Default `'version'`. */
  column?: string | undefined;
  retries?: undefined;
}

export interface ChangeVersionedOptions<R = SqlRow> {
  /** What names the row. */
  where: SqlWhere;
  /** Says what to change in the row as it is; again if somebody came between. */
  set: (row: R) => Record<string, unknown> | Promise<Record<string, unknown>>;
  /** Of the version, a whole number. Default `'version'`. */
  column?: string | undefined;
  /** How often it is done again at most: 0 to 10,000. Default 30. */
  retries?: number | undefined;
  version?: undefined;
}

export interface ForUpdateOptions {
  /** Leaves out rows that others have locked. Default false. */
  skipLocked?: boolean | undefined;
  /** Does not wait for them: a LockTimeoutError, after which the transaction goes on. */
  noWait?: boolean | undefined;
  /** `FOR SHARE`: others may lock them so, too. Default false. */
  share?: boolean | undefined;
  /** Columns. */
  orderBy?: string | readonly string[] | undefined;
  /** From 1. */
  limit?: number | undefined;
}

export interface TransactionLockOptions {
  /** Others that are shared may have it too. Default false. */
  shared?: boolean | undefined;
  /** How long to wait: 0 is one attempt; up to 24 days, or Infinity. Default `'10s'`. */
  wait?: Duration | undefined;
}

export type FencedUpdateOptions = {
  /** Columns and their new values. */
  set: Record<string, unknown>;
  /** What names the row. */
  where: SqlWhere;
  /** Where the row remembers the newest fence that it has seen: a bigint. Default `'fence'`. */
  column?: string | undefined;
} & (
  | {
    /** An exclusive one of one key. */
    lock: Lock;
    fence?: undefined;
  }
  | {
    lock?: undefined;
    /** That of a lock, maybe of another process. */
    fence: number;
  }
);

/**
 * The guards as plain statements, for a client of one's own. What they ask for they see to
 * themselves, by an error of the server that fails the transaction they are in.
 */
export interface SqlStatements {
  /**
   * Finishes the record of a run of `once()`, if and when the transaction commits: the last of it.
   * A run that has lost its claim fails it, with the SQLSTATE `HF001`.
   */
  finishRecord(run: Run, value?: unknown): { text: string; values: string[] };
  /** Updates one row that has seen no newer fence; else it fails, with the SQLSTATE `22P02`. */
  fencedUpdate(table: SqlTable, options: FencedUpdateOptions): SqlStatement;
  /** A statement that must affect exactly one row; else it fails, with the SQLSTATE `22P02`. */
  affectOne(text: string, values?: readonly unknown[]): SqlStatement;
  /** As `pg.updateVersioned()`; it fails, with the SQLSTATE `22P02`, if the version is another. */
  updateVersioned(table: SqlTable, options: UpdateVersionedOptions): SqlStatement;
  /** As `pg.upsert()`; whether it inserted is the column `holdfast_inserted`. */
  upsert(table: SqlTable, row: Record<string, unknown>, options: UpsertOptions): SqlStatement;
  /** As `tx.forUpdate()`. */
  forUpdate(table: SqlTable, where: SqlWhere, options?: ForUpdateOptions): SqlStatement;
  /** `pg_advisory_xact_lock()`. */
  advisoryXactLock(id: AdvisoryId, options?: { shared?: boolean | undefined }): SqlStatement;
}

/** A transaction, or a part of one, as its function sees it. */
export class Transaction {
  private constructor();
  /** Aborts when it cannot be committed any more: `signal`, `timeout`, or its connection broke. */
  readonly signal: AbortSignal;
  /** Runs a statement in it. */
  readonly query: SqlRunner;
  /** A part that may fail by itself: a savepoint. */
  transaction<T>(fn: (tx: Transaction) => T | Promise<T>): Promise<T>;
  /** Runs a statement that must affect exactly one row. @throws {ConflictError} */
  readonly affectOne: SqlRunner;
  /** As `pg.upsert()`. */
  upsert<R = SqlRow>(table: SqlTable, row: Record<string, unknown>, options: UpsertOptions):
  Promise<{ row: R; inserted: boolean }>;
  /** As `pg.updateVersioned()`. @throws {ConflictError} */
  updateVersioned<R = SqlRow>(table: SqlTable, options: UpdateVersionedOptions): Promise<R>;
  /** Reads rows and locks them until the end. @throws {LockTimeoutError} with `noWait` */
  forUpdate<R = SqlRow>(table: SqlTable, where: SqlWhere, options?: ForUpdateOptions): Promise<R[]>;
  /** Waits for an advisory lock, which ends with the transaction. @throws {LockTimeoutError} */
  advisoryLock(id: AdvisoryId, options?: TransactionLockOptions): Promise<void>;
  /** One attempt. */
  tryAdvisoryLock(id: AdvisoryId, options?: { shared?: boolean | undefined }): Promise<boolean>;
  /**
   * Finishes the record of a run of `once()`, if and when it commits: the last thing in it.
   * @throws {LockLostError} if the run has lost its claim
   */
  finishRecord(run: Run, value?: unknown): Promise<void>;
}

/**
 * What an advisory lock is named by. A safe integer, or a bigint of 64 bits: PostgreSQL's
 * `pg_advisory_lock(bigint)`. Two ints of 32 bits: `pg_advisory_lock(int, int)`, which is another
 * space. A string stands for the bigint `advisoryId(id)`.
 */
export type AdvisoryId = number | bigint | string | readonly [number, number];

/** `AdvisoryLockOptions` without how long to wait. */
export interface TryAdvisoryLockOptions {
  /** Others that are shared may have it too. Default false. */
  shared?: boolean | undefined;
  /** Ends the wait; the promise rejects with its reason. */
  signal?: AbortSignal | undefined;
  /**
   * On a connection of its own, where it waits in PostgreSQL's queue. Default false: all share one
   * connection, and who waits for another process asks again every 5 to 50 ms.
   */
  dedicated?: boolean | undefined;
}

export interface AdvisoryLockOptions extends TryAdvisoryLockOptions {
  /** How long to wait, from the call: 0 is one attempt, Infinity until `signal` aborts. Default `'10s'`. */
  wait?: Duration | undefined;
}

/** One of PostgreSQL's advisory locks that is held, until `release()` or until its session ends. */
export class AdvisoryLock implements AsyncDisposable {
  private constructor();
  /** What was locked, as it was asked for. */
  readonly id: AdvisoryId;
  readonly shared: boolean;
  /** Aborts with a LockLostError in the loop turn in which the end of the session was seen. */
  readonly signal: AbortSignal;
  /**
   * Exact at any instant. It ends 8 s after the last sign of life from the server, which is before
   * the server lets go of it.
   */
  readonly held: boolean;
  /** @throws {LockLostError} if it is not held */
  assertHeld(): void;
  /**
   * Resolves with false if it had been lost before. @throws {LockLostError} if the server says that
   * this session did not have it. @throws {UnavailableError} if the session ended meanwhile.
   */
  release(): Promise<boolean>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** One who holds an advisory lock of the database, or waits for it. */
export interface AdvisoryLockInfo {
  id: bigint | readonly [number, number];
  mode: 'exclusive' | 'shared';
  /** False: it waits. */
  granted: boolean;
  /** On a connection of this Holdfast's. */
  here: boolean;
  /** Of the server's process. */
  pid: number;
  applicationName: string;
  /** Milliseconds since its session began its latest statement; null if the user may not know. */
  queryAge: number | null;
  /** Milliseconds since it began to wait; null if it does not, or PostgreSQL is older than 14. */
  waiting: number | null;
}

/** What only PostgreSQL gives, beside the store. */
export class Postgres implements AsyncDisposable {
  private constructor();
  /** The Holdfast that it is a part of, also where `postgres()` has opened it. */
  readonly holdfast: Holdfast;

  /**
   * Runs one statement, as a transaction of its own. @throws {SqlError} @throws {UnavailableError}
   * @throws {HoldfastError} HF_ETIMEDOUT
   */
  readonly query: SqlRunner;
  /**
   * Runs `fn` in a transaction: committed when it returns, rolled back when it throws, run again
   * where it failed because of others. @throws {SqlError} @throws {UnavailableError}
   */
  transaction<T>(
    fn: (tx: Transaction) => T | Promise<T>,
    options?: TransactionOptions,
  ): Promise<T>;
  transaction<T>(
    options: TransactionOptions | undefined,
    fn: (tx: Transaction) => T | Promise<T>,
  ): Promise<T>;
  /** Runs a statement that must affect exactly one row, or undoes it. @throws {ConflictError} */
  readonly affectOne: SqlRunner;
  /** Inserts a row, or updates that which is there, in one statement. */
  upsert<R = SqlRow>(table: SqlTable, row: Record<string, unknown>, options: UpsertOptions):
  Promise<{ row: R; inserted: boolean }>;
  /**
   * Updates one row if nobody has changed it since it was read, and counts its version up.
   * @throws {ConflictError} with the present version, null if there is no such row
   */
  updateVersioned<R = SqlRow>(
    table: SqlTable,
    options: UpdateVersionedOptions | ChangeVersionedOptions<R>,
  ): Promise<R>;
  /** The guards as plain statements, for a client of one's own. */
  readonly statements: SqlStatements;

  /** Waits until the lock is held. @throws {LockTimeoutError} @throws {UnavailableError} */
  advisoryLock(id: AdvisoryId, options?: AdvisoryLockOptions): Promise<AdvisoryLock>;
  /** One attempt; null if others hold it, or wait for it here. */
  tryAdvisoryLock(id: AdvisoryId, options?: TryAdvisoryLockOptions): Promise<AdvisoryLock | null>;
  /** Runs `fn` while the lock is held. @throws {LockLostError} if it was lost meanwhile */
  withAdvisoryLock<T>(id: AdvisoryId, fn: (lock: AdvisoryLock) => T | Promise<T>): Promise<T>;
  withAdvisoryLock<T>(
    id: AdvisoryId,
    options: AdvisoryLockOptions | undefined,
    fn: (lock: AdvisoryLock) => T | Promise<T>,
  ): Promise<T>;
  /** Who holds advisory locks of the database and who waits for them, by id. */
  advisoryLocks(): Promise<AdvisoryLockInfo[]>;

  /** Closes what `postgres(url)` has opened. @throws {TypeError} if it was made of a Holdfast */
  close(options?: { timeout?: Duration | undefined }): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** What only PostgreSQL gives, on a Holdfast on a `postgres:` URL: of one always the same. */
export function postgres(hf: Holdfast): Postgres;
/** The same on a Holdfast that this opens; `close()` closes it. */
export function postgres(url: string, options?: HoldfastOptions): Postgres;

/** The guards as plain statements, for a client of one's own. */
export const statements: SqlStatements;

/**
 * The bigint that stands for a string: the first 8 bytes of the SHA-256 of its UTF-8, the highest
 * first, with a sign. In SQL:
 * `('x' || encode(substr(sha256(convert_to('name', 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint`.
 */
export function advisoryId(name: string): bigint;
