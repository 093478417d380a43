'use strict';

// Holdfast's own connections, by the options of clients that have never connected themselves.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const path = require('node:path');
const { promisify } = require('node:util');
const { Cluster, Redis } = require('ioredis');
const { createClient } = require('redis');
const Redlock = require('holdfast/redlock');
const {
  startCluster, startSentinels, startServer, startTlsServer, stopAll, useDeployment,
} = require('./redis-servers');
const { failure } = require('./redis-harness');

after(stopAll);

const SETTINGS = { retryCount: 0, automaticExtensionThreshold: 100 };

/** Takes and gives back a lock by each of these clients, and calls `look(lock)` in between. */
async function lockBy(clients, look, settings = {}) {
  const redlock = new Redlock(clients, { ...SETTINGS, retryCount: 20, ...settings });
  try {
    const lock = await redlock.acquire(['{a}1', '{a}2'], 20_000);
    await look(lock);
    await (await lock.extend(20_000)).release();
  } finally {
    await end(redlock);
  }
}

// They have never connected, and are not to do so now.
async function end(redlock) {
  for (const client of redlock.clients) if (typeof client === 'object') client.quit = undefined;
  await redlock.quit();
}

const lazy = (options) => new Redis({ lazyConnect: true, ...options });

describe('holdfast/redlock connects as the clients would', () => {
  describe('with passwords, databases and a socket', () => {
    const scope = useDeployment(() => startServer({
      config: {
        unixsocket: 'redis.sock',
        requirepass: '"s3cret / of all"',
        user: 'app on >s3cret@app ~* &* +@all',
      },
      login: ['s3cret / of all'],
    }));
    let server;
    before(() => { server = scope.deployment; });

    const valueIn = async (db) => {
      const connection = server.connect(server.login);
      await connection.send('SELECT', db);
      const value = await connection.send('GET', '{a}1');
      connection.close();
      return value;
    };

    const password = 's3cret / of all';
    const user = { username: 'app', password: 's3cret@app' };
    const cases = {
      'ioredis, the default user': () => lazy({ port: server.port, password }),
      'ioredis, another user': () => lazy({ port: server.port, ...user }),
      'ioredis, a socket': () => lazy({ path: path.join(server.folder, 'redis.sock'), ...user }),
      'node-redis, the default user': () =>
        createClient({ socket: { port: server.port }, password }),
      'node-redis, another user': () => createClient({ socket: { port: server.port }, ...user }),
      'node-redis, a socket': () => createClient({
        socket: { path: path.join(server.folder, 'redis.sock') }, ...user,
      }),
    };
    for (const [name, make] of Object.entries(cases)) {
      it(name, () => lockBy([make()], async (lock) => assert.equal(await valueIn(0), lock.value)));
    }

    it('in another database', async () => {
      await lockBy([lazy({ port: server.port, password, db: 3 })], async (lock) => {
        assert.equal(await valueIn(3), lock.value);
        assert.equal(await valueIn(0), null);
      });
      await lockBy([createClient({ socket: { port: server.port }, password, database: 5 })],
        async (lock) => assert.equal(await valueIn(5), lock.value));
    });

    it('a password that is wrong is shown by no error', async () => {
      const redlock = new Redlock([lazy({ port: server.port, password: 'wr0ng' })], SETTINGS);
      const error = await failure(redlock.acquire(['a'], 20_000));
      assert.equal(error.name, 'ExecutionError');
      assert.equal(error.cause.code, 'HF_EACCES');
      assert.doesNotMatch(`${error.cause.stack} ${error.stack}`, /wr0ng/);
      await end(redlock);
    });

    it('by a function in settings.connection, for clients that give none', () =>
      lockBy([`redis://127.0.0.1:${server.port}`], () => {}, {
        connection: { password: async () => password },
      }));
  });

  describe('with TLS', () => {
    const scope = useDeployment(() => startTlsServer({ config: { 'tls-auth-clients': 'yes' } }));
    let server;
    before(() => { server = scope.deployment; });

    const tls = (more) => {
      const { ca, client } = server.certificates;
      return { ca: ca.cert, cert: client.cert, key: client.key, ...more };
    };
    const has = async (lock) => assert.equal(await server.send('GET', '{a}2'), lock.value);

    it('of ioredis', () => lockBy([lazy({
      host: 'localhost', port: server.tlsPort, tls: tls(),
    })], has));

    it('of ioredis, with another name', () => lockBy([lazy({
      port: server.tlsPort, host: '127.0.0.1', tls: tls({ servername: 'redis.test' }),
    })], has));

    it('of node-redis', () => lockBy([createClient({
      socket: { host: 'localhost', port: server.tlsPort, tls: true, ...tls() },
    })], has));

    it('whose name is wrong is not trusted, unless nothing is verified', async () => {
      const by = (more) =>
        lazy({ port: server.tlsPort, tls: tls({ servername: 'x.test', ...more }) });
      const redlock = new Redlock([by()], SETTINGS);
      const error = await failure(redlock.acquire(['a'], 20_000));
      assert.equal(error.cause.code, 'HF_EACCES', error.cause.message);
      await end(redlock);
      await lockBy([by({ rejectUnauthorized: false })], has);
    });

    it('of a URL, with certificates in settings.connection', () =>
      lockBy([`rediss://localhost:${server.tlsPort}`], has, { connection: { tls: tls() } }));
  });

  it('examples/redlock.js moves money under locks of both kinds', async () => {
    const servers = await Promise.all([1, 2, 3].map(() => startServer()));
    try {
      const urls = servers.map((server) => server.url());
      const example = path.join(__dirname, '..', 'examples', 'redlock.js');
      for (const used of [urls.slice(0, 1), urls]) {
        const { stdout } = await promisify(execFile)(process.execPath, [example], {
          env: { ...process.env, REDIS_URLS: used.join() },
        });
        assert.equal(stdout, 'ann: 45\nbob: 145\n');
      }
    } finally {
      await Promise.all(servers.map((server) => server.stop()));
    }
  });

  it('through Sentinels', async () => {
    const deployment = await startSentinels();
    try {
      const sentinels = deployment.sentinels.map(({ host, port }) => ({ host, port }));
      const master = await deployment.master();
      const name = deployment.constructor.NAME;
      await lockBy([lazy({ sentinels, name })], async (lock) =>
        assert.equal(await master.send('GET', '{a}1'), lock.value));
    } finally {
      await deployment.stop();
    }
  });

  it('to a Cluster, and says when resources do not lie together', async () => {
    const deployment = await startCluster();
    const client = new Cluster(deployment.nodes.map(({ host, port }) => ({ host, port })),
      { lazyConnect: true, keyPrefix: 'p:' });
    try {
      const node = await deployment.nodeOf(await deployment.slotOf('p:{a}1'));
      await lockBy([client], async (lock) =>
        assert.equal(await node.send('GET', 'p:{a}1'), lock.value));
      const redlock = new Redlock([client], { retryDelay: 2 ** 30 });
      const error = await failure(redlock.acquire(['{a}1', '{b}1'], 20_000));
      assert.equal(error.attempts.length, 1);
      assert.equal(error.cause.code, 'HF_ENOTSUP');
      await end(redlock);
    } finally {
      client.disconnect();
      await deployment.stop();
    }
  });
});
