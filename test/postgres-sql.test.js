'use strict';

// Statements and transactions on the user's own tables, and what guards them.

const assert = require('node:assert/strict');
const { AsyncResource } = require('node:async_hooks');
const { once } = require('node:events');
const { setTimeout: sleep } = require('node:timers/promises');
const express = require('express');
const { Client } = require('pg');
const {
  ConflictError, HoldfastError, LockLostError, LockTimeoutError, UnavailableError, open,
} = require('..');
const { idempotency } = require('../lib/express');
const { Postgres, SqlError, Transaction, postgres, statements } = require('../lib/postgres');
const { deferred, until } = require('./helpers');
const { stopAll, usePostgres } = require('./postgres-servers');
const { Proxy } = require('./proxy');
const { failure } = require('./redis-harness');

after(stopAll);

// What holds straight and through a pooler that lends connections for each transaction.
const ways = [['', {}], [' behind a pooler', { pooled: { poolMode: 'transaction' } }]];

/** A server, a `pg` on it, and a table of accounts. */
function usePg(options) {
  const scope = usePostgres(options);
  const opened = [];
  const it = {
    pg: null,
    get server() { return scope.server; },
    connect(params) {
      const made = postgres(scope.url(params));
      opened.push(made);
      return made;
    },
    async rows(sql, values) {
      return (await scope.server.query(sql, values)).rows;
    },
  };
  beforeEach(async () => {
    it.pg = it.connect();
    await scope.server.query('DROP TABLE IF EXISTS accounts');
    await scope.server.query('CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL, ' +
      'owner text, version int NOT NULL DEFAULT 1, fence bigint)');
    await scope.server.query('INSERT INTO accounts (id, balance, owner) ' +
      'SELECT i, 100 * i, $1 FROM generate_series(1, 5) AS i', ['them']);
  });
  afterEach(async () => {
    await Promise.all(opened.splice(0).map((each) => each.close({ timeout: 0 })));
  });
  return it;
}

const rejects = (promise, name, message) => assert.rejects(promise, { name, message });

for (const [how, options] of ways) {
  describe(`statements${how}`, () => {
    const at = usePg(options);
    let pg;
    beforeEach(() => { ({ pg } = at); });

    it('are text with parameters, templates, or objects as of pg', async () => {
      const wanted = [{ id: 2, balance: 200 }];
      const text = 'SELECT id, balance FROM accounts WHERE id = $1 AND owner = $2';
      const ways_ = [
        pg.query(text, [2, 'them']),
        pg.query`SELECT id, balance FROM accounts WHERE id = ${2} AND owner = ${'them'}`,
        pg.query({ text, values: [2, 'them'] }),
        pg.query({ text, name: 'one' }, [2, 'them']),
      ];
      for (const { rows, rowCount, command } of await Promise.all(ways_)) {
        assert.deepEqual(rows, wanted);
        assert.equal(rowCount, 1);
        assert.equal(command, 'SELECT');
      }
    });

    it('many at once, on no more connections than max', async () => {
      const few = at.connect({ max: 3 });
      const answers = await Promise.all(Array.from({ length: 100 }, (_, i) =>
        few.query`SELECT ${i}::int AS i, pg_backend_pid() AS pid`));
      answers.forEach(({ rows }, i) => assert.equal(rows[0].i, i));
      assert.ok(new Set(answers.map(({ rows }) => rows[0].pid)).size <= 3);
    });

    it('that are refused say what the server says', async () => {
      const error = await failure(pg.query`INSERT INTO accounts (id, balance) VALUES (${1}, ${5})`);
      assert.ok(error instanceof SqlError && error instanceof HoldfastError);
      assert.equal(error.code, 'HF_ESQL');
      assert.equal(error.state, '23505');
      assert.equal(error.severity, 'ERROR');
      assert.equal(error.schema, 'public');
      assert.equal(error.table, 'accounts');
      assert.equal(error.constraint, 'accounts_pkey');
      assert.match(error.detail, /\(id\)=\(1\)/);
      assert.equal(error.hint, null);
      assert.equal(error.retryable, false);
      const syntax = await failure(pg.query('SELECT 1 FRM accounts'));
      assert.equal(syntax.state, '42601');
      assert.equal(syntax.position, 14);
      assert.equal((await pg.query('SELECT 1 AS one')).rows[0].one, 1);
      // And where it was called.
      assert.match(error.stack, /postgres-sql\.test\.js/);
      const inside = await failure(pg.transaction((tx) => tx.query('SELECT 1 FRM accounts')));
      assert.match(inside.stack, /^SqlError: [^]*postgres-sql\.test\.js/);
    });

    it('end with their time, without an effect', async () => {
      const slow = 'UPDATE accounts SET balance = 0 WHERE pg_sleep(30) IS NOT NULL';
      const error = await failure(pg.query(slow, [], { timeout: 100 }));
      assert.equal(error.code, 'HF_ETIMEDOUT');
      assert.ok(!(error instanceof LockTimeoutError));
      const other = await failure(pg.query({ text: slow, timeout: '0.1s' }));
      assert.equal(other.code, 'HF_ETIMEDOUT');
      assert.equal((await at.rows('SELECT min(balance) AS least FROM accounts'))[0].least, 100);
    });

    it('end with their signal', async () => {
      const controller = new AbortController();
      const reason = new Error('mine');
      const waiting = failure(pg.query('SELECT pg_sleep(30)', [], { signal: controller.signal }));
      await until(async () => (await at.rows('SELECT FROM pg_stat_activity ' +
        'WHERE query = \'SELECT pg_sleep(30)\' AND state = \'active\'')).length > 0, 'it is there');
      controller.abort(reason);
      assert.equal(await waiting, reason);
      assert.equal(await failure(pg.query('SELECT 1', [], { signal: controller.signal })), reason);
    });

    it('are refused by what they are made of', async () => {
      const wrong = [
        [[7], 'TypeError', /^sql must be a string, a template or an object/],
        [[undefined], 'TypeError', /^sql must be/], [[['SELECT 1']], 'TypeError', /^sql must be.*an array/],
        [[{}], 'TypeError', /^sql.text must be/],
        [[{ text: 'SELECT 1', valuse: [] }], 'TypeError', /did you mean values/],
        [['SELECT $1', 7], 'TypeError', /^params must be an array/],
        [[{ text: 'SELECT $1', values: {} }], 'TypeError', /^sql.values must be an array/],
        [['SELECT $1', [() => {}]], 'TypeError', /^params\[0\] must be a value/],
        [['SELECT 1', [], 7], 'TypeError', /^options/],
        [['SELECT 1', [], { timeuot: 5 }], 'TypeError', /did you mean timeout/],
        [['SELECT 1', [], { timeout: 0 }], 'RangeError', /^options.timeout/],
        [['SELECT 1', [], { signal: 1 }], 'TypeError', /^options.signal/],
        [['SELECT 1', [], { rowMode: 'rows' }], 'RangeError', /^options.rowMode/],
        [['SELECT 1\0'], 'RangeError', /^sql must not contain NUL/],
        [['SELECT $1', ['\0']], 'RangeError', /^params\[0\] must not contain NUL/],
      ];
      for (const [args, name, message] of wrong) await rejects(pg.query(...args), name, message);
      for (const sql of ['BEGIN', ' start transaction', '/* a */ -- b\n;Commit', 'rollback to a',
        'SAVEPOINT a', 'END', 'ABORT', 'prepare transaction \'a\'', 'RELEASE a']) {
        await rejects(pg.query(sql), 'TypeError', /^sql must not begin or end a transaction/);
      }
    });

    it('are refused as templates where a value cannot be one', async () => {
      const part = { text: 'balance > $1', values: [5] };
      await rejects(pg.query`SELECT ${part}`, 'TypeError', /place 1 is a statement/);
      await rejects(pg.query`SELECT ${1}, ${Promise.resolve(2)}`, 'TypeError', /place 2 is a Promise/);
      await rejects(pg.query`SELECT '${1}'`, 'TypeError', /place 1 must not stand in quotes/);
      await rejects(pg.query`SELECT ${() => {}}`, 'TypeError', /values\[0\] must be a value/);
      await rejects(pg.query`SELECT '\u'`, 'TypeError', /escape/);
    });

    it('are refused after close()', async () => {
      const other = at.connect();
      await other.close();
      assert.equal((await failure(other.query('SELECT 1'))).code, 'HF_ECLOSED');
      assert.equal((await failure(other.transaction(() => {}))).code, 'HF_ECLOSED');
    });
  });

  describe(`transactions${how}`, () => {
    const at = usePg(options);
    let pg;
    beforeEach(() => { ({ pg } = at); });

    const balance = async (id) =>
      (await at.rows('SELECT balance FROM accounts WHERE id = $1', [id]))[0].balance;
    const set = (tx, id, to) => tx.query`UPDATE accounts SET balance = ${to} WHERE id = ${id}`;

    it('commit what they did when their function returns', async () => {
      const result = await pg.transaction(async (tx) => {
        assert.ok(tx instanceof Transaction);
        await set(tx, 1, 7);
        assert.equal(await balance(1), 100);
        return 'done';
      });
      assert.equal(result, 'done');
      assert.equal(await balance(1), 7);
      assert.equal(await pg.transaction(() => 5), 5);
    });

    it('roll back when it throws, and its own error wins', async () => {
      const thrown = new Error('mine');
      assert.equal(await failure(pg.transaction(async (tx) => {
        await set(tx, 1, 7);
        throw thrown;
      })), thrown);
      assert.equal(await failure(pg.transaction(async (tx) => {
        await tx.query('SELECT 1 / 0').catch(() => {});
        throw thrown;
      })), thrown);
      assert.equal(await balance(1), 100);
    });

    it('have the isolation and the rights that were asked for', async () => {
      const show = async (tx) => (await tx.query('SELECT current_setting(' +
        '\'transaction_isolation\') AS level, current_setting(\'transaction_read_only\') AS only')
      ).rows[0];
      assert.deepEqual(await pg.transaction(show), { level: 'read committed', only: 'off' });
      for (const isolation of ['read committed', 'repeatable read', 'serializable']) {
        assert.deepEqual(await pg.transaction(show, { isolation, readOnly: true }),
          { level: isolation, only: 'on' });
        assert.deepEqual(await pg.transaction({ isolation }, show),
          { level: isolation, only: 'off' });
      }
      const error = await failure(pg.transaction((tx) => set(tx, 1, 7), { readOnly: true }));
      assert.equal(error.state, '25006');
    });

    it('run again what failed because of others', async () => {
      let runs = 0;
      const other = at.connect();
      const add = (n) => async (tx) => {
        runs += 1;
        const { rows: [{ balance: now }] } =
          await tx.query('SELECT balance FROM accounts WHERE id = 1');
        if (runs === 1) {
          await other.query('UPDATE accounts SET balance = balance + 1 WHERE id = 1');
        }
        await set(tx, 1, now + n);
      };
      await pg.transaction(add(10), { isolation: 'serializable' });
      assert.equal(runs, 2);
      assert.equal(await balance(1), 111);
      runs = 0;
      const error = await failure(pg.transaction(add(10),
        { isolation: 'serializable', retries: 0 }));
      assert.equal(error.state, '40001');
      assert.equal(error.retryable, true);
      assert.equal(runs, 1);
    });

    it('run again after a deadlock, also where their function went on or wrapped it', async () => {
      const rethrow = (error) => { throw error; };
      const wrapped = (cause) => { throw new Error('wrapped', { cause }); };
      for (const wrap of [rethrow, wrapped, () => {}]) {
        const met = [deferred(), deferred()];
        const cross = (i) => {
          let runs = 0;
          return pg.transaction(async (tx) => {
            runs += 1;
            await set(tx, 1 + i, runs);
            met[i].resolve();
            await met[1 - i].promise;
            await set(tx, 2 - i, runs).catch(wrap);
            return runs;
          }, { timeout: '20s' });
        };
        const runs = await Promise.all([cross(0), cross(1)]);
        assert.deepEqual(runs.sort(), [1, 2]);
      }
    });

    it('do not run again what failed for another reason', async () => {
      let runs = 0;
      const error = await failure(pg.transaction(async (tx) => {
        runs += 1;
        await tx.query('SELECT 1 / 0');
      }));
      assert.equal(error.state, '22012');
      assert.equal(runs, 1);
    });

    it('are rolled back where a statement failed and the function went on', async () => {
      const error = await failure(pg.transaction(async (tx) => {
        await set(tx, 1, 7);
        await tx.query('SELECT 1 / 0').catch(() => {});
      }));
      assert.ok(error instanceof SqlError);
      assert.match(error.message, /was rolled back.*had failed.*division by zero.*tx\.transaction/s);
      assert.equal(error.cause.state, '22012');
      assert.equal(await balance(1), 100);
    });

    it('are rolled back, and say so, where a query was not awaited', async () => {
      const error = await failure(pg.transaction(async (tx) => {
        await set(tx, 1, 7);
        set(tx, 2, 7);
        tx.query('SELECT 1 / 0');
      }));
      assert.equal(error.code, 'HF_EINVAL');
      assert.match(error.message, /while 2 queries of it were under way.*await/s);
      const inner = await failure(pg.transaction(async (tx) => {
        tx.transaction(() => set(tx, 1, 7));
      }));
      assert.match(inner.message, /while a query of it was under way/);
      const inside = await failure(pg.transaction((tx) => tx.transaction(async (part) => {
        set(part, 1, 7);
      })));
      assert.match(inside.message, /while a query of it was under way/);
      assert.equal(await balance(1), 100);
      assert.equal(await balance(2), 200);
    });

    it('are of no use after their end', async () => {
      const kept = await pg.transaction((tx) => tx);
      for (const use of [() => kept.query('SELECT 1'), () => kept.transaction(() => {}),
        () => kept.affectOne('SELECT 1'), () => kept.forUpdate('accounts', { id: 1 }),
        () => kept.advisoryLock(1), () => kept.tryAdvisoryLock(1),
        () => kept.upsert('accounts', { id: 1 }, { key: 'id' })]) {
        const error = await failure(use());
        assert.equal(error.code, 'HF_EINVAL');
        assert.match(error.message, /^the transaction has ended/);
      }
    });

    it('have parts that may fail by themselves', async () => {
      await pg.transaction(async (tx) => {
        await set(tx, 1, 7);
        const error = await failure(tx.transaction(async (part) => {
          await set(part, 1, 8);
          await part.transaction((deeper) => set(deeper, 2, 8));
          await part.query('SELECT 1 / 0');
        }));
        assert.equal(error.state, '22012');
        const thrown = new Error('mine');
        assert.equal(await failure(tx.transaction(async (part) => {
          await set(part, 3, 8);
          throw thrown;
        })), thrown);
        const went = await failure(tx.transaction(async (part) => {
          await part.query('SELECT 1 / 0').catch(() => {});
        }));
        assert.match(went.message, /its function went on: division by zero/);
        assert.equal(await tx.transaction((part) => set(part, 4, 9).then(() => 'kept')), 'kept');
      });
      assert.deepEqual(await Promise.all([1, 2, 3, 4].map(balance)), [7, 200, 300, 9]);
    });

    it('and their parts take turns', async () => {
      await pg.transaction(async (tx) => {
        await tx.transaction(async (part) => {
          for (const use of [() => tx.query('SELECT 1'), () => tx.transaction(() => {})]) {
            const error = await failure(use());
            assert.equal(error.code, 'HF_EINVAL');
            assert.match(error.message, /^a tx\.transaction\(\) of it is at work/);
          }
          await set(part, 1, 7);
        });
        const parts = [0, 1].map(() => tx.transaction((part) => part.query('SELECT 1')));
        const [first, second] = await Promise.allSettled(parts);
        assert.equal(first.status, 'fulfilled');
        assert.match(second.reason.message, /is at work/);
        await set(tx, 2, 7);
      });
      assert.equal(await balance(2), 7);
    });

    it('end with their time or their signal', async () => {
      let told;
      const slow = (opts) => failure(pg.transaction(async (tx) => {
        told = new Promise((resolve) => {
          tx.signal.addEventListener('abort', () => resolve(tx.signal.reason));
        });
        await set(tx, 1, 7);
        await tx.query('SELECT pg_sleep(30)');
      }, opts));
      const late = await slow({ timeout: 200 });
      assert.equal(late.code, 'HF_ETIMEDOUT');
      assert.equal((await told).code, 'HF_ETIMEDOUT');
      const controller = new AbortController();
      const reason = new Error('mine');
      setTimeout(() => controller.abort(reason), 100);
      assert.equal(await slow({ signal: controller.signal }), reason);
      assert.equal(await told, reason);
      // A function that does not look at either is not committed.
      const quick = new AbortController();
      assert.equal(await failure(pg.transaction(async (tx) => {
        await set(tx, 1, 7);
        quick.abort(reason);
      }, { signal: quick.signal })), reason);
      assert.equal(await balance(1), 100);
    });

    it('name the cause where one waits for a connection that it keeps itself', async () => {
      const one = at.connect({ max: 1 });
      const within = await failure(one.transaction(
        () => one.query('SELECT 1', [], { timeout: 200 })));
      assert.equal(within.code, 'HF_ETIMEDOUT');
      assert.match(within.message, /within the function of a transaction.*use tx there.*max/s);
      const nested = await failure(one.transaction(
        () => one.transaction(() => {}, { timeout: 200 })));
      assert.match(nested.message, /within the function of a transaction/);
      // Whoever is not within does not stand in its own way.
      const outside = new AsyncResource('outside');
      const other = await failure(one.transaction(() => outside.runInAsyncScope(
        () => one.query('SELECT 1', [], { timeout: 200 }))));
      assert.doesNotMatch(other.message, /within the function/);
    });

    it('are refused by what they are given', async () => {
      const fn = () => {};
      for (const [args, name, message] of [
        [[], 'TypeError', /^fn must be a function/], [[{}], 'TypeError', /^fn/],
        [[Promise.resolve()], 'TypeError', /^fn is a Promise/],
        [[fn, 7], 'TypeError', /^options/],
        [[fn, { retires: 5 }], 'TypeError', /did you mean retries/],
        [[fn, { isolation: 'snapshot' }], 'RangeError', /^options.isolation/],
        [[fn, { readOnly: 1 }], 'TypeError', /^options.readOnly/],
        [[fn, { retries: -1 }], 'RangeError', /^options.retries/],
        [[fn, { timeout: 0 }], 'RangeError', /^options.timeout/],
        [[fn, { signal: {} }], 'TypeError', /^options.signal/],
      ]) await rejects(pg.transaction(...args), name, message);
      await pg.transaction(async (tx) => {
        await rejects(tx.transaction(), 'TypeError', /^fn must be/);
        await rejects(tx.transaction(fn, { retries: 1 }), 'TypeError', /has no options/);
        await rejects(tx.query('COMMIT'), 'TypeError', /must not begin or end/);
        await rejects(tx.query(7), 'TypeError', /^sql must be/);
      });
    });
  });

  describe(`guarded changes${how}`, () => {
    const at = usePg(options);
    let pg;
    beforeEach(() => { ({ pg } = at); });
    const all = () => at.rows('SELECT id, balance, owner, version FROM accounts ORDER BY id');

    const debit = 'UPDATE accounts SET balance = balance - $1 WHERE id = $2 AND balance >= $1 ' +
      'RETURNING balance';

    it('affectOne affects one row', async () => {
      const { rows, rowCount } = await pg.affectOne(debit, [30, 1]);
      assert.deepEqual([rows, rowCount], [[{ balance: 70 }], 1]);
      await pg.affectOne`DELETE FROM accounts WHERE id = ${5}`;
      assert.equal((await all()).length, 4);
    });

    it('affectOne says that it affected none, or undoes what it did to several', async () => {
      const before = await all();
      const none = await failure(pg.affectOne(debit, [500, 1]));
      assert.ok(none instanceof ConflictError);
      assert.match(none.message, /affected 0 rows, not one: its condition does not hold/);
      const several = await failure(pg.affectOne`UPDATE accounts SET balance = 0 WHERE id > ${3}`);
      assert.ok(several instanceof ConflictError);
      assert.match(several.message, /affected 2 rows, not one: it was rolled back/);
      const odd = await failure(pg.affectOne('CREATE TABLE IF NOT EXISTS accounts (id int)'));
      assert.match(odd.message, /CREATE does not affect rows/);
      // In a transaction whose function goes on after it, nothing is committed.
      const went = await failure(pg.transaction(async (tx) => {
        await tx.affectOne`UPDATE accounts SET balance = 0 WHERE id > ${3}`.catch(() => {});
      }));
      assert.ok(went instanceof ConflictError);
      assert.deepEqual(await all(), before);
      // But after none it may go on, and a part that did too much can be left behind.
      await pg.transaction(async (tx) => {
        await failure(tx.affectOne(debit, [500, 1]));
        await failure(tx.transaction((part) => part.affectOne`UPDATE accounts SET balance = 0`));
        await tx.affectOne(debit, [1, 1]);
      });
      assert.equal((await all())[0].balance, 99);
    });

    it('upsert inserts, or updates what is there', async () => {
      const first = await pg.upsert('accounts', { id: 9, balance: 1, owner: 'me' }, { key: 'id' });
      assert.deepEqual(first,
        { row: { id: 9, balance: 1, owner: 'me', version: 1, fence: null }, inserted: true });
      const second = await pg.upsert('public.accounts', { id: 9, balance: 2, owner: null },
        { key: ['id'] });
      assert.equal(second.inserted, false);
      assert.deepEqual([second.row.balance, second.row.owner], [2, null]);
      const some = await pg.upsert(['public', 'accounts'], { id: 9, balance: 3, owner: 'you' },
        { key: 'id', update: ['owner'] });
      assert.deepEqual([some.row.balance, some.row.owner], [2, 'you']);
      const own = await pg.upsert('accounts', { id: 9, balance: 3 },
        { key: 'id', update: { balance: 50 } });
      assert.equal(own.row.balance, 50);
      const kept = await pg.upsert('accounts', { id: 9, balance: 4 }, { key: 'id', update: false });
      assert.deepEqual([kept.inserted, kept.row.balance], [false, 50]);
      const made = await pg.transaction((tx) =>
        tx.upsert('accounts', { id: 10, balance: 4 }, { key: 'id' }));
      assert.equal(made.inserted, true);
    });

    it('upsert is one of all that come at once', async () => {
      const made = await Promise.all(Array.from({ length: 30 }, (_, i) =>
        pg.upsert('accounts', { id: 77, balance: i }, { key: 'id' })));
      assert.equal(made.filter(({ inserted }) => inserted).length, 1);
    });

    it('updateVersioned updates what nobody has changed', async () => {
      const row = await pg.updateVersioned('accounts',
        { where: { id: 1 }, set: { balance: 5, owner: null }, version: 1 });
      assert.deepEqual(row, { id: 1, balance: 5, owner: null, version: 2, fence: null });
      const stale = await failure(pg.updateVersioned('accounts',
        { where: { id: 1 }, set: { balance: 6 }, version: 1 }));
      assert.ok(stale instanceof ConflictError);
      assert.equal(stale.version, 2);
      assert.match(stale.message, /has version 2, not 1: read it again/);
      const gone = await failure(pg.updateVersioned('accounts',
        { where: { id: 99 }, set: { balance: 6 }, version: 1 }));
      assert.ok(gone instanceof ConflictError);
      assert.equal(gone.version, null);
      assert.match(gone.message, /there is no such row/);
      const before = await all();
      const several = await failure(pg.updateVersioned('accounts',
        { where: { id: [2, 3], owner: 'them' }, set: { balance: 6 }, version: 1 }));
      assert.match(several.message, /names several rows.*nothing was changed/);
      assert.deepEqual(await all(), before);
    });

    it('updateVersioned in a transaction, which goes on after a conflict', async () => {
      await pg.transaction(async (tx) => {
        const error = await failure(tx.updateVersioned('accounts',
          { where: { id: 1 }, set: { balance: 6 }, version: 8 }));
        assert.equal(error.version, 1);
        await failure(tx.updateVersioned('accounts',
          { where: { owner: 'them' }, set: { balance: 6 }, version: 1 }));
        await tx.updateVersioned('accounts', { where: { id: 1 }, set: { balance: 6 }, version: 1 });
      });
      assert.deepEqual((await all()).map(({ balance }) => balance), [6, 200, 300, 400, 500]);
    });

    it('updateVersioned by a function, until nobody comes between', async () => {
      let asked = 0;
      const add = (row) => {
        asked += 1;
        return { balance: row.balance + 1 };
      };
      await Promise.all(Array.from({ length: 8 }, () =>
        pg.updateVersioned('accounts', { where: { id: 1 }, set: add, retries: 1000 })));
      assert.deepEqual((await all())[0], { id: 1, balance: 108, owner: 'them', version: 9 });
      assert.ok(asked >= 8);
      const racing = await failure(pg.updateVersioned('accounts', {
        where: { id: 1 }, retries: 2,
        set: async (row) => {
          await at.server.query('UPDATE accounts SET version = version + 1 WHERE id = 1');
          return { balance: row.balance };
        },
      }));
      assert.equal(racing.version, 12);
      assert.match((await failure(pg.updateVersioned('accounts',
        { where: { id: 99 }, set: add }))).message, /there is no such row/);
      const thrown = new Error('mine');
      assert.equal(await failure(pg.updateVersioned('accounts',
        { where: { id: 1 }, set: () => { throw thrown; } })), thrown);
    });

    it('forUpdate locks rows, waits for them, leaves them out or does not wait', async () => {
      await pg.transaction(async (tx) => {
        const rows = await tx.forUpdate('accounts', { id: [1, 2], fence: null }, { orderBy: 'id' });
        assert.deepEqual(rows.map(({ id }) => id), [1, 2]);
        await pg.transaction(async (other) => {
          const free = await other.forUpdate('accounts', { owner: 'them' },
            { skipLocked: true, orderBy: ['owner', 'id'], limit: 2 });
          assert.deepEqual(free.map(({ id }) => id), [3, 4]);
          const error = await failure(other.forUpdate('accounts', { id: 1 }, { noWait: true }));
          assert.ok(error instanceof LockTimeoutError);
          assert.match(error.message, /^the rows are locked by others/);
          assert.equal((await other.forUpdate('accounts', { id: 5 }, { noWait: true })).length, 1);
          await assert.rejects(other.query({
            text: 'SELECT * FROM accounts WHERE id = 1 FOR UPDATE', timeout: 100,
          }), { code: 'HF_ETIMEDOUT' });
        }).catch((error) => assert.equal(error.state, '25P02'));
      });
      await pg.transaction(async (tx) => {
        await tx.forUpdate('accounts', { id: 1 }, { share: true });
        await pg.transaction((other) => other.forUpdate('accounts', { id: 1 },
          { share: true, noWait: true }));
      });
    });

    it('are refused by what they are given', async () => {
      const where = { id: 1 };
      const set = { balance: 1 };
      for (const [call, name, message] of [
        [() => pg.upsert(7, {}, { key: 'id' }), 'TypeError', /^table must be/],
        [() => pg.upsert('', { id: 1 }, { key: 'id' }), 'RangeError', /^table must be a name/],
        [() => pg.upsert('a.b.c', { id: 1 }, { key: 'id' }), 'RangeError', /^table must be/],
        [() => pg.upsert('x'.repeat(64), { id: 1 }, { key: 'id' }), 'RangeError', /^table/],
        [() => pg.upsert('accounts', [], { key: 'id' }), 'TypeError', /^row must be an object/],
        [() => pg.upsert('accounts', {}, { key: 'id' }), 'RangeError', /^row must not be empty/],
        [() => pg.upsert('accounts', { id: undefined }, { key: 'id' }), 'TypeError', /row.id is und/],
        [() => pg.upsert('accounts', { id: 1 }), 'TypeError', /^options.key is missing/],
        [() => pg.upsert('accounts', { id: 1 }, { key: 'no' }), 'TypeError', /^options.key names no/],
        [() => pg.upsert('accounts', { id: 1 }, { key: 'id', update: ['no'] }), 'TypeError',
          /^options.update names no/],
        [() => pg.upsert('accounts', { id: 1 }, { key: [] }), 'RangeError', /^options.key/],
        [() => pg.updateVersioned('accounts', { where, set }), 'TypeError', /^options.version/],
        [() => pg.updateVersioned('accounts', { where: {}, set, version: 1 }), 'RangeError',
          /^options.where must not be empty/],
        [() => pg.updateVersioned('accounts', { where: { id: undefined }, set, version: 1 }),
          'TypeError', /^options.where.id is undefined/],
        [() => pg.updateVersioned('accounts', { where, set: { version: 5 }, version: 1 }),
          'TypeError', /^options.set must not have version/],
        [() => pg.updateVersioned('accounts', { where, set: () => set, version: 1 }), 'TypeError',
          /unknown option 'version'/],
        [() => pg.updateVersioned('accounts', { where, set: () => set, retries: -1 }),
          'RangeError', /^options.retries/],
        [() => pg.updateVersioned('accounts', { where, set, version: 1, retries: 1 }), 'TypeError',
          /unknown option 'retries'/],
        [() => pg.transaction((tx) => tx.forUpdate('accounts')), 'TypeError', /^where must be/],
        [() => pg.transaction((tx) => tx.forUpdate('accounts', {})), 'RangeError', /^where must/],
        [() => pg.transaction((tx) => tx.forUpdate('accounts', where,
          { skipLocked: true, noWait: true })), 'TypeError', /exclude each other/],
        [() => pg.transaction((tx) => tx.forUpdate('accounts', where, { share: 1 })), 'TypeError',
          /^options.share/],
        [() => pg.transaction((tx) => tx.forUpdate('accounts', where, { limit: 0 })), 'RangeError',
          /^options.limit/],
        [() => pg.transaction((tx) => tx.advisoryLock({})), 'TypeError', /^id must be/],
        [() => pg.transaction((tx) => tx.advisoryLock(1, { dedicated: true })), 'TypeError',
          /unknown option/],
        [() => pg.transaction((tx) => tx.tryAdvisoryLock(1, { wait: 1 })), 'TypeError', /unknown/],
        [() => pg.transaction((tx) => tx.finishRecord({})), 'TypeError', /^run must be/],
        [() => pg.affectOne(7), 'TypeError', /^sql must be/],
        [() => pg.transaction((tx) => tx.affectOne('SELECT $1', 7)), 'TypeError', /^params must/],
        [() => pg.transaction((tx) => tx.upsert('t', {}, {})), 'TypeError', /^options.key is mis/],
        [() => pg.transaction((tx) => tx.updateVersioned('t', { where, set })), 'TypeError',
          /^options.version/],
        [async () => statements.affectOne(7), 'TypeError', /^sql must be/],
        [async () => statements.affectOne('SELECT $1', 7), 'TypeError', /^params must be an array/],
        [async () => statements.updateVersioned('t', { where, set }), 'TypeError', /^options.ver/],
        [async () => statements.upsert('t', {}, { key: 'id' }), 'RangeError', /^row must not be/],
        [async () => statements.forUpdate('t', []), 'TypeError', /^where must be an object/],
        [async () => statements.advisoryXactLock({}), 'TypeError', /^id must be/],
        [async () => statements.advisoryXactLock(1, { shared: 1 }), 'TypeError', /^options.shared/],
        [async () => statements.fencedUpdate('t', { where, set, fence: 1, column: '' }),
          'RangeError', /^options.column/],
      ]) await rejects(Promise.resolve().then(call), name, message);
    });

    it('and all there is has been tried so', () => {
      const known = { // each with a test above that gives it something wrong
        pg: ['query', 'transaction', 'affectOne', 'upsert', 'updateVersioned'],
        tx: ['query', 'transaction', 'affectOne', 'upsert', 'updateVersioned', 'forUpdate',
          'advisoryLock', 'tryAdvisoryLock', 'finishRecord'],
        statements: ['finishRecord', 'fencedUpdate', 'affectOne', 'updateVersioned', 'upsert',
          'forUpdate', 'advisoryXactLock'],
      };
      const elsewhere = ['advisoryLock', 'tryAdvisoryLock', 'withAdvisoryLock', 'advisoryLocks',
        'close', 'holdfast', 'statements', 'signal'];
      const methods = (Class) => Object.getOwnPropertyNames(Class.prototype)
        .filter((name) => name !== 'constructor');
      const callable = (Class) => methods(Class).filter((name) => !elsewhere.includes(name)).sort();
      assert.deepEqual(callable(Postgres), known.pg.sort());
      assert.deepEqual(methods(Transaction).sort(), [...known.tx, 'signal'].sort());
      assert.deepEqual(Object.keys(statements).sort(), known.statements.sort());
    });

    it('take names that have to be quoted', async () => {
      await at.server.query('DROP SCHEMA IF EXISTS "My ""own""" CASCADE');
      await at.server.query('CREATE SCHEMA "My ""own"""');
      await at.server.query('CREATE TABLE "My ""own"""."select" ' +
        '("from;" int PRIMARY KEY, "a b" text)');
      const table = ['My "own"', 'select'];
      const row = { 'from;': 1, 'a b': '\'; DROP TABLE accounts; --' };
      assert.deepEqual((await pg.upsert(table, row, { key: 'from;' })).row, row);
      await pg.transaction(async (tx) => {
        assert.deepEqual(await tx.forUpdate(table, row), [row]);
      });
      assert.equal((await all()).length, 5);
    });
  });

  describe(`advisory locks of transactions${how}`, () => {
    const at = usePg(options);
    let pg;
    beforeEach(() => { ({ pg } = at); });

    it('last until their end', async () => {
      await pg.transaction(async (tx) => {
        assert.equal(await tx.advisoryLock('name'), undefined);
        await tx.advisoryLock([1, 2], { shared: true });
        await pg.transaction(async (other) => {
          assert.equal(await other.tryAdvisoryLock('name'), false);
          assert.equal(await other.tryAdvisoryLock([1, 2]), false);
          assert.equal(await other.tryAdvisoryLock([1, 2], { shared: true }), true);
          assert.equal(await other.tryAdvisoryLock(7n), true);
        });
      });
      await pg.transaction(async (tx) => assert.equal(await tx.tryAdvisoryLock('name'), true));
    });

    it('are waited for, for so long as was said, and the transaction goes on', async () => {
      await pg.transaction(async (tx) => {
        await tx.advisoryLock(42);
        await pg.transaction(async (other) => {
          await other.query('SET LOCAL lock_timeout = \'7s\'');
          const show = async () =>
            (await other.query('SHOW lock_timeout')).rows[0].lock_timeout;
          for (const wait of [0, 50]) {
            const error = await failure(other.advisoryLock(42, { wait }));
            assert.ok(error instanceof LockTimeoutError);
            assert.equal(error.key, '42');
            assert.match(error.message, new RegExp(`lock 42 was not free within ${wait} ms`));
          }
          assert.equal(await show(), '7s');
          await other.advisoryLock(43, { wait: '1s' });
          await other.advisoryLock(44, { wait: Infinity });
          assert.equal(await show(), '7s');
        });
      });
      const held = deferred();
      const first = pg.transaction(async (tx) => {
        await tx.advisoryLock(42);
        held.resolve();
        await sleep(50);
      });
      await held.promise;
      await pg.transaction((tx) => tx.advisoryLock(42));
      await first;
    });
  });
}

describe('records finished in a transaction', () => {
  const at = usePg();
  let hf;
  let pg;
  let client;
  let schema;
  let serial = 0;
  beforeEach(async () => {
    schema = `own_${++serial}`;
    hf = await open(at.server.url({ schema }));
    pg = postgres(hf);
    client = new Client({ connectionString: at.server.url() });
    client.on('error', () => {});
    await client.connect();
  });
  afterEach(async () => {
    await hf.close({ timeout: 0 });
    await client.end();
  });

  const payments = async () =>
    (await at.rows('SELECT count(*)::int AS n FROM accounts WHERE id > 5'))[0].n;

  it('are done if and when that commits, by a client of one\'s own', async () => {
    const pay = (fate) => hf.once('pay', { fingerprint: { cents: 5 } }, async (run) => {
      await client.query('BEGIN');
      await client.query('INSERT INTO accounts (id, balance) VALUES (6, 5)');
      const value = { paid: 5, ok: 'Straße' };
      await client.query(pg.statements.finishRecord(run, value));
      assert.equal((await hf.record('pay')).state, 'running');
      await client.query(fate);
      if (fate === 'ROLLBACK') throw new Error('undone');
      assert.equal((await hf.record('pay')).state, 'done');
      return value;
    });
    await rejects(pay('ROLLBACK'), 'Error', /undone/);
    assert.equal(await hf.record('pay'), null);
    assert.equal(await payments(), 0);
    assert.deepEqual(await pay('COMMIT'), { paid: 5, ok: 'Straße' });
    assert.deepEqual(await pay('COMMIT'), { paid: 5, ok: 'Straße' }); // replayed
    assert.equal(await payments(), 1);
    const mismatch = await failure(hf.once('pay', { fingerprint: { cents: 6 } }, () => {}));
    assert.equal(mismatch.code, 'HF_EMISMATCH');
  });

  it('hold whatever a record holds, as long as it does', async () => {
    const values = [undefined, null, 0, '', { a: [1] }, Buffer.from([0, 255])];
    for (const [i, value] of values.entries()) {
      await hf.once(`v${i}`, { ttl: '1h' }, (run) => pg.transaction(async (tx) => {
        await tx.finishRecord(run, value);
        return value;
      }));
      assert.deepEqual(await hf.once(`v${i}`, () => assert.fail('again')), value);
      const { expiresAt } = await hf.record(`v${i}`);
      assert.ok(Math.abs(expiresAt - Date.now() - 3600_000) < 60_000);
    }
    await hf.once('for ever', { ttl: Infinity }, (run) =>
      pg.transaction((tx) => tx.finishRecord(run, 1).then(() => 1)));
    assert.equal((await hf.record('for ever')).expiresAt, null);
    const inside = hf.namespace('inside');
    await inside.once('key', (run) =>
      pg.transaction((tx) => tx.finishRecord(run, 7).then(() => 7)));
    assert.equal((await inside.record('key')).value, 7);
  });

  it('stay done where the function fails after the commit', async () => {
    await rejects(hf.once('late', async (run) => {
      await pg.transaction((tx) => tx.finishRecord(run, 'done'));
      throw new Error('the answer was lost');
    }), 'Error', /answer was lost/);
    assert.equal(await hf.once('late', () => assert.fail('again')), 'done');
    await rejects(hf.once('kept', { keepErrors: true }, async (run) => {
      await pg.transaction((tx) => tx.finishRecord(run, 'done'));
      throw new Error('the answer was lost');
    }), 'Error', /answer was lost/);
    assert.equal(await hf.once('kept', () => assert.fail('again')), 'done');
  });

  it('leave their run alone while it goes on', async () => {
    await hf.once('long', { lease: 300 }, async (run) => {
      await pg.transaction((tx) => tx.finishRecord(run, 'done'));
      await sleep(700);
      assert.equal(run.signal.aborted, false);
      return 'done';
    });
  });

  it('fail the transaction of a run that has lost its claim', async () => {
    for (const lose of ['forget', 'take over']) {
      const lost = await failure(hf.once(lose, { lease: '1s' }, (run) =>
        pg.transaction(async (tx) => {
          await tx.query('INSERT INTO accounts (id, balance) VALUES (6, 5)');
          await hf.forget(lose);
          if (lose === 'take over') await hf.once(lose, () => 'another');
          await tx.finishRecord(run, 5);
        })));
      assert.ok(lost instanceof LockLostError, lost.stack);
      assert.equal(lost.key, lose);
      const statement = await failure(hf.once(`${lose} 2`, async (run) => {
        await hf.forget(`${lose} 2`);
        await client.query('BEGIN');
        await client.query('INSERT INTO accounts (id, balance) VALUES (6, 5)');
        try {
          await client.query(statements.finishRecord(run, 5));
        } finally {
          await client.query('COMMIT'); // which PostgreSQL makes a rollback
        }
      }));
      assert.equal(statement.code, 'HF001');
      assert.match(statement.message, /too late.*taken over or forgotten/);
    }
    assert.equal(await payments(), 0);
    assert.equal(await hf.once('take over', () => 'new'), 'another');
  });

  it('take no run of another store, and no value that is none', async () => {
    const memory = await open('memory:');
    await memory.once('a', async (run) => {
      assert.throws(() => statements.finishRecord(run, 1), { name: 'TypeError', message: /memory/ });
    });
    await memory.close();
    const app = express();
    app.post('/', idempotency(hf), (req, res) => {
      assert.throws(() => statements.finishRecord(req.idempotency, 1),
        { name: 'TypeError', message: /idempotent route/ });
      res.sendStatus(201);
    });
    const server = app.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { status } = await fetch(`http://127.0.0.1:${server.address().port}/`,
      { method: 'POST', headers: { 'idempotency-key': 'a' } });
    assert.equal(status, 201);
    server.close();
    await hf.once('a', async (run) => {
      for (const [value, message] of [[() => {}, /^value must be JSON/], [new Map(), /^value must not/],
        [Promise.resolve(), /^value is a Promise/], [1n, /^value must be JSON/]]) {
        assert.throws(() => statements.finishRecord(run, value), { name: 'TypeError', message });
      }
    });
  });
});

describe('plain statements', () => {
  const at = usePg();
  let hf;
  let client;
  beforeEach(async () => {
    hf = at.pg.holdfast;
    client = new Client({ connectionString: at.server.url() });
    await client.connect();
  });
  afterEach(() => client.end());

  it('are text and values, each once and in order', () => {
    const made = [
      statements.fencedUpdate('t', { set: { a: 1, b: 2 }, where: { c: 3, d: null }, fence: 4 }),
      statements.updateVersioned('t', { set: { a: 1 }, where: { c: [3] }, version: 4 }),
      statements.upsert('t', { a: 1, b: 2 }, { key: 'a', update: { b: 3 } }),
      statements.forUpdate('t', { a: 1, b: 2 }), statements.advisoryXactLock([1, 2]),
      statements.affectOne('UPDATE t SET a = $1', [1]),
    ];
    for (const { text, values } of made) {
      assert.deepEqual([...text.matchAll(/\$(\d+)/g)].map(([, n]) => Number(n)),
        values.map((_, i) => i + 1), text);
    }
    assert.equal(at.pg.statements, statements);
  });

  it('fencedUpdate refuses who comes with an older fence', async () => {
    const update = (guard, to, id = 1) => client.query(statements.fencedUpdate('accounts',
      { set: { balance: to }, where: { id }, ...guard }));
    const lock = await hf.lock('accounts');
    const { rows: [row] } = await update({ lock }, 1);
    assert.deepEqual([row.balance, row.fence], [1, String(lock.fence)]);
    await update({ fence: lock.fence }, 2);
    await lock.release();
    await hf.withLock('accounts', (newer) => update({ lock: newer }, 3));
    const stale = await failure(update({ fence: lock.fence }, 4));
    assert.equal(stale.code, '22P02');
    assert.match(stale.message, /holdfast: the row has seen a newer fence/);
    await assert.rejects(update({ fence: lock.fence }, 4, 99), /is not there/);
    assert.equal((await at.rows('SELECT balance FROM accounts WHERE id = 1'))[0].balance, 3);
  });

  it('fencedUpdate takes what can guard a write', async () => {
    const make = (guard) =>
      statements.fencedUpdate('t', { set: { a: 1 }, where: { b: 1 }, ...guard });
    const shared = await hf.lock('a', { mode: 'shared' });
    for (const [guard, name, message] of [
      [{}, 'TypeError', /a lock or a fence/], [{ fence: 1, lock: shared }, 'TypeError', /one of the/],
      [{ lock: shared }, 'TypeError', /options.lock is a shared Lock/],
      [{ lock: Promise.resolve() }, 'TypeError', /await the lock/],
      [{ lock: {} }, 'TypeError', /must be a Lock/], [{ fence: null }, 'TypeError', /got null/],
      [{ fence: 0 }, 'RangeError', /options.fence/], [{ fence: '1' }, 'TypeError', /options.fence/],
    ]) assert.throws(() => make(guard), { name, message });
    await hf.once('run', (run) => {
      assert.throws(() => make({ lock: run }), { name: 'TypeError', message: /a Run/ });
    });
  });

  it('affectOne and updateVersioned fail by themselves', async () => {
    const good = await client.query(statements.affectOne(
      'UPDATE accounts SET balance = 1 WHERE id = $1 -- one', [1]));
    assert.equal(good.rowCount, 1);
    const { rows } = await client.query(statements.affectOne(
      'UPDATE accounts SET balance = 1 WHERE id = $1 RETURNING id;', [1]));
    assert.deepEqual(rows, [{ id: 1 }]);
    for (const id of [[99], [1, 2]]) {
      await assert.rejects(client.query(statements.affectOne(
        'UPDATE accounts SET balance = 7 WHERE id = ANY ($1)', [id])), /exactly one row/);
    }
    const versioned = (version) => client.query(statements.updateVersioned('accounts',
      { set: { balance: 2 }, where: { id: 1 }, version }));
    assert.equal((await versioned(1)).rows[0].version, 2);
    await assert.rejects(versioned(1), /the row is gone or has another version/);
    assert.deepEqual(await at.rows('SELECT id FROM accounts WHERE balance = 7'), []);
  });

  it('upsert, forUpdate and advisoryXactLock are those of pg and tx', async () => {
    const { rows: [row] } = await client.query(statements.upsert('accounts',
      { id: 6, balance: 1 }, { key: 'id' }));
    assert.equal(row.holdfast_inserted, true);
    await client.query('BEGIN');
    assert.equal((await client.query(statements.forUpdate('accounts', { id: 6 }))).rowCount, 1);
    await client.query(statements.advisoryXactLock('name'));
    await at.pg.transaction(async (tx) => {
      assert.equal(await tx.tryAdvisoryLock('name'), false);
      await rejects(tx.forUpdate('accounts', { id: 6 }, { noWait: true }), 'LockTimeoutError', /./);
    });
    await client.query('COMMIT');
  });
});

describe('a connection that breaks', () => {
  const at = usePg();

  it('fails the statement, and leaves open whether it took effect', async () => {
    const { pg, server } = at;
    const error = failure(pg.query('SELECT pg_sleep(30)'));
    await until(async () => (await at.rows('SELECT FROM pg_stat_activity ' +
      'WHERE query = \'SELECT pg_sleep(30)\' AND state = \'active\'')).length > 0, 'it is there');
    await server.terminate();
    const broken = await error;
    assert.ok(broken instanceof UnavailableError, broken.stack);
    assert.equal(broken.outcomeUnknown, true);
    assert.equal((await pg.query('SELECT 1 AS one')).rows[0].one, 1);
  });

  it('rolls a transaction back, and tells tx.signal', async () => {
    const { pg, server } = at;
    let runs = 0;
    let signal;
    const error = await failure(pg.transaction(async (tx) => {
      runs += 1;
      ({ signal } = tx);
      await tx.query('UPDATE accounts SET balance = 0');
      await server.terminate();
      await tx.query('SELECT 1');
    }));
    assert.ok(error instanceof UnavailableError, error.stack);
    assert.equal(signal.aborted, true);
    assert.equal(runs, 1);
    assert.equal((await at.rows('SELECT min(balance) AS least FROM accounts'))[0].least, 100);
  });

  it('at the commit leaves open whether it landed, and nothing is run again', async () => {
    const { pg, server } = at;
    // What waits within the commit.
    await server.query(`
      CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(30); RETURN NULL; END';
      CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON accounts DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION dawdle()`);
    let runs = 0;
    const committing = failure(pg.transaction(async (tx) => {
      runs += 1;
      await tx.query('UPDATE accounts SET balance = 0 WHERE id = 1');
    }));
    await until(async () => (await at.rows('SELECT FROM pg_stat_activity ' +
      'WHERE query = \'COMMIT\' AND state = \'active\'')).length > 0, 'it commits');
    await server.terminate();
    const error = await committing;
    await server.query('DROP TRIGGER late ON accounts; DROP FUNCTION dawdle');
    assert.ok(error instanceof UnavailableError, error.stack);
    assert.equal(error.outcomeUnknown, true);
    assert.equal(runs, 1);
  });
});

describe('a network that swallows everything', () => {
  const at = usePg();
  let proxy;
  let far;

  /** Runs a statement that lasts; resolves when the server is at it and nothing gets through. */
  async function sleepIn(options) {
    const sleeping = failure(far.query('SELECT pg_sleep(60)', [], options));
    await until(async () => (await at.rows('SELECT FROM pg_stat_activity ' +
      'WHERE query = \'SELECT pg_sleep(60)\' AND state = \'active\'')).length > 0, 'it is there');
    proxy.blackhole();
    return { sleeping };
  }

  beforeEach(async () => {
    proxy = await Proxy.start({ port: at.server.port }, { opaque: true });
    far = postgres(`postgres://postgres@${proxy.address}/postgres`);
  });

  afterEach(async () => {
    await far.close({ timeout: 0 });
    await proxy.stop();
    await at.server.terminate();
  });

  it('also requests to cancel: a statement that is given up ends all the same', async () => {
    const controller = new AbortController();
    const { sleeping } = await sleepIn({ signal: controller.signal });
    controller.abort();
    assert.equal((await sleeping).name, 'AbortError');
  });

  it('holds up no close', async () => {
    const { sleeping } = await sleepIn();
    await far.close({ timeout: 0 });
    assert.equal((await sleeping).code, 'HF_ECLOSED');
  });
});
