import { expectTypeOf } from 'expect-type';
import { open, SqlError as RootSqlError, type Lock, type LockLostError, type Run } from 'holdfast';
import {
  advisoryId, postgres, statements, AdvisoryLock, Postgres, SqlError, Transaction,
  type AdvisoryId, type AdvisoryLockInfo, type AdvisoryLockOptions, type SqlField, type SqlResult,
  type SqlRow, type SqlStatement, type SqlStatements, type TransactionOptions,
  type TryAdvisoryLockOptions,
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

interface Account {
  id: number;
  balance: number;
}

export async function queries(pg: Postgres, signal: AbortSignal) {
  const { rows, rowCount, fields, command } = await pg.query('SELECT $1', [1]);
  expectTypeOf(rows).toEqualTypeOf<SqlRow[]>();
  expectTypeOf(rowCount).toEqualTypeOf<number | null>();
  expectTypeOf(fields).toEqualTypeOf<SqlField[]>();
  expectTypeOf(command).toBeString();
  expectTypeOf(await pg.query<Account>`SELECT * FROM accounts WHERE id = ${1}`)
    .toEqualTypeOf<SqlResult<Account>>();
  await pg.query<Account>('SELECT 1', null, { timeout: '5s', signal, rowMode: 'array' });
  await pg.query<Account>({ text: 'SELECT $1', values: [1], name: 'a', timeout: 5 });
  await pg.query({ text: 'SELECT $1' }, [1]);
  await pg.affectOne`DELETE FROM accounts WHERE id = ${1}`;
  expectTypeOf((await pg.affectOne<Account>('UPDATE a', [])).rows[0])
    .toEqualTypeOf<Account | undefined>();
  // @ts-expect-error no such mode
  await pg.query('SELECT 1', [], { rowMode: 'rows' });
  // @ts-expect-error an array
  await pg.query('SELECT 1', 7);
  // @ts-expect-error it has no text
  await pg.query({ values: [] });
}

export async function transactions(pg: Postgres, run: Run, signal: AbortSignal) {
  const options: TransactionOptions = {
    isolation: 'serializable', readOnly: false, retries: 3, timeout: '5s', signal,
  };
  expectTypeOf(await pg.transaction(async (tx) => {
    expectTypeOf(tx).toEqualTypeOf<Transaction>();
    expectTypeOf(tx.signal).toEqualTypeOf<AbortSignal>();
    await tx.query<Account>`SELECT ${1}`;
    await tx.affectOne('UPDATE a', [1]);
    expectTypeOf(await tx.forUpdate<Account>('a', { id: 1 }, { skipLocked: true, limit: 1 }))
      .toEqualTypeOf<Account[]>();
    expectTypeOf(await tx.advisoryLock('a', { shared: true, wait: 0 })).toEqualTypeOf<void>();
    expectTypeOf(await tx.tryAdvisoryLock([1, 2], { shared: true })).toBeBoolean();
    expectTypeOf(await tx.transaction((part) => part.query('SELECT 1').then(() => 5))).toBeNumber();
    await tx.finishRecord(run, { a: 1 });
    // @ts-expect-error a part has no options
    await tx.transaction(() => {}, {});
    // @ts-expect-error it is one attempt
    await tx.tryAdvisoryLock(1, { wait: 1 });
    return 'a';
  }, options)).toBeString();
  expectTypeOf(await pg.transaction({ readOnly: true }, () => 5)).toBeNumber();
  // @ts-expect-error no such level
  await pg.transaction(() => {}, { isolation: 'snapshot' });
  // @ts-expect-error it is made by transaction()
  new Transaction();
}

export async function guards(pg: Postgres) {
  expectTypeOf(await pg.upsert<Account>('accounts', { id: 1 }, { key: 'id', update: false }))
    .toEqualTypeOf<{ row: Account; inserted: boolean }>();
  await pg.upsert(['shop', 'accounts'], { id: 1 }, { key: ['id'], update: { balance: 5 } });
  expectTypeOf(await pg.updateVersioned<Account>('accounts',
    { where: { id: 1 }, set: { balance: 5 }, version: 1n, column: 'v' })).toEqualTypeOf<Account>();
  await pg.updateVersioned<Account>('accounts', {
    where: { id: [1, 2] }, set: async (row) => ({ balance: row.balance - 1 }), retries: 5,
  });
  // @ts-expect-error a function has no version
  await pg.updateVersioned('a', { where: {}, set: () => ({}), version: 1 });
  // @ts-expect-error which row
  await pg.updateVersioned('a', { set: {}, version: 1 });
  // @ts-expect-error the unique columns
  await pg.upsert('a', {}, {});
}

export function plain(pg: Postgres, run: Run, lock: Lock) {
  expectTypeOf(pg.statements).toEqualTypeOf<SqlStatements>();
  expectTypeOf(statements).toEqualTypeOf<SqlStatements>();
  expectTypeOf(statements.finishRecord(run, 5).values).toEqualTypeOf<string[]>();
  expectTypeOf(statements.fencedUpdate('a', { set: { b: 1 }, where: { c: 2 }, lock }))
    .toEqualTypeOf<SqlStatement>();
  statements.fencedUpdate('a', { set: { b: 1 }, where: { c: 2 }, fence: 5, column: 'newest' });
  statements.affectOne('UPDATE a SET b = $1', [1]);
  statements.updateVersioned('a', { set: { b: 1 }, where: { c: 2 }, version: '3' });
  statements.upsert('a', { b: 1 }, { key: 'b' });
  statements.forUpdate('a', { b: 1 }, { noWait: true });
  statements.advisoryXactLock('a', { shared: true });
  // @ts-expect-error a lock or a fence
  statements.fencedUpdate('a', { set: {}, where: {} });
  // @ts-expect-error one of the two
  statements.fencedUpdate('a', { set: {}, where: {}, lock, fence: 5 });
}

export function errors(error: unknown) {
  expectTypeOf(SqlError).toEqualTypeOf<typeof RootSqlError>();
  if (!(error instanceof SqlError)) return;
  expectTypeOf(error.code).toEqualTypeOf<'HF_ESQL'>();
  expectTypeOf(error.state).toBeString();
  expectTypeOf(error.constraint).toEqualTypeOf<string | null>();
  expectTypeOf(error.position).toEqualTypeOf<number | null>();
}
