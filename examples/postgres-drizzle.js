'use strict';

// With Drizzle: a payment whose record is done in the very transaction that books it, and a write
// that a lock's fence guards.
//
//   HOLDFAST_URL=postgres://localhost/shop node examples/postgres-drizzle.js

const { sql } = require('drizzle-orm');
const { drizzle } = require('drizzle-orm/node-postgres');
const { integer, pgTable, text } = require('drizzle-orm/pg-core');
const { Pool } = require('pg');
const { open } = require('holdfast');
const { statements } = require('holdfast/postgres');

const url = process.env.HOLDFAST_URL ?? 'postgres://localhost/postgres';

const payment = pgTable('payment', { orderId: text('order_id'), cents: integer('cents') });

/** A statement, { text, values }, as Drizzle has it: its text in parts, and between them values. */
function asSql({ text: whole, values }) {
  const parts = whole.split(/\$\d+/);
  return sql.join(parts.flatMap((part, i) =>
    (i < values.length ? [sql.raw(part), sql.param(values[i])] : [sql.raw(part)])));
}

async function main() {
  const hf = await open(url);
  const pool = new Pool({ connectionString: url });
  const db = drizzle({ client: pool });
  await db.execute('CREATE TABLE IF NOT EXISTS payment (order_id text, cents int)');
  await db.execute(
    'CREATE TABLE IF NOT EXISTS shelf (item text PRIMARY KEY, mugs int, fence bigint)');
  await db.execute(sql`INSERT INTO shelf VALUES (${'mugs'}, 40, 0) ON CONFLICT DO NOTHING`);

  // However often it is asked for, and wherever a process dies: it is booked once, or not at all.
  const pay = (order, cents) => hf.once(`pay/${order}`, (run) => db.transaction(async (tx) => {
    await tx.insert(payment).values({ orderId: order, cents });
    const receipt = { order, cents };
    await tx.execute(asSql(statements.finishRecord(run, receipt)));
    return receipt;
  }));
  console.log('paid:', await pay('order-7', 990));
  console.log('again:', await pay('order-7', 990));
  console.log('payments:', (await db.select().from(payment)).length);

  // The lock of the first was lost when the second took it: what it still writes is refused.
  const sell = (lock, mugs) => db.execute(asSql(statements.fencedUpdate('shelf',
    { set: { mugs }, where: { item: 'mugs' }, lock })));
  const early = await hf.lock('shelf/mugs');
  await early.release(); // as if it had been held up for too long
  await hf.withLock('shelf/mugs', (lock) => sell(lock, 30));
  await sell(early, 35).catch((error) => console.log('too late:', error.cause.code));
  const { rows } = await db.execute('SELECT mugs FROM shelf');
  console.log('left:', rows[0].mugs);

  await pool.end();
  await hf.close();
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
