'use strict';

// What people write who have SQLite at hand: a table of locks. It is written with care, and its
// calls block the event loop, as those of better-sqlite3 do.

const { randomUUID } = require('node:crypto');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');

const Database = require('better-sqlite3');

const { PAUSE_MAX_MS, PAUSE_MIN_MS } = require('./poll');

const TTL_MS = 30000;

const SCHEMA = `CREATE TABLE IF NOT EXISTS lock (
  key TEXT PRIMARY KEY, token TEXT NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID`;
const TAKE = `INSERT INTO lock (key, token, expires) VALUES (?, ?, ?)
  ON CONFLICT (key) DO UPDATE SET token = excluded.token, expires = excluded.expires
  WHERE lock.expires <= ?`;
const RENEW = 'UPDATE lock SET expires = ? WHERE key = ? AND token = ?';
const DROP = 'DELETE FROM lock WHERE key = ? AND token = ?';

/** A table of locks in better-sqlite3, in WAL mode, without a sync per commit, as Holdfast's. */
function openLockTable(folder) {
  const db = new Database(path.join(folder, 'lock-table.db'));
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = NORMAL');
  db.exec(SCHEMA);
  const take = db.prepare(TAKE);
  const renew = db.prepare(RENEW);
  const drop = db.prepare(DROP);

  function tryTake(key, token) {
    const now = Date.now();
    return take.run(key, token, now + TTL_MS, now).changes === 1;
  }

  return {
    async acquire(key, renewed) {
      const token = randomUUID();
      for (let pause = PAUSE_MIN_MS; !tryTake(key, token);) {
        await sleep(pause * (1 + Math.random()));
        pause = Math.min(2 * pause, PAUSE_MAX_MS);
      }
      const renewal = renewed
        ? setInterval(() => renew.run(Date.now() + TTL_MS, key, token), TTL_MS / 3)
        : undefined;
      return { key, token, renewal };
    },
    async release({ key, token, renewal }) {
      clearInterval(renewal);
      drop.run(key, token);
    },
    close: () => db.close(),
  };
}

module.exports = { openLockTable };
