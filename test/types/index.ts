// The declarations, read as an application would.

import { expectTypeOf } from 'expect-type';
import {
  open, Holdfast, HoldfastError, LockTimeoutError, LockLostError, ConflictError, StaleFenceError,
  BoundsError, InProgressError, MismatchError, QuorumError, UnavailableError,
  type CloseOptions, type CreateOptions, type DeleteOptions, type DoneRecordInfo, type Duration,
  type Fence, type FenceLike, type HolderInfo, type HoldfastErrorCode, type HoldfastErrorDetails,
  type HoldfastEvents, type HoldfastOptions, type IdempotentOptions, type IncrementOptions,
  type JsonValue, type KV, type KVMessage, type Leader, type LeaderOptions, type Lock,
  type NodeInfo, type NodeVote, type QuorumMessage, type PostgresOptions, type QuorumOptions,
  type LockInfo, type LockMessage, type LockMode, type LockOptions, type LockSettings,
  type LockSharing, type LocksOptions, type OnceDetail, type OnceMessage, type OnceOptions,
  type PutOptions, type RecordBase, type RecordInfo, type RedisOptions, type Run,
  type StoreMessage, type TlsOptions, type TryLockOptions, type UnfinishedRecordInfo,
  type UpdateOptions, type Versioned, type WaiterInfo,
} from '../..';

const hf = new Holdfast('memory:');

export async function opening() {
  expectTypeOf(open).returns.resolves.toEqualTypeOf<Holdfast>();
  expectTypeOf(open).parameter(0).toEqualTypeOf<string | readonly string[] | undefined>();
  expectTypeOf(hf).toExtend<AsyncDisposable>();
  await using scoped = await open('sqlite:./x.db');
  expectTypeOf(scoped.ping()).resolves.toBeNumber();
  expectTypeOf(scoped.sweep()).resolves.toBeNumber();
  await scoped.close({ timeout: '5s' } satisfies CloseOptions);
  await open('memory:', { handoffs: 5, handoffTime: '50ms' } satisfies HoldfastOptions);
  const redis: RedisOptions = {
    tls: true, connectTimeout: '2s', commandTimeout: 500, username: 'app', password: 'secret', db: 3,
    prefix: '', waitReplicas: 1, allowEviction: true, sentinelUsername: 'app',
    sentinelPassword: 'secret',
  };
  const tls = {
    ca: ['PEM', Buffer.from('PEM')], cert: 'PEM', key: Buffer.from('PEM'), servername: 'redis.test',
    rejectUnauthorized: false,
  } satisfies TlsOptions;
  await open('rediss://redis.test', { ...redis, tls, handoffs: 1 });
  await open('rediss://redis.test', { tls: { ca: 'PEM' }, db: undefined });
  await open('redis://localhost', { password: () => 'secret' });
  await open('redis://localhost', { password: async () => 'secret' });
  // @ts-expect-error it gives a string
  await open('redis://localhost', { password: async () => 7 });
  // @ts-expect-error the function, not what it gave
  await open('redis://localhost', { password: Promise.resolve('secret') });
  // @ts-expect-error a port is part of the URL
  await open('redis://localhost', { port: 6379 });
  // @ts-expect-error there is no such option
  await open('rediss://localhost', { tls: { passphrase: 'secret' } });
  // @ts-expect-error not a number
  await open('redis://localhost', { db: '3' });
  // @ts-expect-error there is no such option
  await open('memory:', { filename: 'a' });
  // @ts-expect-error it is a number
  await open('memory:', { handoffs: '5' });
}

export async function locks() {
  const options: LockOptions = {
    ttl: '30s', wait: Infinity, renew: true, maxHold: Infinity, maxStall: 60000,
    signal: AbortSignal.timeout(1), note: 'why',
  };
  const lock = await hf.lock('key', options);
  expectTypeOf(lock).toEqualTypeOf<Lock>();
  expectTypeOf(lock).toExtend<AsyncDisposable>();
  expectTypeOf(lock.fence).toEqualTypeOf<number | null>();
  expectTypeOf(lock.signal).toEqualTypeOf<AbortSignal>();
  expectTypeOf(lock.remaining()).toBeNumber();
  expectTypeOf(lock.extend('1m')).resolves.toBeVoid();
  expectTypeOf(lock.release()).resolves.toBeBoolean();
  expectTypeOf(lock.assertHeld).returns.toBeVoid();
  // @ts-expect-error nobody sets what is held
  lock.held = true;

  expectTypeOf(hf.tryLock('key')).resolves.toEqualTypeOf<Lock | null>();
  const single: TryLockOptions = { ttl: 1000 };
  await hf.tryLock('key', single);
  // @ts-expect-error one attempt does not wait
  await hf.tryLock('key', { wait: 0 });

  expectTypeOf(hf.withLock('key', () => 5)).resolves.toBeNumber();
  expectTypeOf(hf.withLock('key', { ttl: 100 }, async (held) => held.token)).resolves.toBeString();
  expectTypeOf(hf.inspect('key')).resolves.toEqualTypeOf<LockInfo | null>();
  expectTypeOf<LockInfo['holders']>().toEqualTypeOf<HolderInfo[]>();
  expectTypeOf<LockInfo['waiters']>().toEqualTypeOf<WaiterInfo[]>();
  expectTypeOf<LockInfo['waiting']>().toBeNumber();
}

export async function sharedLocks(options: LockOptions, keys: readonly string[]) {
  expectTypeOf(hf.lock(keys, { mode: 'shared' })).resolves.toEqualTypeOf<Lock>();
  expectTypeOf(hf.tryLock(['a', 'b'], { permits: 5 })).resolves.toEqualTypeOf<Lock | null>();
  expectTypeOf(hf.withLock(keys, (lock) => lock.keys)).resolves.toEqualTypeOf<readonly string[]>();
  expectTypeOf(hf.withLock(keys, { permits: 2 }, () => 5)).resolves.toBeNumber();
  await hf.lock('key', { ...options, wait: 0 });
  await hf.lock('key', { mode: undefined, permits: undefined });
  expectTypeOf<LockOptions>().toExtend<LockSettings & LockSharing>();
  expectTypeOf<WaiterInfo['permits'] | HolderInfo['permits']>().toEqualTypeOf<number | null>();
  expectTypeOf<WaiterInfo['mode'] | HolderInfo['mode']>().toEqualTypeOf<LockMode>();
  // @ts-expect-error one of the two
  await hf.lock('key', { mode: 'shared', permits: 5 });
  // @ts-expect-error likewise
  await hf.tryLock('key', { mode: 'exclusive', permits: 1 });
  // @ts-expect-error there are two
  await hf.lock('key', { mode: 'read' });
  // @ts-expect-error it is a number
  await hf.lock('key', { permits: '5' });
  // @ts-expect-error keys are strings
  await hf.lock(['a', 5]);
  // @ts-expect-error of one key
  await hf.inspect(['a']);
}

export async function listing() {
  for await (const info of hf.locks({ prefix: 'a' } satisfies LocksOptions)) {
    expectTypeOf(info).toEqualTypeOf<LockInfo>();
  }
  expectTypeOf(hf.locks()).toEqualTypeOf<AsyncIterable<LockInfo>>();
  // @ts-expect-error a prefix is a string
  hf.locks({ prefix: /a/ });
}

export function namespaces() {
  expectTypeOf(hf.namespace('shop')).toEqualTypeOf<Holdfast>();
  expectTypeOf(hf.namespace('shop').namespace('eu').kv).toEqualTypeOf<KV>();
  // @ts-expect-error it has a name
  hf.namespace();
}

export async function leaders() {
  const options: LeaderOptions = {
    ttl: '30s', maxStall: 60000, note: 'why', signal: AbortSignal.timeout(1),
  };
  await using leader = hf.leader('boss', async (lock) => {
    expectTypeOf(lock).toEqualTypeOf<Lock>();
  }, options);
  expectTypeOf(leader).toEqualTypeOf<Leader>();
  expectTypeOf(leader.name).toBeString();
  expectTypeOf(leader.leading).toBeBoolean();
  expectTypeOf(leader.lock).toEqualTypeOf<Lock | null>();
  expectTypeOf(leader.done).resolves.toBeVoid();
  expectTypeOf(leader.stop({ timeout: '5s' })).resolves.toBeVoid();
  hf.leader('boss', () => {});
  // @ts-expect-error nobody sets who leads
  leader.leading = true;
  // @ts-expect-error a leader waits for ever
  hf.leader('boss', () => {}, { wait: 0 });
  // @ts-expect-error a leader has one name
  hf.leader(['a', 'b'], () => {});
}

export async function operations() {
  const options: OnceOptions = {
    ttl: Infinity, lease: '30s', wait: 0, onCrash: 'fail', keepErrors: true,
    fingerprint: { amount: 5 }, signal: AbortSignal.timeout(1),
  };
  expectTypeOf(hf.once('key', () => 5)).resolves.toBeNumber();
  expectTypeOf(hf.once('key', { ttl: 100 }, async () => 'x')).resolves.toBeString();
  expectTypeOf(hf.once('key', { detail: true }, () => 5)).resolves.toEqualTypeOf<OnceDetail<number>>();
  await hf.once('key', (run) => {
    expectTypeOf(run).toEqualTypeOf<Run>();
    expectTypeOf(run.signal).toEqualTypeOf<AbortSignal>();
  });
  expectTypeOf(options.detail).toEqualTypeOf<boolean | undefined>();
  // @ts-expect-error a crash is answered in one of two ways
  await hf.once('key', { onCrash: 'ignore' }, () => 5);

  const charge = hf.idempotent(async (id: string, amount: number) => ({ id, amount }), {
    key: (id) => id,
  });
  expectTypeOf(charge).parameters.toEqualTypeOf<[string, number]>();
  expectTypeOf(charge).returns.resolves.toEqualTypeOf<{ id: string; amount: number }>();
  expectTypeOf<IdempotentOptions<[string]>['key']>().toEqualTypeOf<(id: string) => string>();
  // @ts-expect-error the key is what tells calls apart
  hf.idempotent(() => 5, {});

  const record = await hf.record<number>('key');
  expectTypeOf(record).toEqualTypeOf<RecordInfo<number> | null>();
  if (record?.state === 'done') {
    expectTypeOf(record).toEqualTypeOf<DoneRecordInfo<number>>();
    expectTypeOf(record.value).toEqualTypeOf<number | undefined>();
  } else if (record !== null) {
    expectTypeOf(record).toEqualTypeOf<UnfinishedRecordInfo>();
  }
  expectTypeOf<UnfinishedRecordInfo>().toExtend<RecordBase>();
  expectTypeOf(hf.forget('key')).resolves.toBeBoolean();
}

export async function values(lock: Lock, run: Run) {
  expectTypeOf(hf.kv).toEqualTypeOf<KV>();
  // @ts-expect-error it belongs to its Holdfast
  hf.kv = hf.kv;
  expectTypeOf(hf.kv.get('key')).resolves.toEqualTypeOf<Versioned<unknown> | null>();
  expectTypeOf(hf.kv.get<string>('key')).resolves.toEqualTypeOf<Versioned<string> | null>();
  expectTypeOf(hf.kv.create('key', 1, { ttl: '1m', fence: lock } satisfies CreateOptions))
    .resolves.toBeNumber();
  expectTypeOf(hf.kv.put('key', Buffer.from('x'), { version: 1 } satisfies PutOptions))
    .resolves.toBeNumber();
  const options: UpdateOptions = { retries: 5, fence: { key: 'lock', fence: 7 } };
  const updated = hf.kv.update<number>('key', (value) => (value ?? 0) + 1, options);
  expectTypeOf(updated).resolves.toEqualTypeOf<Versioned<number>>();
  const bounds: IncrementOptions = { min: 0, max: 9, initial: 3, fence: lock };
  expectTypeOf(hf.kv.increment('key', -1, bounds)).resolves.toBeNumber();
  expectTypeOf(hf.kv.delete('key', { version: 3 } satisfies DeleteOptions)).resolves.toBeBoolean();
  expectTypeOf<Fence>().toExtend<FenceLike>();
  // @ts-expect-error a version is a number
  await hf.kv.put('key', 1, { version: '1' });
  // @ts-expect-error a version that is undefined would check nothing
  await hf.kv.put('key', 1, { version: undefined });
  // @ts-expect-error a fence that is undefined would guard nothing
  await hf.kv.put('key', 1, { fence: undefined });
  // @ts-expect-error likewise
  await hf.kv.increment('key', 1, { fence: undefined });
  // @ts-expect-error and a bound
  await hf.kv.increment('key', -1, { min: undefined });
  // @ts-expect-error await the lock first
  await hf.kv.put('key', 1, { fence: hf.lock('lock') });
  // @ts-expect-error a store may give no fence
  await hf.kv.put('key', 1, { fence: { key: 'lock', fence: lock.fence } });
  // What is no condition may be undefined.
  await hf.kv.put('key', 1, { ttl: undefined });
  expectTypeOf(run.fence).toBeNumber();
}

export function postgres() {
  const options: PostgresOptions = { schema: 'shop', leases: 'relaxed', pooler: 'session', max: 20,
    idleTimeout: '1m' };
  expectTypeOf(open('postgres:', { ...options, password: () => 'secret' }))
    .resolves.toEqualTypeOf<Holdfast>();
  expectTypeOf<PostgresOptions['leases']>().toEqualTypeOf<'durable' | 'relaxed' | undefined>();
  // @ts-expect-error there are two ways
  open('postgres:', { leases: 'loose' });
  // @ts-expect-error and two kinds of poolers
  open('postgres:', { pooler: 'statement' });
}

export async function quorums(error: QuorumError) {
  const options: QuorumOptions = { maxTtl: '1m', nodeTimeout: 50, fencing: true };
  const nodes = ['redis://a', 'redis://b', 'redis://c'] as const;
  expectTypeOf(open(nodes, { ...options, prefix: '' })).resolves.toEqualTypeOf<Holdfast>();
  expectTypeOf(new Holdfast(nodes)).toEqualTypeOf<Holdfast>();
  expectTypeOf(hf.nodes()).toEqualTypeOf<NodeInfo[]>();
  expectTypeOf((await hf.inspect('a'))?.nodes).toEqualTypeOf<NodeInfo[] | undefined>();
  expectTypeOf<NodeInfo['until']>().toEqualTypeOf<Date | null>();
  expectTypeOf(error.reason).toEqualTypeOf<'down' | 'quarantined' | 'held' | 'time' | null>();
  expectTypeOf(error.causes).toEqualTypeOf<readonly NodeVote[]>();
  expectTypeOf<NodeVote['error']>().toEqualTypeOf<HoldfastError | null>();
  expectTypeOf<QuorumMessage>().toExtend<NodeInfo>();
  // @ts-expect-error a node is a URL
  open([new URL('redis://a')]);
}

export function errors(error: HoldfastError) {
  expectTypeOf(error.code).toEqualTypeOf<HoldfastErrorCode>();
  expectTypeOf(error.retryable).toBeBoolean();
  expectTypeOf(error.outcomeUnknown).toBeBoolean();
  expectTypeOf<LockTimeoutError['code']>().toEqualTypeOf<'HF_ETIMEDOUT'>();
  expectTypeOf<LockTimeoutError['holder']>().toEqualTypeOf<HolderInfo | null>();
  expectTypeOf<LockLostError['result']>().toEqualTypeOf<unknown>();
  expectTypeOf<ConflictError['version']>().toEqualTypeOf<number | null>();
  expectTypeOf<StaleFenceError['fence']>().toEqualTypeOf<number | null>();
  expectTypeOf<InProgressError['retryAfter']>().toBeNumber();
  expectTypeOf<BoundsError | MismatchError | QuorumError | UnavailableError>()
    .toExtend<HoldfastError>();
  const details: HoldfastErrorDetails = { cause: error, retryable: true };
  expectTypeOf(new HoldfastError('HF_EIO', 'text', details)).toExtend<Error>();
  hf.on('error', (problem) => expectTypeOf(problem).toEqualTypeOf<HoldfastError>());
  expectTypeOf<keyof HoldfastEvents>().toEqualTypeOf<'error' | 'node'>();
  hf.on('node', (node) => expectTypeOf(node).toEqualTypeOf<NodeInfo>());
  // @ts-expect-error no such event
  hf.on('lost', () => {});
}

export function telemetry(message: LockMessage | KVMessage | OnceMessage | StoreMessage) {
  expectTypeOf(message.error).toEqualTypeOf<HoldfastError | undefined>();
  expectTypeOf<LockMessage['event']>()
    .toEqualTypeOf<'wait' | 'held' | 'renewed' | 'lost' | 'released'>();
  expectTypeOf<LockMessage['keys']>().toEqualTypeOf<readonly string[]>();
}

export const durations: Duration[] = [5, '5m'];
export const json: JsonValue = { a: [1, 'x', null, true] };
