'use strict';

// What people write who have SQLite at hand, for results and values that must survive power loss.
// As with every use of better-sqlite3, a commit blocks the event loop until the disk has it.

const path = require('node:path');

const Database = require('better-sqlite3');

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, result TEXT, expires INTEGER NOT NULL);
  CREATE TABLE IF NOT EXISTS value (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, version INTEGER NOT NULL)`;
const CLAIM = 'INSERT INTO run (key, expires) VALUES (?, ?) ON CONFLICT (key) DO NOTHING';
const FINISH = 'UPDATE run SET result = ? WHERE key = ? AND result IS NULL';
const RESULT = 'SELECT result FROM run WHERE key = ?';
const PUT = `INSERT INTO value (key, value, version) VALUES (?, ?, 1)
  ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = version + 1`;
const GET = 'SELECT value, version FROM value WHERE key = ?';
const ADD = `INSERT INTO value (key, value, version) VALUES (?, ?, 1)
  ON CONFLICT (key) DO UPDATE SET value = value + excluded.value, version = version + 1
  RETURNING value`;

/** Tables of results and of values in better-sqlite3, in WAL mode with a sync per commit. */
function openDurableTable(folder) {
  const db = new Database(path.join(folder, 'durable-table.db'));
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = FULL');
  db.exec(SCHEMA);
  const claim = db.prepare(CLAIM);
  const finish = db.prepare(FINISH);
  const result = db.prepare(RESULT);
  const put = db.prepare(PUT);
  const get = db.prepare(GET);
  const add = db.prepare(ADD);
  return {
    async once(key, fn) {
      if (claim.run(key, Date.now() + 86400000).changes === 0) {
        return JSON.parse(result.get(key).result);
      }
      const value = await fn();
      finish.run(JSON.stringify(value), key);
      return value;
    },
    async put(key, value) {
      put.run(key, JSON.stringify(value));
    },
    async get(key) {
      const row = get.get(key);
      return row === undefined ? null : { value: JSON.parse(row.value), version: row.version };
    },
    async increment(key, by) {
      return add.get(key, by).value;
    },
    close: () => db.close(),
  };
}

module.exports = { openDurableTable };
