// As those write it who come from redlock 5, or from redlock 4.

import Bluebird from 'bluebird';
import { expectTypeOf } from 'expect-type';
import { Redis, Cluster } from 'ioredis';
import { createClient } from 'redis';
import Redlock, {
  ExecutionError, Lock, LockError, ResourceLockedError,
  type CompatibleRedisClient, type ExecutionResult, type ExecutionStats, type LegacyLock,
  type RedlockAbortSignal, type Settings,
} from 'holdfast/redlock';

const redis = new Redis();

export async function clients() {
  expectTypeOf(new Redlock([redis])).toEqualTypeOf<Redlock>();
  new Redlock([redis, new Redis(), new Redis()], { driftFactor: 0.01, retryCount: -1 });
  new Redlock([new Cluster(['redis://a'])]);
  new Redlock([createClient({ url: 'redis://a' })]);
  new Redlock(new Set([redis]), { retryDelay: 100, retryJitter: 50, automaticExtensionThreshold: 1 });
  new Redlock(['redis://a', new URL('redis://b'), redis], { maxTtl: '1h' });
  new Redlock(['rediss://a'], {
    connection: {
      tls: { ca: 'PEM' }, password: async () => 'secret', commandTimeout: 100, nodeTimeout: '1s',
      fencing: true,
    },
  });
  // @ts-expect-error there are clients
  new Redlock();
  // @ts-expect-error an array of them
  new Redlock(redis);
  // @ts-expect-error no client
  new Redlock([7]);
  // @ts-expect-error a number
  new Redlock([redis], { retryCount: '7' });
  // @ts-expect-error scripts are Holdfast's own
  new Redlock([redis], { lockScript: (script: string) => script });
  // @ts-expect-error it is a setting
  new Redlock([redis], { connection: { maxTtl: '1h' } });
  expectTypeOf<Redis>().toExtend<CompatibleRedisClient>();
}

export async function five(redlock: Redlock) {
  expectTypeOf(redlock.settings).toEqualTypeOf<Settings>();
  let lock = await redlock.acquire(['a'], 5000);
  expectTypeOf(lock).toEqualTypeOf<Lock>();
  lock = await redlock.acquire(['a', 'b'], 5000, { retryCount: 0 });
  lock = await lock.extend(5000);
  lock = await redlock.extend(lock, 5000, { retryCount: 1 });
  expectTypeOf(lock.resources).toEqualTypeOf<string[]>();
  expectTypeOf(lock.value).toBeString();
  expectTypeOf(lock.expiration).toBeNumber();
  expectTypeOf(lock.fence).toEqualTypeOf<number | null>();
  expectTypeOf(lock.redlock).toEqualTypeOf<Redlock>();
  for (const attempt of lock.attempts) {
    expectTypeOf(await attempt).toEqualTypeOf<ExecutionStats>();
    const { votesAgainst, votesFor, membershipSize, quorumSize } = await attempt;
    expectTypeOf([...votesAgainst.values()]).toEqualTypeOf<Error[]>();
    expectTypeOf(votesFor.size + membershipSize + quorumSize).toBeNumber();
  }
  expectTypeOf(lock.release()).resolves.toEqualTypeOf<ExecutionResult>();
  expectTypeOf(redlock.release(lock, { retryCount: 2 })).resolves.toEqualTypeOf<ExecutionResult>();
  const result = await redlock.using(['a'], 5000, async (signal) => {
    expectTypeOf(signal).toEqualTypeOf<RedlockAbortSignal>();
    if (signal.aborted) throw signal.error;
    await fetch('http://localhost', { signal });
    return 7;
  });
  expectTypeOf(result).toBeNumber();
  await redlock.using(['a'], 5000, { retryCount: 5 }, async () => {});
  redlock.on('error', (error) => {
    if (error instanceof ResourceLockedError) return;
    console.error(error);
  });
  await redlock.quit();
  // @ts-expect-error only acquire makes one that holds something
  new Lock(redlock, ['a'], 'value', [], 0);
  // @ts-expect-error milliseconds
  await redlock.acquire(['a'], '5s');
}

export async function four(redlock: Redlock) {
  let lock: Redlock.Lock = await redlock.lock('a', 1000);
  lock = await redlock.acquire('a', 1000);
  const legacy = await redlock.lock(['a', 'b'], 1000);
  expectTypeOf(legacy).toEqualTypeOf<LegacyLock>();
  expectTypeOf(legacy.attemptsRemaining).toBeNumber();
  const attempts: number = legacy.attempts;
  expectTypeOf(await legacy.extend(1000)).toEqualTypeOf<LegacyLock>();
  expectTypeOf(lock.unlock()).resolves.toBeVoid();
  expectTypeOf(redlock.unlock(lock)).resolves.toBeVoid();
  redlock.lock('a', 1000, (error, value) => {
    if (error) return;
    expectTypeOf(value).toEqualTypeOf<LegacyLock | undefined>();
    value?.extend(1000, (error2, same) => {
      if (error2 instanceof Redlock.LockError) console.error(error2.attempts);
      same?.unlock((error3) => console.error(error3));
      redlock.extend(value, 1000, () => {});
      redlock.release(value, (error4) => console.error(error4, attempts));
    });
  });
  redlock.acquire(['a'], 1000, (_error, value?: LegacyLock) => value?.unlock());
  redlock.lockWithOptions('a', 1000, { retryCount: 1 }, () => {});
  expectTypeOf(redlock.acquireWithOptions('a', 1000, {})).resolves.toEqualTypeOf<LegacyLock>();
  const used = await Bluebird.using(redlock.disposer('a', 1000, console.error), async (held) => {
    expectTypeOf(held).toEqualTypeOf<LegacyLock>();
    return 'done';
  });
  expectTypeOf(used).toBeString();
  redlock.on('clientError', (error) => console.error(error));
  redlock.quit((error, results) => console.error(error, results));
  expectTypeOf(redlock.servers).toBeArray();
  expectTypeOf(redlock.retryCount + redlock.retryDelay + redlock.retryJitter).toBeNumber();
}

export async function errors(error: unknown) {
  if (error instanceof ExecutionError) {
    expectTypeOf(error.attempts).toEqualTypeOf<ReadonlyArray<Promise<ExecutionStats>>>();
  } else if (error instanceof LockError) {
    expectTypeOf(error.attempts).toBeNumber();
  } else if (error instanceof ResourceLockedError) {
    expectTypeOf(error.name).toEqualTypeOf<'ResourceLockedError'>();
  }
}
