import { EventEmitter } from 'node:events';
import type { Duration, HoldfastOptions } from './index.js';

// The class is what `require` gives and what `import Redlock` does; the names of redlock 4
// (`Redlock.Lock`) and of redlock 5 (`import { Lock }`) are those of the namespace.
export = Redlock;

/**
 * Redlock, as versions 4 and 5 of the package `redlock` have it, on the locks of Holdfast.
 *
 * With a string for a resource, or a callback, a call is one of redlock 4.
 */
declare class Redlock extends EventEmitter<Redlock.RedlockEvents> {
  /**
   * @param clients one for each node, at most 15. Holdfast reads their options, and opens
   *   connections of its own. Several are a quorum; one is a store by itself, and may be a Cluster.
   */
  constructor(clients: Iterable<Redlock.Client>, settings?: Redlock.Options);

  /** The clients, as redlock 5 has them. */
  readonly clients: Set<Redlock.Client>;
  /** The clients, as redlock 4 has them. */
  readonly servers: Redlock.Client[];
  readonly settings: Redlock.Settings;
  readonly driftFactor: number;
  readonly retryCount: number;
  readonly retryDelay: number;
  readonly retryJitter: number;

  /** Takes a lock, as redlock 4 does. @throws {LockError} */
  acquire(
    resource: string | readonly string[],
    ttl: number,
    callback: Redlock.Callback<Redlock.LegacyLock>,
  ): Promise<Redlock.LegacyLock>;
  /** Takes a lock of all the resources, or of none. @throws {ExecutionError} */
  acquire(
    resources: readonly string[],
    duration: number,
    settings?: Partial<Redlock.Settings>,
  ): Promise<Redlock.Lock>;
  /** Takes a lock, as redlock 4 does. @throws {LockError} */
  acquire(resource: string, ttl: number): Promise<Redlock.LegacyLock>;
  /** Takes a lock, as redlock 4 does. @throws {LockError} */
  lock(
    resource: string | readonly string[],
    ttl: number,
    callback?: Redlock.Callback<Redlock.LegacyLock>,
  ): Promise<Redlock.LegacyLock>;
  /** As `lock`, with settings for this call. @throws {LockError} */
  lockWithOptions(
    resource: string | readonly string[],
    ttl: number,
    options: Partial<Redlock.Settings>,
    callback?: Redlock.Callback<Redlock.LegacyLock>,
  ): Promise<Redlock.LegacyLock>;
  /** As `lock`, with settings for this call. @throws {LockError} */
  acquireWithOptions(
    resource: string | readonly string[],
    ttl: number,
    options: Partial<Redlock.Settings>,
    callback?: Redlock.Callback<Redlock.LegacyLock>,
  ): Promise<Redlock.LegacyLock>;
  /** For bluebird's `using`. The handler hears of a lock that could not be released. */
  disposer(
    resource: string | readonly string[],
    ttl: number,
    unlockErrorHandler?: Redlock.Callback<void>,
  ): Redlock.Disposer;

  /** Gives a lock back. @throws {ExecutionError} if its time was over */
  release(lock: Redlock.Lock, callback: Redlock.Callback<void>): Promise<void>;
  release(lock: Redlock.Lock, settings?: Partial<Redlock.Settings>): Promise<Redlock.ExecutionResult>;
  /** Gives a lock back, as redlock 4 does. @throws {LockError} if its time was over */
  unlock(lock: Redlock.Lock, callback?: Redlock.Callback<void>): Promise<void>;

  /**
   * Makes a lock last for `duration` from now. Resolves with another one, while the `expiration` of
   * the old one is 0; in calls of redlock 4 with the same. @throws {ExecutionError} @throws {LockError}
   */
  extend(
    lock: Redlock.Lock,
    ttl: number,
    callback: Redlock.Callback<Redlock.LegacyLock>,
  ): Promise<Redlock.LegacyLock>;
  extend<L extends Redlock.Lock>(
    lock: L,
    duration: number,
    settings?: Partial<Redlock.Settings>,
  ): Promise<L>;

  /**
   * Runs a routine while the lock is held, however long that takes. The signal aborts when the lock
   * cannot be extended, while some of its time is left. @throws {ExecutionError}
   */
  using<T>(
    resources: readonly string[],
    duration: number,
    settings: Partial<Redlock.Settings> | undefined,
    routine: (signal: Redlock.RedlockAbortSignal) => T | Promise<T>,
  ): Promise<T>;
  using<T>(
    resources: readonly string[],
    duration: number,
    routine: (signal: Redlock.RedlockAbortSignal) => T | Promise<T>,
  ): Promise<T>;

  /** Closes the connections, releases what is held, and calls `quit()` of the clients. */
  quit(callback?: Redlock.Callback<unknown[]>): Promise<unknown[]>;
}

declare namespace Redlock {
  export { Redlock as default, Redlock };

  /** What redlock 5 and 4 have both. */
  export interface Settings {
    /** How far clocks may drift apart, as a part of the duration. Default 0.01. */
    readonly driftFactor: number;
    /** How often to try again; -1: for ever. Default 10. */
    readonly retryCount: number;
    /** Milliseconds between two attempts. Default 200. */
    readonly retryDelay: number;
    /** Milliseconds, at random, that it is more or less. Default 100. */
    readonly retryJitter: number;
    /**
     * Milliseconds: the signal of `using` aborts when half of it, or a sixth of the duration, is
     * left and nothing has been extended. Default 500.
     */
    readonly automaticExtensionThreshold: number;
  }

  export interface Options {
    /** How far clocks may drift apart, as a part of the duration. Default 0.01. */
    driftFactor?: number | undefined;
    /** How often to try again; -1: for ever. Default 10. */
    retryCount?: number | undefined;
    /** Milliseconds between two attempts. Default 200. */
    retryDelay?: number | undefined;
    /** Milliseconds, at random, that it is more or less. Default 100. */
    retryJitter?: number | undefined;
    /**
     * Milliseconds: the signal of `using` aborts when half of it, or a sixth of the duration, is
     * left and nothing has been extended. Default 500.
     */
    automaticExtensionThreshold?: number | undefined;
    /**
     * The longest duration, 50 ms to 24 h. For so long a node of a quorum that has restarted has no
     * vote. Default `'5m'`; with one client `'24h'`.
     */
    maxTtl?: Duration | undefined;
    /** For Holdfast's own connections; counts more than what the clients say. */
    connection?: Omit<HoldfastOptions, 'maxTtl'> | undefined;
  }

  export interface RedlockEvents {
    /** Every vote against, that of a node where it is locked too: then it is a ResourceLockedError. */
    error: [error: any];
    /** As redlock 4 has it: without those that say that it is locked. */
    clientError: [error: any];
  }

  /** A client of ioredis or node-redis, as far as it matters here. */
  export interface CompatibleRedisClient {
    options?: any;
    quit?(...args: any[]): any;
  }

  export type Client = CompatibleRedisClient | string | URL;

  /** A lock that is held, until it is released or its time is over. */
  export class Lock {
    private constructor();
    readonly redlock: Redlock;
    readonly resources: string[];
    /** What redlock 4 calls `resources`. */
    readonly resource: string[];
    /** What the nodes keep under each resource. */
    readonly value: string;
    /** One promise for each attempt: who voted how. */
    readonly attempts: ReadonlyArray<Promise<ExecutionStats>>;
    /** When its time is over, as `Date.now()` gives it; 0 once it is released. */
    expiration: number;
    /** Grows with every lock of a resource. Null on a quorum without `fencing`. */
    readonly fence: number | null;
    release(callback: Callback<void>): Promise<void>;
    release(settings?: Partial<Settings>): Promise<ExecutionResult>;
    unlock(callback?: Callback<void>): Promise<void>;
    extend(ttl: number, callback: Callback<LegacyLock>): Promise<LegacyLock>;
    extend(duration: number, settings?: Partial<Settings>): Promise<this>;
  }

  /** A lock that was taken by a call of redlock 4. */
  export interface LegacyLock extends Lock {
    /** A number. (`any`, so that it is a Lock, too.) */
    readonly attempts: any;
    readonly attemptsRemaining: number;
  }

  export interface ExecutionStats {
    readonly membershipSize: number;
    readonly quorumSize: number;
    readonly votesFor: Set<Client>;
    readonly votesAgainst: Map<Client, Error>;
  }

  export interface ExecutionResult {
    attempts: ReadonlyArray<Promise<ExecutionStats>>;
  }

  export type RedlockAbortSignal = AbortSignal & {
    /** Why it has aborted. */
    error?: Error | undefined;
  };

  export type Callback<T> = (error: any, value?: T) => void;

  /** What bluebird's `using` takes. */
  // @ts-ignore: whoever has no use for it may not have @types/bluebird
  export type Disposer = import('bluebird').Disposer<LegacyLock>;

  /** A call of redlock 5 had no majority. While running it is a LockError as well. */
  export class ExecutionError extends Error {
    constructor(
      message: string,
      attempts?: ReadonlyArray<Promise<ExecutionStats>>,
      options?: { cause?: unknown },
    );
    readonly name: 'ExecutionError';
    /** One promise for each attempt: who voted how. None of them rejects. */
    readonly attempts: ReadonlyArray<Promise<ExecutionStats>>;
  }

  /** A call of redlock 4 had no majority. */
  export class LockError extends Error {
    constructor(message?: string, attempts?: number, options?: { cause?: unknown });
    readonly name: string;
    /** How many were made. */
    readonly attempts: number;
  }

  /** A node says that another has the resource. */
  export class ResourceLockedError extends Error {
    constructor(message: string);
    readonly name: 'ResourceLockedError';
  }
}
