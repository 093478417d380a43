'use strict';

const pg = require('pg');

const { optional } = require('./optional');

const LOCK = { name: 'lock', text: 'SELECT pg_advisory_lock(hashtextextended($1, 0))' };
const UNLOCK = { name: 'unlock', text: 'SELECT pg_advisory_unlock(hashtextextended($1, 0))' };
const PUT = {
  name: 'put',
  text: `INSERT INTO bench_value (key, value) VALUES ($1, $2)
         ON CONFLICT (key) DO UPDATE SET value = $2, version = bench_value.version + 1
         RETURNING version`,
};
const GET = { name: 'get', text: 'SELECT value, version FROM bench_value WHERE key = $1' };
const INCREMENT = {
  name: 'increment',
  text: `INSERT INTO bench_value (key, value) VALUES ($1, to_jsonb($2::bigint))
         ON CONFLICT (key) DO UPDATE SET version = bench_value.version + 1,
           value = to_jsonb((bench_value.value #>> '{}')::bigint + $2)
         RETURNING value`,
};
const DEBIT = {
  name: 'debit',
  text: 'UPDATE bench_account SET balance = balance - $2 WHERE id = $1 AND balance >= $2',
};
const ENTER = {
  name: 'enter',
  text: 'INSERT INTO bench_ledger (account, amount) VALUES ($1, $2)',
};

/**
 * What one writes by hand with the Pool of pg: a connection for each lock that is held or waited
 * for, prepared statements, a small table of values.
 *
 * @param {string} url
 * @param {number} max connections of the pool
 * @param {{ Pool: Function }} [module] pg itself, or what has its interface
 */
function openPgByHand(url, max, module = pg) {
  // Nothing is closed while others have their turn: it would begin each of its own with connecting.
  const pool = new module.Pool({ connectionString: url, max, idleTimeoutMillis: 0 });
  const run = (statement, values) => pool.query({ ...statement, values });
  return {
    async acquire(key) {
      const client = await pool.connect();
      await client.query({ ...LOCK, values: [key] });
      return { client, key };
    },
    async release({ client, key }) {
      await client.query({ ...UNLOCK, values: [key] });
      client.release();
    },
    put: (key, value) => run(PUT, [key, JSON.stringify(value)]),
    get: async (key) => (await run(GET, [key])).rows[0],
    increment: (key, by) => run(INCREMENT, [key, by]),
    /** A transaction of two statements. */
    async debit(account, amount) {
      const client = await pool.connect();
      try {
        await client.query('BEGIN');
        const { rowCount } = await client.query({ ...DEBIT, values: [account, amount] });
        if (rowCount !== 1) throw new Error('an account has too little');
        await client.query({ ...ENTER, values: [account, amount] });
        await client.query('COMMIT');
      } finally {
        client.release();
      }
    },
    select: () => run({ name: 'one', text: 'SELECT 1 AS one' }, []),
    ping: () => pool.query('SELECT 1'),
    close: () => pool.end(),
  };
}

/** The same by way of libpq; null where pg-native is not installed. */
function openPgNative(url, max) {
  const native = optional('pg')?.native;
  return native ? openPgByHand(url, max, native) : null;
}

module.exports = { openPgByHand, openPgNative, DEBIT, ENTER };
