import { expectTypeOf } from 'expect-type';
import { open, type LockLostError } from 'holdfast';
import {
  advisoryId, postgres, AdvisoryLock, Postgres,
  type AdvisoryId, type AdvisoryLockInfo, type AdvisoryLockOptions, type TryAdvisoryLockOptions,
} from 'holdfast/postgres';

export async function ways() {
  const hf = await open('postgres://host/database');
  expectTypeOf(postgres(hf)).toEqualTypeOf<Postgres>();
  await using pg = postgres('postgres://host/database', { connectTimeout: '1s', pooler: 'session' });
  expectTypeOf(pg.holdfast).toEqualTypeOf<typeof hf>();
  await pg.close({ timeout: 0 });
  // @ts-expect-error options go with a URL
  postgres(hf, {});
  // @ts-expect-error a Holdfast or a URL
  postgres(7);
  // @ts-expect-error it is made by postgres()
  new Postgres();
  expectTypeOf(advisoryId('a')).toEqualTypeOf<bigint>();
}

export async function locks(pg: Postgres, signal: AbortSignal) {
  await using lock = await pg.advisoryLock(42);
  expectTypeOf(lock).toEqualTypeOf<AdvisoryLock>();
  expectTypeOf(lock.id).toEqualTypeOf<AdvisoryId>();
  expectTypeOf(lock.shared).toBeBoolean();
  expectTypeOf(lock.held).toBeBoolean();
  expectTypeOf(lock.signal).toEqualTypeOf<AbortSignal>();
  expectTypeOf(lock.release()).toEqualTypeOf<Promise<boolean>>();
  lock.assertHeld();
  const options: AdvisoryLockOptions = { shared: true, wait: '1m', signal, dedicated: true };
  await pg.advisoryLock(42n, options);
  await pg.advisoryLock([1, 2], { wait: Infinity });
  await pg.advisoryLock('name', {});
  const single: TryAdvisoryLockOptions = { shared: true, dedicated: false };
  expectTypeOf(pg.tryAdvisoryLock('name', single)).toEqualTypeOf<Promise<AdvisoryLock | null>>();
  // @ts-expect-error it is read only
  lock.held = true;
  // @ts-expect-error two numbers
  await pg.advisoryLock([1]);
  // @ts-expect-error not bigints
  await pg.advisoryLock([1n, 2n]);
  // @ts-expect-error one attempt does not wait
  await pg.tryAdvisoryLock(1, { wait: 5 });
  // @ts-expect-error it is no lease
  await pg.advisoryLock(1, { ttl: 5 });
  // @ts-expect-error it is made by advisoryLock()
  new AdvisoryLock();
}

export async function runs(pg: Postgres) {
  expectTypeOf(await pg.withAdvisoryLock(1, async (lock) => lock.held)).toBeBoolean();
  expectTypeOf(await pg.withAdvisoryLock(1, { shared: true }, () => 'a')).toBeString();
  expectTypeOf<LockLostError['result']>().toBeUnknown();
  for (const info of await pg.advisoryLocks()) {
    expectTypeOf(info).toEqualTypeOf<AdvisoryLockInfo>();
    expectTypeOf(info.id).toEqualTypeOf<bigint | readonly [number, number]>();
    expectTypeOf(info.mode).toEqualTypeOf<'exclusive' | 'shared'>();
    expectTypeOf(info.queryAge).toEqualTypeOf<number | null>();
  }
}
