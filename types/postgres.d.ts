import type { Duration, Holdfast, HoldfastOptions } from './index.js';

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

/**
 * The bigint that stands for a string: the first 8 bytes of the SHA-256 of its UTF-8, the highest
 * first, with a sign. In SQL:
 * `('x' || encode(substr(sha256(convert_to('name', 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint`.
 */
export function advisoryId(name: string): bigint;
