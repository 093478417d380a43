'use strict';

// A PostgreSQL of the benchmark's own, as durable as one comes, with the tables of the peers.

const fs = require('node:fs');
const path = require('node:path');

const { PostgresServer } = require('../test/postgres-servers');

const ACCOUNTS = 1000;
const TABLES = `
  CREATE TABLE bench_value (key text PRIMARY KEY, value jsonb, version bigint DEFAULT 1);
  CREATE TABLE bench_account (id int PRIMARY KEY, balance bigint NOT NULL);
  CREATE TABLE bench_ledger (id bigserial PRIMARY KEY, account int, amount bigint);
  INSERT INTO bench_account SELECT n, 1000000000 FROM generate_series(1, ${ACCOUNTS}) AS n`;

/** Starts it; `pgbench` is the program of that name, null where it did not come along. */
async function startPostgres() {
  const server = new PostgresServer({ durable: true });
  await server.start();
  await server.query(TABLES);
  const pgbench = path.join(server.programs, 'pgbench');
  return {
    url: server.url(),
    pgbench: fs.existsSync(pgbench) ? pgbench : null,
    stop: () => server.stop(),
  };
}

module.exports = { startPostgres, ACCOUNTS };
