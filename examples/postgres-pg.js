'use strict';

// With `pg`: a payment whose record is done in the very transaction that books it, and a write that
// a lock's fence guards.
//
//   HOLDFAST_URL=postgres://localhost/shop node examples/postgres-pg.js

const { Pool } = require('pg');
const { open } = require('holdfast');
const { statements } = require('holdfast/postgres');

const url = process.env.HOLDFAST_URL ?? 'postgres://localhost/postgres';

/** A transaction on a connection of the pool. */
async function transaction(pool, work) {
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    const result = await work(client);
    await client.query('COMMIT');
    return result;
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  } finally {
    client.release();
  }
}

async function main() {
  const hf = await open(url);
  const pool = new Pool({ connectionString: url });
  await pool.query('CREATE TABLE IF NOT EXISTS payment (order_id text, cents int)');
  await pool.query(
    'CREATE TABLE IF NOT EXISTS shelf (item text PRIMARY KEY, mugs int, fence bigint)');
  await pool.query('INSERT INTO shelf VALUES ($1, 40, 0) ON CONFLICT DO NOTHING', ['mugs']);

  // However often it is asked for, and wherever a process dies: it is booked once, or not at all.
  const pay = (order, cents) => hf.once(`pay/${order}`, (run) =>
    transaction(pool, async (client) => {
      await client.query('INSERT INTO payment VALUES ($1, $2)', [order, cents]);
      const receipt = { order, cents };
      await client.query(statements.finishRecord(run, receipt));
      return receipt;
    }));
  console.log('paid:', await pay('order-7', 990));
  console.log('again:', await pay('order-7', 990));
  const { rows } = await pool.query('SELECT count(*)::int AS n FROM payment');
  console.log('payments:', rows[0].n);

  // The lock of the first was lost when the second took it: what it still writes is refused.
  const sell = (lock, mugs) => pool.query(statements.fencedUpdate('shelf',
    { set: { mugs }, where: { item: 'mugs' }, lock }));
  const early = await hf.lock('shelf/mugs');
  await early.release(); // as if it had been held up for too long
  await hf.withLock('shelf/mugs', (lock) => sell(lock, 30));
  await sell(early, 35).catch((error) => console.log('too late:', error.code));
  const shelf = await pool.query('SELECT mugs FROM shelf');
  console.log('left:', shelf.rows[0].mugs);

  await pool.end();
  await hf.close();
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
