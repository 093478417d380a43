'use strict';

// What is the PostgreSQL store's own: how it is found and signed in at, what it makes there, how it
// gets along with others in the same database, and what users are told when something is wrong.

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { Client } = require('pg');
const { Holdfast, LockLostError, UnavailableError } = require('..');
const { block, endChildren, start, until } = require('./helpers');
const { PgBouncer, PostgresServer, stopAll, usePostgres } = require('./postgres-servers');
const { Proxy } = require('./proxy');
const { failure, useStores } = require('./redis-harness');

const BIN = path.join(__dirname, '..', 'bin', 'holdfast.js');

after(stopAll);

/** Connections of ours, by the names that they give themselves. */
async function clientsOf(server) {
  const { rows } = await server.query(
    'SELECT application_name AS name FROM pg_stat_activity WHERE application_name LIKE $1',
    ['holdfast%']);
  return rows.map(({ name }) => name).sort();
}

/** What the command line prints: the schema as SQL. */
function schemaSql(...args) {
  return execFileSync(process.execPath, [BIN, 'schema', 'postgres', ...args], { encoding: 'utf8' });
}

async function withClient(url, run) {
  const client = new Client({ connectionString: url });
  client.on('error', () => {});
  await client.connect();
  try {
    return await run(client);
  } finally {
    await client.end();
  }
}

describe('a PostgreSQL', () => {
  const scope = usePostgres();
  const openStore = useStores();
  let server;
  before(() => { server = scope.server; });

  describe('is found', () => {
    endChildren();

    async function works(url, options) {
      const hf = await openStore(url, options);
      await hf.withLock('key', () => hf.kv.put('key', 'there'));
      assert.equal((await hf.kv.get('key')).value, 'there');
    }

    it('by a URL of either scheme', async () => {
      await works(server.url());
      await works(server.url().replace('postgres:', 'postgresql:'));
    });

    it('by a name, and by options', async () => {
      await works(`postgres://localhost:${server.port}/postgres`, { username: 'postgres' });
    });

    it('by libpq\'s own words', async () => {
      await works(`postgres:host=127.0.0.1 port=${server.port} user=postgres dbname=postgres`);
    });

    it('by its socket', async () => {
      await works(`postgres://postgres@/postgres?host=${server.folder}&port=${server.port}`);
    });

    it('as the next of several hosts, where the first is not there', async () => {
      const hosts = `127.0.0.1:1,127.0.0.1:${server.port}`;
      await works(`postgres://postgres@${hosts}/postgres?target_session_attrs=read-write`);
    });

    it('by the environment', async () => {
      const env = {
        PGHOST: '127.0.0.1',
        PGPORT: String(server.port),
        PGUSER: 'postgres',
        PGDATABASE: 'postgres',
      };
      const child = start(`
        const hf = await holdfast.open();
        await hf.kv.put('key', 'there');
        say('answer', { value: (await hf.kv.get('key')).value });
        await hf.close();`, 'postgres:', env);
      assert.equal((await child.hear('answer')).value, 'there');
      await child.ended;
    });
  });

  describe('is named by a service', () => {
    let file;

    before(() => {
      const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-service-'));
      file = path.join(folder, 'services.conf');
      fs.writeFileSync(file, `[shop]\nhost=127.0.0.1\nport=${server.port}\nuser=postgres\n` +
      'dbname=postgres\napplication_name=shop\n');
    });

    after(() => fs.rmSync(path.dirname(file), { recursive: true }));

    /** What a process with that file comes to. */
    async function open(url, env = {}) {
      const child = start(`
        let said;
        try {
          const hf = await holdfast.open(${JSON.stringify(url)});
          await hf.kv.put('key', 'there');
          said = (await hf.kv.get('key')).value;
          await hf.close();
        } catch (error) {
          said = error.message;
        }
        say('answer', { said });`, 'memory:', { PGSERVICEFILE: file, ...env });
      const { said } = await child.hear('answer');
      await child.ended;
      return said;
    }

    it('of the URL, of words and of the environment', async () => {
      assert.equal(await open('postgres:?service=shop'), 'there');
      assert.equal(await open('postgres:service=shop'), 'there');
      assert.equal(await open('postgres:', { PGSERVICE: 'shop' }), 'there');
      assert.match(await open('postgres:?service=shop&port=1'), /127\.0\.0\.1:1/);
    });

    it('that is there', async () => {
      assert.match(await open('postgres:?service=other'), /service is the name of one/);
    });
  });

  describe('is not understood', () => {
    const secret = 's3cret';

    for (const [what, params, message] of [
      ['a parameter that nobody knows', 'colour=red', /has no parameter "colour"/],
      ['a schema that is no name', 'schema=Hold-fast', /schema is a name of small letters/],
      ['leases of another kind', 'leases=loose', /leases is "durable" or "relaxed"/],
      ['a pooler of another kind', 'pooler=some', /pooler is "session" or "transaction"/],
      ['another target', 'target_session_attrs=best', /target_session_attrs is any, read-write/],
      ['a port beyond', 'port=70000', /port is a number from 1 to 65535/],
      ['a timeout beyond', 'connectTimeout=1', /connectTimeout is a number from 10/],
      ['a pool of nothing', 'max=0', /max is a number from 1 to 1000/],
      ['idleness beyond', 'idleTimeout=1', /idleTimeout is a number from 10/],
    ]) {
      it(what, () => {
        const url = `postgres://user:${secret}@127.0.0.1/postgres?${params}`;
        assert.throws(() => new Holdfast(url), (error) => {
          assert.ok(error instanceof RangeError, error.message);
          assert.match(error.message, message);
          assert.ok(!error.message.includes(secret));
          return true;
        });
      });
    }

    it('words that are none', () => {
      assert.throws(() => new Holdfast(`postgres:password=${secret} host`), (error) => {
        assert.match(error.message, /libpq's words/);
        assert.ok(!error.message.includes(secret));
        return true;
      });
    });

    it('options of other stores', () => {
      assert.throws(() => new Holdfast(server.url(), { tls: true }),
        { name: 'TypeError', message: /options\.tls .* postgres store does not have/ });
      assert.throws(() => new Holdfast('memory:', { schema: 'x' }), TypeError);
    });
  });

  describe('refuses', () => {
    it('a database that is not there', async () => {
      const error = await failure(openStore(server.url().replace(/\/postgres$/, '/nowhere')));
      assert.equal(error.code, 'HF_ENOENT', error.message);
      assert.match(error.message, /database "nowhere" does not exist/);
      assert.ok(error.message.includes(server.address), error.message);
    });

    it('a role that is not there', async () => {
      const error = await failure(openStore(server.url().replace('postgres@', 'nobody@')));
      assert.equal(error.code, 'HF_EACCES', error.message);
    });

    it('a schema of a newer version', async () => {
      const url = scope.url({ schema: 'newer' });
      await (await openStore(url)).kv.put('key', 1);
      await server.query('UPDATE newer.meta SET version = 1000');
      const error = await failure(openStore(url));
      assert.equal(error.code, 'HF_ESCHEMA', error.message);
      assert.match(error.message, /"newer".*version 1000/);
    });

    it('a user who may not make the schema, until somebody else has', async () => {
      const schema = 'by_hand';
      const url = server.url({ schema }).replace('postgres@', 'shop@');
      await server.query('CREATE ROLE shop LOGIN');
      const error = await failure(openStore(url));
      assert.equal(error.code, 'HF_EACCES', error.message);
      assert.match(error.message, /`holdfast schema postgres`/);
      await server.query(schemaSql('--schema', schema, '--role', 'shop'));
      const hf = await openStore(url);
      await hf.withLock('key', () => hf.kv.put('key', 1));
      assert.equal(await hf.once('once', () => 'done'), 'done');
      assert.ok(await hf.sweep() >= 0);
    });
  });

  describe('has a schema', () => {
    it('that any number of clients make at once', async () => {
      const url = scope.url();
      const stores = await Promise.all(Array.from({ length: 20 }, () => openStore(url)));
      const locks = await Promise.all(stores.map((hf) => hf.tryLock('key')));
      assert.equal(locks.filter((lock) => lock !== null).length, 1);
    });

    it('that is made anew when somebody has removed it', async () => {
      const schema = 'removed';
      const hf = await openStore(server.url({ schema }));
      await hf.kv.put('key', 1);
      const { fence } = await hf.withLock('key', (lock) => lock);
      await server.query(`DROP SCHEMA ${schema} CASCADE`);
      assert.equal(await hf.kv.get('key'), null);
      assert.ok((await hf.lock('key')).fence > fence);
    });

    it('once, where many statements find that it is gone', async () => {
      const schema = 'removed_for_many';
      const hf = await openStore(server.url({ schema }));
      for (let round = 0; round < 20; round++) {
        await hf.kv.put('key', 1);
        await server.query(`DROP SCHEMA ${schema} CASCADE`);
        // What is asked in one turn is many statements where kinds take turns.
        const asked = Array.from({ length: 5 }, (_, i) => [
          hf.kv.get('key'), hf.tryLock(`lock-${round}-${i}`), hf.sweep(), hf.record('run'),
        ]).flat();
        const answers = await Promise.all(asked);
        assert.equal(answers.filter((each) => each === null).length, 10);
      }
    });

    it('but not where it cannot be what it must [slow]', async () => {
      const schema = 'without_functions';
      const hf = await openStore(server.url({ schema }));
      await hf.kv.put('key', 1);
      const rename = (from, to) => server.query(
        `DO $$ BEGIN EXECUTE (SELECT format('ALTER FUNCTION %s RENAME TO ${to}', oid::regprocedure)
         FROM pg_proc WHERE pronamespace = '${schema}'::regnamespace AND proname = '${from}');
         END $$`);
      await rename('entries', 'others');
      await assert.rejects(hf.kv.get('key'), { message: /entries/ });
      await rename('others', 'entries');
      assert.equal((await hf.kv.get('key')).value, 1);
    });

    it('which the printed SQL does not change', async () => {
      const hf = await openStore(server.url({ schema: 'printed' }));
      await hf.kv.put('key', 1);
      await server.query(schemaSql('--schema', 'printed'));
      assert.equal((await hf.kv.get('key')).value, 1);
    });
  });

  describe('is shared with others', () => {
    it('whose transactions hold an entry: reads go on, writes wait', async () => {
      const schema = 'locked';
      const hf = await openStore(server.url({ schema, commandTimeout: 300 }));
      await hf.kv.put('key', 'old');
      await withClient(server.url(), async (client) => {
        await client.query('BEGIN');
        await client.query(`SELECT 1 FROM ${schema}.entry FOR UPDATE`);
        assert.equal((await hf.kv.get('key')).value, 'old');
        const put = hf.kv.put('key', 'new');
        const increment = failure(hf.kv.increment('key'));
        // Nobody else is held up meanwhile.
        await hf.withLock('lock', () => hf.kv.put('another', 1));
        const error = await increment;
        assert.equal(error.code, 'HF_EBUSY', error.message);
        assert.match(error.message, /a transaction that is still open has locked/);
        await client.query('COMMIT');
        await put;
      });
      assert.equal((await hf.kv.get('key')).value, 'new');
    });

    it('who add to the same value at the same time: none is turned away', async () => {
      const url = scope.url();
      const stores = await Promise.all(Array.from({ length: 4 }, () => openStore(url)));
      await Promise.all(stores.map(async (hf) => {
        for (let i = 0; i < 100; i++) await hf.kv.increment('sum', 1);
      }));
      assert.equal((await stores[0].kv.get('sum')).value, 400);
    });

    it('with a few connections, which have names', async () => {
      const before = await clientsOf(server);
      const url = scope.url();
      const hf = await openStore(url);
      const other = await openStore(url);
      const lock = await other.lock('key', { ttl: 300 });
      const waiting = Array.from({ length: 50 }, () => hf.lock('key', { ttl: 300 }));
      await until(async () => (await clientsOf(server)).includes('holdfast-wake'), 'it listens');
      await until(async () => (await clientsOf(server)).includes('holdfast-keeper'), 'it renews');
      await lock.release();
      for (const each of waiting) await (await each).release();
      const names = (await clientsOf(server)).slice(before.length);
      assert.ok(names.length <= 6, names.join());
    });

    it('whose defaults are others', async () => {
      await server.query('CREATE DATABASE strange');
      for (const setting of ['default_transaction_isolation = serializable',
        'default_transaction_read_only = on', 'synchronous_commit = off', 'DateStyle = German',
        'search_path = nowhere']) {
        await server.query(`ALTER DATABASE strange SET ${setting}`);
      }
      const hf = await openStore(server.url().replace(/\/postgres$/, '/strange'));
      await hf.withLock('key', () => hf.kv.put('key', 1));
      assert.equal(await hf.once('once', () => 'done'), 'done');
    });
  });
});

describe('a PostgreSQL that asks for a password', () => {
  const openStore = useStores();
  let server;
  let secret = 's3cret-0';
  before(async () => {
    server = await new PostgresServer({ config: { password_encryption: 'scram-sha-256' } }).start();
    await server.query(`CREATE ROLE app LOGIN SUPERUSER PASSWORD '${secret}'`);
    server.requirePassword('app');
    await server.query('SELECT pg_reload_conf()');
  });

  const url = (password) =>
    `postgres://app${password === undefined ? '' : `:${password}`}@${server.address}/postgres`;

  it('takes the right one, from the URL or an option', async () => {
    await (await openStore(url(secret))).ping();
    await (await openStore(url(), { password: secret })).ping();
  });

  it('refuses another, and nobody sees it', async () => {
    for (const [where, options] of [[url('wr0ng')], [url(), { password: 'wr0ng' }], [url()]]) {
      const error = await failure(openStore(where, options));
      assert.equal(error.code, 'HF_EACCES', error.message);
      assert.ok(!error.message.includes('wr0ng'));
    }
  });

  it('of a function that gives another when it has changed', async () => {
    const given = [];
    const hf = await openStore(url(), {
      password: async () => {
        given.push(secret);
        return secret;
      },
    });
    const lock = await hf.lock('key', { ttl: '1s' });
    secret = 's3cret-1';
    await server.query(`ALTER ROLE app PASSWORD '${secret}'`);
    await server.terminate();
    await hf.kv.put('key', 1);
    const from = Date.now();
    await until(() => Date.now() - from > 1500, 'the lock would have lapsed');
    assert.equal(lock.held, true);
    assert.deepEqual([...new Set(given)], ['s3cret-0', 's3cret-1']);
  });
});

describe('a PostgreSQL that is gone or stands still', () => {
  const scope = usePostgres();
  const openStore = useStores();
  const QUICK = { commandTimeout: 300, connectTimeout: 300 };
  let server;
  before(() => { server = scope.server; });
  afterEach(async () => {
    if (!server.alive) await server.restart();
    if (server.frozen) server.thaw();
  });

  it('and back: what was held is held, fences grow', async () => {
    const url = scope.url(QUICK);
    const hf = await openStore(url);
    const lock = await hf.lock('key', { ttl: '20s' });
    await hf.kv.put('value', 1);
    await server.restart();
    const other = await openStore(url);
    assert.equal(await other.tryLock('key'), null);
    assert.equal((await other.kv.get('value')).value, 1);
    await lock.extend('21s');
    const { fence } = lock;
    assert.equal(await lock.release(), true);
    assert.ok((await other.lock('key')).fence > fence);
  });

  it('and put back to an old copy: the next fence is greater', async () => {
    const url = scope.url(QUICK);
    const hf = await openStore(url);
    await hf.withLock('key', () => {});
    await server.copy();
    let fence;
    for (let i = 0; i < 10; i++) fence = await hf.withLock('key', (lock) => lock.fence);
    await server.putBack();
    assert.ok(await hf.withLock('key', (lock) => lock.fence) > fence);
  });

  it('tryLock says so early; lock waits until it is back', async () => {
    const hf = await openStore(scope.url(QUICK));
    await server.kill();
    const error = await failure(hf.tryLock('key'));
    assert.ok(error instanceof UnavailableError, error.message);
    assert.equal(error.retryable, true);
    assert.ok(error.message.includes(server.address), error.message);
    const waiting = hf.lock('key', { wait: '1m' });
    await failure(hf.tryLock('another'));
    await server.restart();
    assert.equal((await waiting).held, true);
  });

  it('held is false at the deadline, and signal aborts', async () => {
    const hf = await openStore(scope.url(QUICK));
    const lock = await hf.lock('key', { ttl: 500 });
    server.freeze();
    await until(() => !lock.held, 'it is lost');
    await until(() => lock.signal.aborted, 'the signal aborts');
    assert.ok(lock.signal.reason instanceof LockLostError);
  });

  it('a take in doubt is undone', async () => {
    const url = scope.url(QUICK);
    const hf = await openStore(url);
    const other = await openStore(url);
    await hf.withLock('key', () => {});
    server.freeze();
    const error = await failure(hf.tryLock('key', { ttl: '1m' }));
    assert.ok(error instanceof UnavailableError, error.message);
    server.thaw();
    // In far less than the minute that it would be held for.
    await (await other.lock('key', { wait: '20s' })).release();
  });

  it('a connection that is swallowed is given up, and made anew', async () => {
    const proxy = await Proxy.start({ port: server.port }, { opaque: true });
    const url = `postgres://postgres@${proxy.address}/postgres?${new URLSearchParams(QUICK)}`;
    const hf = await openStore(url);
    proxy.blackhole();
    const error = await failure(hf.tryLock('key'));
    assert.ok(error instanceof UnavailableError, error.message);
    proxy.heal();
    await (await hf.lock('key')).release();
    await hf.close();
    await proxy.stop();
  });

  it('connections that the server ends are made anew, and nobody notices', async () => {
    const hf = await openStore(scope.url());
    const lock = await hf.lock('key', { ttl: '1s' });
    for (let i = 0; i < 5; i++) {
      await server.terminate();
      await hf.kv.put('value', i);
    }
    const from = Date.now();
    await until(() => Date.now() - from > 1200, 'the lock would have lapsed');
    assert.equal(lock.held, true);
  });

  it('JavaScript that is busy for five times the TTL keeps its lock', async () => {
    const hf = await openStore(scope.url());
    const lock = await hf.lock('key', { ttl: 600 });
    block(3000);
    assert.equal(lock.held, true);
    assert.equal(await lock.release(), true);
  });
});

describe('a PostgreSQL behind a pooler', () => {
  const scope = usePostgres();
  const openStore = useStores();
  afterEach(stopPooler);
  let pooler = null;

  async function stopPooler() {
    await pooler?.stop();
    pooler = null;
  }

  async function startPooler(options) {
    pooler = await new PgBouncer(scope.server, options).start();
    return pooler;
  }

  it('for each transaction: waiters are served, though nobody may listen', async () => {
    const url = (await startPooler({ poolMode: 'transaction', poolSize: 2 })).url();
    const [hf, other] = [await openStore(url), await openStore(url)];
    const lock = await hf.lock('key');
    const waiting = Promise.all(Array.from({ length: 10 }, () => other.withLock('key', () => 1)));
    await lock.release();
    assert.equal((await waiting).length, 10);
    assert.ok(!(await clientsOf(scope.server)).includes('holdfast-wake'));
  });

  it('for each session, where the URL says so: it listens', async () => {
    const url = (await startPooler({ poolMode: 'session' })).url({ pooler: 'session' });
    const [hf, other] = [await openStore(url), await openStore(url)];
    const lock = await hf.lock('key');
    const waiting = other.lock('key');
    await until(async () => (await clientsOf(scope.server)).includes('holdfast-wake'),
      'it listens');
    await lock.release();
    await (await waiting).release();
  });

  it('says what to do where transactions see an old snapshot', async () => {
    await scope.server.query('CREATE DATABASE serial');
    await scope.server.query(
      'ALTER DATABASE serial SET default_transaction_isolation = serializable');
    const url = (await startPooler()).url().replace(/\/postgres$/, '/serial');
    const hf = new Holdfast(url);
    const error = await failure(hf.tryLock('key'));
    assert.match(error.message, /read committed/);
    await hf.close();
  });
});
