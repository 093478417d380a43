import { EventEmitter } from 'node:events';

/** Milliseconds, or a string such as `'30s'`, `'5m'`, `'24h'`. */
export type Duration = number | string;

/** What an operation may return to be kept: JSON, bytes, or nothing. */
export type JsonValue =
  | string
  | number
  | boolean
  | null
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue | undefined };

/**
 * How a connection is encrypted and whom it trusts. Certificates and keys are PEM: the text itself,
 * such as `fs.readFileSync()` gives, not the name of a file.
 */
export interface TlsOptions {
  /** The authorities to trust instead of the system's. */
  ca?: string | Uint8Array | readonly (string | Uint8Array)[] | undefined;
  /** The certificate to show the server, with its chain; goes with `key`. */
  cert?: string | Uint8Array | undefined;
  /** The private key of `cert`, without a passphrase. */
  key?: string | Uint8Array | undefined;
  /** The name (or IP address) that the server's certificate must be for. Default: the host connected to. */
  servername?: string | undefined;
  /**
   * With false neither the certificate nor its name is verified, and anyone in between can read and
   * change everything. Default true.
   */
  rejectUnauthorized?: boolean | undefined;
}

/** What is for stores on Redis only; most can stand in the URL too, where the option counts more. */
export interface RedisOptions {
  /** Encrypts the connections, as a URL of `rediss:` does by itself. Default false. */
  tls?: boolean | TlsOptions | undefined;
  /** How long connecting may take, the TLS handshake and signing in included: 10 ms to 1 h. Default `'5s'`. */
  connectTimeout?: Duration | undefined;
  /**
   * How long a server may take to answer: 10 ms to 1 h. After that the connection is given up, and
   * what was under way fails with `outcomeUnknown`. Default `'5s'`.
   */
  commandTimeout?: Duration | undefined;
  /** Of an ACL user. Default: the server's default user. */
  username?: string | undefined;
  /**
   * A function is for a password that changes, such as a token of a cloud. It is called when a
   * connection is made and its last answer is a minute old, or was refused by the server, and may
   * take its time within `connectTimeout`. Where it fails, so does what needs the connection
   * (`HF_ECALLBACK`). Default: none.
   */
  password?: string | (() => string | Promise<string>) | undefined;
  /** The number of the database: 0 to 65,535; on a Cluster 0. Default 0. */
  db?: number | undefined;
  /**
   * What the names of all keys in Redis begin with, at most 128 bytes without NUL; braces only as
   * one whole `{tag}`. With `''` a lock excludes any Redlock client on the same key. Default
   * `'holdfast:'`.
   */
  prefix?: string | undefined;
  /** So many replicas must have a lock before it counts as taken: 0 to 16. Default 0. */
  waitReplicas?: number | undefined;
  /**
   * Keep values and records on a server that may evict them when its memory is full. Default false:
   * they fail with `HF_ENOTSUP` there.
   */
  allowEviction?: boolean | undefined;
  /** To sign in at the Sentinels. Default: none. */
  sentinelUsername?: string | undefined;
  /** To sign in at the Sentinels. Default: none. */
  sentinelPassword?: string | undefined;
}

/** What is for a quorum of Redis nodes only, beside what is for Redis. */
export interface QuorumOptions {
  /**
   * The longest `ttl` that a lock may have, and how long a node that may have forgotten something has
   * no vote: 50 ms to 24 h. Default `'5m'`.
   */
  maxTtl?: Duration | undefined;
  /** How long one node is waited for: 1 ms to 1 h. Default: 5 % of the `ttl`, at least 10 ms. */
  nodeTimeout?: Duration | undefined;
  /** Whether locks have a fence, for up to one round trip more. Default false. */
  fencing?: boolean | undefined;
}

/**
 * What is for stores on PostgreSQL only, beside `connectTimeout`, `commandTimeout`, `username` and
 * `password`. What else libpq takes stands in the URL, by libpq's names.
 */
export interface PostgresOptions {
  /**
   * Where the tables are: a name of small letters, digits and `_`, at most 40. Default `'holdfast'`.
   */
  schema?: string | undefined;
  /**
   * Whether the server has leases on its disk before it says that they are taken. `'relaxed'` is
   * faster, but a server that crashes may forget who has a lock. Values and records are always durable.
   * Default `'durable'`.
   */
  leases?: 'durable' | 'relaxed' | undefined;
  /**
   * How a pooler between here and the server lends its connections. Default: it is found out whether
   * there is one, and taken for one that does so for each transaction.
   */
  pooler?: 'session' | 'transaction' | undefined;
  /**
   * How many connections there may be for statements and transactions of `holdfast/postgres`: 1 to
   * 1,000. Default 10.
   */
  max?: number | undefined;
  /** When one of them that nobody has used is closed: 10 ms to 1 h. Default `'10s'`. */
  idleTimeout?: Duration | undefined;
}

/**
 * How often, and for how long, a lock passes among those of this process who wait for it, while
 * another process is known to wait for it too; and what is for one kind of store.
 */
export interface HoldfastOptions extends RedisOptions, QuorumOptions, PostgresOptions {
  /** In a row at most: 0 to 1,000,000. Default 16. */
  handoffs?: number | undefined;
  /** For so long at most: 0, or Infinity. Default `'100ms'`. */
  handoffTime?: Duration | undefined;
}

/** `LockOptions` without those that say who else may hold it. */
export interface LockSettings {
  /** How long after a crash the lock stays taken: 50 ms to 24 h. Default `'30s'`. */
  ttl?: Duration | undefined;
  /** How long to wait, from the call: 0 is one attempt, Infinity until `signal` aborts. Default `'10s'`. */
  wait?: Duration | undefined;
  /** Renew until release. Default true; with false it ends when `ttl` has passed. */
  renew?: boolean | undefined;
  /** How long it may be held at most, from 50 ms. Default Infinity. */
  maxHold?: Duration | undefined;
  /** How long the event loop may be stuck before the lock is given up, from 50 ms. Default `'60s'`. */
  maxStall?: Duration | undefined;
  /** Ends the wait; the promise rejects with its reason. */
  signal?: AbortSignal | undefined;
  /** What `inspect()` shows others, at most 256 bytes. Default `''`. */
  note?: string | undefined;
}

/** Who else may hold the lock at the same time: one of the two, or neither. */
export type LockSharing =
  | {
    /** `'shared'`: any number may. Default `'exclusive'`: nobody else. */
    mode?: LockMode | undefined;
    permits?: undefined;
  }
  | {
    mode?: undefined;
    /** So many may hold it in all: 1 to 1,000,000. */
    permits?: number | undefined;
  };

export type LockMode = 'exclusive' | 'shared';
export type LockOptions = LockSettings & LockSharing;
export type TryLockOptions = Omit<LockSettings, 'wait'> & LockSharing;

/** A lock that is held, until `release()` or until its lease is lost. */
export interface Lock extends AsyncDisposable {
  /** In the order in which they were given. */
  readonly keys: readonly string[];
  /** 32 hexadecimal digits that name this holder. */
  readonly token: string;
  /** Grows with every take of each of its keys. Null where the store has none. */
  readonly fence: number | null;
  /**
   * Aborts with a `LockLostError` in the first loop turn after the loss; never by a release. That of
   * a leader aborts with an `AbortError` when it is to stop.
   */
  readonly signal: AbortSignal;
  /** Exact at any instant, also within one long synchronous function. */
  readonly held: boolean;
  /** Milliseconds until the lease ends if it is not renewed again; 0 when it is not held. */
  remaining(): number;
  /** @throws {LockLostError} if it is not held */
  assertHeld(): void;
  /** Sets the lease to `ttl` from now, and later renewals too. @throws {LockLostError} */
  extend(ttl?: Duration): Promise<void>;
  /**
   * Resolves with false if the lease was lost, or was released before. Rejects if the store could
   * not be told: the lease then ends by itself.
   */
  release(): Promise<boolean>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** What guards a write: an exclusive lock of one key, or what is known of one in another process. */
export type FenceLike = Lock | Fence;

export interface Fence {
  /** The key of the lock. */
  key: string;
  fence: number;
}

export interface HolderInfo {
  token: string;
  fence: number | null;
  /** Milliseconds until its lease ends unless it is renewed. */
  remaining: number;
  since: Date;
  pid: number | null;
  host: string;
  note: string;
  /** `'shared'` also with several permits. */
  mode: LockMode;
  /** How many may hold it at a time; null: any number. */
  permits: number | null;
}

/** A caller of this process that waits. */
export interface WaiterInfo {
  /** Milliseconds. */
  waited: number;
  note: string;
  /** `'shared'` also with several permits. */
  mode: LockMode;
  /** How many may hold it at a time; null: any number. */
  permits: number | null;
}

export interface LockInfo {
  key: string;
  holders: HolderInfo[];
  /** How many of this process wait for it. */
  waiting: number;
  /** The first 1,000 of them, in order. */
  waiters: WaiterInfo[];
  /** How the nodes of a quorum stand; of `inspect()`, and only where the store is one. */
  nodes?: NodeInfo[];
}

/** How a node of a quorum stands. */
export interface NodeInfo {
  /** `'10.0.0.1:6379'` */
  node: string;
  /** `'unknown'`: it is being asked. */
  state: 'voting' | 'down' | 'quarantined' | 'unknown';
  /**
   * Why it is quarantined: it was started again, it was emptied (or is new), its clock has jumped;
   * null where another process has found that out.
   */
  reason: 'restarted' | 'emptied' | 'clock' | null;
  /** When its quarantine ends. */
  until: Date | null;
}

/** What one node of a quorum said. */
export interface NodeVote {
  node: string;
  /** `'open'`: it was not waited for. */
  vote: 'for' | 'against' | 'down' | 'quarantined' | 'open';
  /** Why it is not for it. */
  error: HoldfastError | null;
}

export interface LocksOptions {
  /** Only keys that start with it. Default `''`. */
  prefix?: string | undefined;
}

export interface LeaderOptions {
  /** How long after a crash until another leads: 50 ms to 24 h. Default `'30s'`. */
  ttl?: Duration | undefined;
  /** How long the event loop may be stuck before the lock is given up, from 50 ms. Default `'60s'`. */
  maxStall?: Duration | undefined;
  /** What `inspect()` shows others, at most 256 bytes. Default `''`. */
  note?: string | undefined;
  /** Stops it, as `stop()` does. */
  signal?: AbortSignal | undefined;
}

/** Stands for a lock, and runs a function whenever it is held. */
export interface Leader extends AsyncDisposable {
  readonly name: string;
  /** Exact at any instant, as `lock.held`. */
  readonly leading: boolean;
  /** Null while the function does not run. */
  readonly lock: Lock | null;
  /** Resolves when this one leads no more, nor stands. Never rejects. */
  readonly done: Promise<void>;
  /** Aborts `lock.signal`; resolves when the function has ended, or `timeout` passed, and the lock is released. */
  stop(options?: CloseOptions): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface OnceOptions {
  /** How long the result is kept: from 50 ms, or Infinity. Default `'24h'`. */
  ttl?: Duration | undefined;
  /** How long after a crash the claim lasts: 50 ms to 24 h. Default `'30s'`. */
  lease?: Duration | undefined;
  /** How long to wait for the result of another's run; 0, or Infinity. Default `'30s'`. */
  wait?: Duration | undefined;
  /** What happens after a crash: run it again, or refuse it until `forget()`. Default `'retry'`. */
  onCrash?: 'retry' | 'fail' | undefined;
  /** An error that the function throws is a result too. Default false. */
  keepErrors?: boolean | undefined;
  /** A string, bytes or JSON of the input: the key with another one is a `MismatchError`. */
  fingerprint?: string | Uint8Array | JsonValue | undefined;
  /** Ends the wait, not a run that has begun. */
  signal?: AbortSignal | undefined;
  /** Resolve with `{ value, replayed, attempt }`. Default false. */
  detail?: boolean | undefined;
}

export interface IdempotentOptions<A extends unknown[]> extends Omit<OnceOptions, 'detail'> {
  /** Makes the key of a call from its arguments. */
  key: (...args: A) => string;
}

export interface OnceDetail<T> {
  value: T;
  /** An earlier run left the value. */
  replayed: boolean;
  /** Of the run that left it: above 1 if runs before it ended without a result. */
  attempt: number;
}

/** One run of an operation, as its function sees it. */
export interface Run {
  readonly key: string;
  readonly attempt: number;
  readonly fence: number;
  readonly token: string;
  /** Aborts with a `LockLostError` when the claim was lost: another run may have begun. */
  readonly signal: AbortSignal;
}

export interface RecordBase {
  key: string;
  attempt: number;
  storedAt: Date;
  /** Null if it is kept for ever. */
  expiresAt: Date | null;
  /** Milliseconds that the running claim lasts unless it is renewed; 0 if none is running. */
  leaseLeft: number;
}

export interface UnfinishedRecordInfo extends RecordBase {
  /** `'crashed'`: its process is gone, and whether it took effect is unknown. */
  state: 'running' | 'crashed';
}

export interface DoneRecordInfo<T = unknown> extends RecordBase {
  state: 'done';
  value?: T;
  /** What the function threw, with `keepErrors`. */
  error?: Error;
}

export type RecordInfo<T = unknown> = UnfinishedRecordInfo | DoneRecordInfo<T>;

export interface Versioned<T> {
  value: T;
  version: number;
}

export interface CreateOptions {
  /** When it expires: from 1 ms, or Infinity, which is the default. */
  ttl?: Duration | undefined;
  /** Refused where a newer fence has been seen. Not undefined: that would guard nothing. */
  fence?: FenceLike;
}

export interface PutOptions {
  /** Write only if this is the present version. Not undefined: that would check nothing. */
  version?: number;
  /** Refused where a newer fence has been seen. Not undefined: that would guard nothing. */
  fence?: FenceLike;
  /** When it expires: from 1 ms. Without it never, whatever was set before. */
  ttl?: Duration | undefined;
}

export interface UpdateOptions {
  /** How often it is done again at most where other writes come between: 0 to 10,000. Default 30. */
  retries?: number | undefined;
  /** Refused where a newer fence has been seen. Not undefined: that would guard nothing. */
  fence?: FenceLike;
  /** From 1 ms, or Infinity; by default the value's time stays. */
  ttl?: Duration | undefined;
}

export interface IncrementOptions {
  min?: number;
  max?: number;
  /** What is added to where there is no value. Default 0. */
  initial?: number | undefined;
  /** Refused where a newer fence has been seen. Not undefined: that would guard nothing. */
  fence?: FenceLike;
}

export interface DeleteOptions {
  /** Delete only if this is the present version. Not undefined: that would check nothing. */
  version?: number;
  /** Refused where a newer fence has been seen. Not undefined: that would guard nothing. */
  fence?: FenceLike;
}

/** Values that change only when their condition holds. */
export interface KV {
  /** Bytes come as a Buffer, anything else as JSON. Null where there is none. */
  get<T = unknown>(key: string): Promise<Versioned<T> | null>;
  /** Resolves with the version. @throws {ConflictError} if there is one */
  create(key: string, value: unknown, options?: CreateOptions): Promise<number>;
  /** Resolves with the new version. @throws {ConflictError} @throws {StaleFenceError} */
  put(key: string, value: unknown, options?: PutOptions): Promise<number>;
  /** Replaces a value by what `fn` makes of it; `fn` may run several times. */
  update<T = unknown, U = T>(
    key: string,
    fn: (value: T | undefined) => U | Promise<U>,
    options?: UpdateOptions,
  ): Promise<Versioned<U>>;
  /** Resolves with the new number. `by` is 1 by default. @throws {BoundsError} */
  increment(key: string, by?: number, options?: IncrementOptions): Promise<number>;
  /** Resolves with false where there was none. @throws {ConflictError} */
  delete(key: string, options?: DeleteOptions): Promise<boolean>;
}

export interface CloseOptions {
  /** How long holders of locks, runs and leaders may take; 0, or Infinity. Default `'5s'`. */
  timeout?: Duration | undefined;
}

export interface HoldfastEvents {
  /** A problem that no call reports. Where nobody listens, one warning of the process for each code. */
  error: [error: HoldfastError];
  /** A node of a quorum is in another state. */
  node: [node: NodeInfo];
}

// `once` of Holdfast runs an operation: the emitter's own is not there.
declare const Emitter: new () => Omit<EventEmitter<HoldfastEvents>, 'once'>;

/** Locks, run-once operations and conditional values on one store. */
export class Holdfast extends Emitter implements AsyncDisposable {
  /** Connects at first use. Without `url`: HOLDFAST_URL, else `'sqlite:./holdfast.db'`. */
  constructor(url?: string | readonly string[], options?: HoldfastOptions);

  /**
   * Waits until the lock is held: of 1 to 64 keys, all at once.
   * @throws {LockTimeoutError} @throws {UnavailableError}
   */
  lock(key: string | readonly string[], options?: LockOptions): Promise<Lock>;
  /** One attempt, which never overtakes those of this process that wait. */
  tryLock(key: string | readonly string[], options?: TryLockOptions): Promise<Lock | null>;
  /** Runs `fn` while the lock is held. @throws {LockLostError} with `result` */
  withLock<T>(
    key: string | readonly string[],
    fn: (lock: Lock) => T | Promise<T>,
  ): Promise<T>;
  withLock<T>(
    key: string | readonly string[],
    options: LockOptions | undefined,
    fn: (lock: Lock) => T | Promise<T>,
  ): Promise<T>;
  /** Null when nobody holds it, nor waits. */
  inspect(key: string): Promise<LockInfo | null>;
  /** All locks that are held, in order of key. Asks the store for a part at a time. */
  locks(options?: LocksOptions): AsyncIterable<LockInfo>;
  /** How the nodes of a quorum stand, in order of the URLs; empty where the store is none. */
  nodes(): NodeInfo[];

  /** Runs `fn` here whenever this process holds the lock `name`; in one process at a time. */
  leader(
    name: string,
    fn: (lock: Lock) => void | Promise<void>,
    options?: LeaderOptions,
  ): Leader;

  /**
   * Runs `fn` once for `key`, in all processes together, and gives everybody its result. This is not
   * the `once` of an emitter: for events there is `on`.
   */
  once<T>(key: string, fn: (run: Run) => T | Promise<T>): Promise<T>;
  once<T>(
    key: string,
    options: OnceOptions & { detail: true },
    fn: (run: Run) => T | Promise<T>,
  ): Promise<OnceDetail<T>>;
  once<T>(
    key: string,
    options: (OnceOptions & { detail?: false | undefined }) | undefined,
    fn: (run: Run) => T | Promise<T>,
  ): Promise<T>;
  /** Makes a function that runs once for each key. */
  idempotent<A extends unknown[], T>(
    fn: (...args: A) => T | Promise<T>,
    options: IdempotentOptions<A>,
  ): (...args: A) => Promise<T>;
  /** Null if the operation was never run, or has been forgotten. */
  record<T = unknown>(key: string): Promise<RecordInfo<T> | null>;
  /** The next call runs the operation anew. Resolves with whether there was a record. */
  forget(key: string): Promise<boolean>;

  readonly kv: KV;

  /** A view of the same store whose keys begin with `name` and ':'. Closed with this one. */
  namespace(name: string): Holdfast;

  /** Removes what has expired; resolves with how many rows. */
  sweep(): Promise<number>;
  /** Resolves with the milliseconds that the store took to answer. */
  ping(): Promise<number>;
  /** Stops leaders, refuses new work, lets holders finish, then releases what is left. */
  close(options?: CloseOptions): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Opens a store and connects; rejects if it cannot. An array of 1 to 15 Redis URLs is a quorum of
 * independent nodes.
 */
export function open(
  url?: string | readonly string[],
  options?: HoldfastOptions,
): Promise<Holdfast>;

export type HoldfastErrorCode =
  | 'HF_EINVAL'
  | 'HF_ENOMEM'
  | 'HF_ENOTSUP'
  | 'HF_ECLOSED'
  | 'HF_ECANCELED'
  | 'HF_ETIMEDOUT'
  | 'HF_ELOST'
  | 'HF_ECONFLICT'
  | 'HF_ESTALE'
  | 'HF_EBOUNDS'
  | 'HF_EINPROGRESS'
  | 'HF_EMISMATCH'
  | 'HF_ECRASHED'
  | 'HF_ECALLBACK'
  | 'HF_EQUORUM'
  | 'HF_EUNAVAIL'
  | 'HF_EPROTO'
  | 'HF_ETOOBIG'
  | 'HF_ETYPE'
  | 'HF_EOVERLOAD'
  | 'HF_EBUSY'
  | 'HF_EREADONLY'
  | 'HF_EFULL'
  | 'HF_EIO'
  | 'HF_ENOENT'
  | 'HF_EACCES'
  | 'HF_ENOTADB'
  | 'HF_ESCHEMA'
  | 'HF_EMOVED'
  | 'HF_ENETFS'
  | 'HF_ESQL';

export interface HoldfastErrorDetails {
  cause?: unknown;
  retryable?: boolean;
  outcomeUnknown?: boolean;
  key?: string;
}

/** Every error that Holdfast reports, apart from a TypeError or RangeError for a bad argument. */
export class HoldfastError extends Error {
  constructor(code: HoldfastErrorCode, message?: string, details?: HoldfastErrorDetails);
  readonly code: HoldfastErrorCode;
  /** The same call may succeed later. */
  readonly retryable: boolean;
  /** The write may have landed. */
  readonly outcomeUnknown: boolean;
  /** The key that it is about. */
  readonly key?: string;
  /** errno, or the extended code of SQLite. */
  readonly native?: number;
  /** SQLSTATE or the prefix of a Redis error. */
  readonly state?: string;
  /** What the function returned, where that could not be recorded, or the lease was lost. */
  readonly result?: unknown;
}

/** The wait for a lock ended while others held it. */
export class LockTimeoutError extends HoldfastError {
  constructor(message?: string, details?: HoldfastErrorDetails);
  readonly code: 'HF_ETIMEDOUT';
  /** Milliseconds, if that is known. */
  readonly heldFor: number | null;
  readonly holder: HolderInfo | null;
}

/** A lease ended before its work did. */
export class LockLostError extends HoldfastError {
  constructor(message?: string, details?: HoldfastErrorDetails);
  readonly code: 'HF_ELOST';
}

/** The condition of a write does not hold. */
export class ConflictError extends HoldfastError {
  constructor(message?: string, details?: HoldfastErrorDetails);
  readonly code: 'HF_ECONFLICT';
  /** The present version, if that is known. */
  readonly version: number | null;
}

/** A write came with an older fence than the newest seen. */
export class StaleFenceError extends HoldfastError {
  constructor(message?: string, details?: HoldfastErrorDetails);
  readonly code: 'HF_ESTALE';
  /** The newest fence seen, if that is known. */
  readonly fence: number | null;
}

/** A counter would leave its bounds. */
export class BoundsError extends HoldfastError {
  constructor(message?: string, details?: HoldfastErrorDetails);
  readonly code: 'HF_EBOUNDS';
}

/** The operation is running elsewhere. */
export class InProgressError extends HoldfastError {
  constructor(message?: string, details?: HoldfastErrorDetails);
  readonly code: 'HF_EINPROGRESS';
  /** Milliseconds after which the claim lapses if its runner is dead. */
  readonly retryAfter: number;
}

/** The key was used before for an operation with another fingerprint. */
export class MismatchError extends HoldfastError {
  constructor(message?: string, details?: HoldfastErrorDetails);
  readonly code: 'HF_EMISMATCH';
}

/** No majority of the nodes of a quorum agreed. */
export class QuorumError extends HoldfastError {
  constructor(message?: string, details?: HoldfastErrorDetails);
  readonly code: 'HF_EQUORUM';
  /**
   * Nodes did not answer; or they had no vote; or a majority granted it and did not keep its fence; or
   * a majority came when the time to live was nearly over. Others may hold it at the rest.
   */
  readonly reason: 'down' | 'quarantined' | 'held' | 'time' | null;
  /** What each node said, in order of the URLs. */
  readonly causes: readonly NodeVote[];
}

/** The store did not answer. */
export class UnavailableError extends HoldfastError {
  constructor(message?: string, details?: HoldfastErrorDetails);
  readonly code: 'HF_EUNAVAIL';
}

/** PostgreSQL refused a statement, or to commit; what it says of that, null where it says nothing. */
export class SqlError extends HoldfastError {
  constructor(message?: string, details?: HoldfastErrorDetails & SqlErrorDetails);
  readonly code: 'HF_ESQL';
  /** The SQLSTATE, such as `'23505'`. */
  readonly state: string;
  readonly severity: string | null;
  /** It may hold values of rows. */
  readonly detail: string | null;
  readonly hint: string | null;
  readonly schema: string | null;
  readonly table: string | null;
  readonly column: string | null;
  readonly dataType: string | null;
  readonly constraint: string | null;
  readonly where: string | null;
  readonly routine: string | null;
  /** In the statement, in characters, from 1. */
  readonly position: number | null;
}

export interface SqlErrorDetails {
  state?: string;
  severity?: string | null;
  detail?: string | null;
  hint?: string | null;
  schema?: string | null;
  table?: string | null;
  column?: string | null;
  dataType?: string | null;
  constraint?: string | null;
  where?: string | null;
  routine?: string | null;
  position?: number | null;
}

/** What `diagnostics_channel` 'holdfast:lock' publishes. */
export interface LockMessage {
  event: 'wait' | 'held' | 'renewed' | 'lost' | 'released';
  /** The first of them. */
  key: string;
  keys: readonly string[];
  note: string;
  /** Not of 'wait'. */
  token?: string;
  fence?: number | null;
  /** Of 'held': milliseconds. */
  waited?: number;
  /** Of 'lost' and 'released': milliseconds. */
  heldFor?: number;
  /** Of 'lost', and of 'released' where the store could not be told. */
  error?: HoldfastError;
}

/** What `diagnostics_channel` 'holdfast:once' publishes. */
export interface OnceMessage {
  event: 'claimed' | 'replayed' | 'refused' | 'renewed' | 'lost' | 'finished' | 'abandoned';
  key: string;
  attempt?: number;
  token?: string;
  /** Of 'finished': the outcome is an error that the function threw. */
  isError?: boolean;
  /** Of 'refused' and 'lost'. */
  error?: HoldfastError;
}

/** What `diagnostics_channel` 'holdfast:kv' publishes. */
export interface KVMessage {
  event: 'get' | 'create' | 'put' | 'update' | 'increment' | 'delete';
  key: string;
  /** Milliseconds. */
  took: number;
  /** Where it failed, or its condition did not hold. */
  error?: HoldfastError;
}

/** What `diagnostics_channel` 'holdfast:quorum' publishes. */
export interface QuorumMessage extends NodeInfo {
  event: 'node';
}

/** What `diagnostics_channel` 'holdfast:store' publishes. */
export interface StoreMessage {
  event: 'open' | 'close' | 'warning';
  /** Not of 'warning'. */
  store?: string;
  /** Of 'warning'. */
  error?: HoldfastError;
}
