'use strict';

// The PostgreSQL servers that other tests stand on do what those believe they do.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { execFileSync, spawn } = require('node:child_process');
const { once } = require('node:events');
const { Client } = require('pg');
const { Clock } = require('./clock');
const { PgBouncer, PostgresServer, stopAll } = require('./postgres-servers');
const { useFolder, until } = require('./helpers');

after(stopAll);

const MINUTE = 60_000;

async function connect(url, options = {}) {
  const client = new Client({ connectionString: url, application_name: 'holdfast', ...options });
  client.on('error', () => {});
  await client.connect();
  return client;
}

async function rowsOf(server, sql) {
  return (await server.query(sql)).rows.map((row) => Object.values(row)[0]);
}

/** Whether there is a segment of memory of that number: it could outlive its processes. */
function isShared(segment) {
  const list = execFileSync('ipcs', ['-m'], { encoding: 'utf8' });
  return new RegExp(`^0x\\w+ +${segment} `, 'm').test(list);
}

function isAlive(pid) {
  return fs.existsSync(`/proc/${pid}`)
    && !/^State:\s+Z/m.test(fs.readFileSync(`/proc/${pid}/status`, 'utf8'));
}

function stateOf(pid) {
  return /^State:\s+(\w)/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1];
}

for (const version of ['15', '18']) {
  describe(`a PostgreSQL ${version} of the tests`, function () {
    this.timeout(MINUTE);
    let server;
    const fill = () => server.query(`
      CREATE TABLE kept (x int); INSERT INTO kept VALUES (1);
      CREATE UNLOGGED TABLE forgotten (x int); INSERT INTO forgotten VALUES (1);`);
    const left = async () => [
      await rowsOf(server, 'SELECT x FROM kept'), await rowsOf(server, 'SELECT x FROM forgotten'),
    ];
    before(async () => {
      server = await new PostgresServer({ version }).start();
      await fill();
    });
    beforeEach(() => server.query('TRUNCATE kept, forgotten; INSERT INTO kept VALUES (1);'
      + 'INSERT INTO forgotten VALUES (1)'));

    it('keeps all over a start in order, and what is logged over a SIGKILL', async () => {
      await server.shutDown();
      await server.restart();
      assert.deepEqual(await left(), [[1], [1]]);
      const client = await connect(server.url());
      const pids = [server.pid, ...await rowsOf(server, 'SELECT pid FROM pg_stat_activity')];
      await server.kill();
      assert.deepEqual(pids.filter(isAlive), []);
      await assert.rejects(client.query('SELECT 1'));
      await server.restart();
      assert.deepEqual(await left(), [[1], []]);
    });

    it('recovers from the death of one process without a start', async () => {
      const [started] = await rowsOf(server, 'SELECT pg_postmaster_start_time()::text');
      const { pid } = server;
      await server.crash();
      assert.deepEqual(await left(), [[1], []]);
      assert.deepEqual(await rowsOf(server, 'SELECT pg_postmaster_start_time()::text'), [started]);
      assert.equal(server.pid, pid);
    });

    it('stands still with all its processes, and goes on', async () => {
      const client = await connect(server.url());
      const pids = [server.pid, ...await rowsOf(server, 'SELECT pid FROM pg_stat_activity')];
      server.freeze();
      assert.deepEqual([...new Set(pids.map(stateOf))], ['T']);
      const answer = client.query('SELECT 1 AS one');
      server.thaw();
      assert.equal((await answer).rows[0].one, 1);
      await client.end();
      server.freeze();
      await server.restart();
      assert.deepEqual(await rowsOf(server, 'SELECT 1'), [1]);
    });

    it('goes back to a copy', async () => {
      await server.copy();
      await server.query('INSERT INTO kept VALUES (2)');
      await server.kill();
      await server.putBack();
      assert.deepEqual(await left(), [[1], [1]]);
      await server.query('INSERT INTO kept VALUES (3)');
      await server.putBack();
      assert.deepEqual(await left(), [[1], [1]]);
    });

    it('knows who is connected, and ends their connections', async () => {
      const clients = [await connect(server.url()), await connect(server.url())];
      const pids = clients.map(({ processID }) => processID);
      assert.deepEqual((await server.backends()).sort(), [...pids].sort());
      assert.equal(await server.terminate(pids[0]), 1);
      await until(async () => (await server.backends()).length === 1, 'one is left');
      assert.equal(await server.terminate(), 1);
      await until(async () => (await server.backends()).length === 0, 'none is left');
      for (const client of clients) await assert.rejects(client.query('SELECT 1'));
    });

    it('is reached through a pooler that lends connections', async () => {
      const pooler = await new PgBouncer(server, { poolSize: 1 }).start();
      const [a, b] = [await connect(pooler.url()), await connect(pooler.url())];
      const find = 'SELECT pg_backend_pid() AS pid';
      const pids = [await a.query(find), await b.query(find)].map(({ rows }) => rows[0].pid);
      assert.equal(pids[0], pids[1]);
      await pooler.restart();
      await assert.rejects(a.query(find));
      await server.restart();
      const c = await connect(pooler.url());
      await until(() => c.query(find).then(() => true, () => false), 'it is there again');
      for (const client of [b, c]) await client.end().catch(() => {});
      await pooler.stop();
    });

    it('leaves nothing', async () => {
      const { folder, pid, segment } = server;
      assert.ok(isShared(segment));
      await server.stop();
      assert.ok(!fs.existsSync(folder));
      assert.ok(!isAlive(pid));
      assert.ok(!isShared(segment));
    });
  });
}

describe('what a PostgreSQL of the tests can ask for', function () {
  this.timeout(MINUTE);
  const folder = useFolder();

  it('a password, also behind a pooler', async () => {
    const server = await new PostgresServer({ password: 'it\'s "quoted"' }).start();
    const client = await connect(server.url());
    await client.end();
    await assert.rejects(connect(server.url().replace(/:[^:@]*@/, ':wrong@')),
      { code: '28P01' });
    const socket = await connect(server.socketUrl());
    await socket.end();
    const plain = await new PostgresServer({ password: 'secret', auth: 'md5' }).start();
    const pooler = await new PgBouncer(plain).start();
    await (await connect(pooler.url())).end();
  });

  it('TLS, and other certificates', async () => {
    const server = await new PostgresServer({ tls: 'required' }).start();
    const ssl = { ca: server.certificates.ca.cert };
    await (await connect(server.url({}, 'localhost'), { ssl })).end();
    await assert.rejects(connect(server.url()), { code: '28000' });
    await server.show('wrongHost');
    await assert.rejects(connect(server.url({}, 'localhost'), { ssl }), /another\.test/);
    await server.show('stranger');
    await assert.rejects(connect(server.url({}, 'localhost'), { ssl }), /certificate/);
  });

  it('another time of day', async () => {
    const clock = new Clock(path.join(folder.path, 'clock'));
    const server = await new PostgresServer({ clock }).start();
    const ahead = async () => {
      const [ms] = await rowsOf(server, 'SELECT extract(epoch FROM clock_timestamp()) * 1000');
      return Math.floor((Number(ms) - Date.now() + 30_000) / 60_000);
    };
    assert.equal(await ahead(), 0);
    clock.set(3600);
    assert.equal(await ahead(), 60);
    clock.set(-7200);
    assert.equal(await ahead(), -120);
    const { pid } = server;
    await server.stop();
    assert.deepEqual(fs.readdirSync('/dev/shm').filter((name) => name.endsWith(`_${pid}`)), []);
  });

  it('says why it cannot start', async () => {
    const server = new PostgresServer({ config: { no_such_setting: 1 } });
    await assert.rejects(server.start(), /no_such_setting/);
  });
});

describe('the end of a process with servers', function () {
  this.timeout(MINUTE);
  const program = `
    const servers = require(${JSON.stringify(require.resolve('./postgres-servers'))});
    (async () => {
      const server = await new servers.PostgresServer().start();
      const pooler = await new servers.PgBouncer(server).start();
      console.log(JSON.stringify([server, pooler].map(({ pid, folder, segment }) =>
        ({ pid, folder, segment }))))`;

  for (const how of ['server.freeze(); process.exit()', 'process.kill(process.pid, "SIGKILL")']) {
    it(`that is ${how}`, async () => {
      const code = `${program}; ${how}; })();`;
      const child = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
      let said = '';
      child.stdout.on('data', (text) => { said += text; });
      await once(child, 'close');
      const left = JSON.parse(said);
      assert.match(left[0].segment, /^\d+$/);
      await until(() => !left.some(({ pid }) => isAlive(pid)), 'they are gone');
      assert.ok(!isShared(left[0].segment));
      // Nobody is there to remove the folders of a process that was killed.
      if (how.includes('exit')) assert.ok(!left.some(({ folder }) => fs.existsSync(folder)));
      for (const { folder } of left) fs.rmSync(folder, { recursive: true, force: true });
    });
  }
});
