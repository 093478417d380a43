'use strict';

// A store on one Redis: how it is named and opened, what it leaves there, how many connections it
// has, and that it stands by its word when the server does not.

const assert = require('node:assert/strict');
const path = require('node:path');
const { Holdfast, open } = require('..');
const { endChildren, start: startProcess, until } = require('./helpers');
const { startServer, stopAll, useDeployment } = require('./redis-servers');
const { clientsOf, failure, keysOf, untilClients, useStores } = require('./redis-harness');

after(stopAll);

describe('a URL of Redis', () => {
  const scope = useDeployment(() => startServer({
    config: { bind: '127.0.0.1 ::1', unixsocket: 'redis.sock' },
  }));
  const openStore = useStores();
  let server;
  before(() => { server = scope.deployment; });
  afterEach(() => server.send('FLUSHALL'));

  /** Holds a lock there, and returns what the server says of it. */
  async function holderAt(url, options, { name = 'holdfast:key', db = 0 } = {}) {
    const hf = await openStore(url, options);
    const lock = await hf.lock('key');
    const connection = server.connect();
    await connection.send('SELECT', db);
    const token = await connection.send('GET', name);
    connection.close();
    await lock.release();
    return { token: lock.token, found: token };
  }

  const forms = {
    'a host and a port': [() => `redis://127.0.0.1:${server.port}`],
    'the name of a host': [() => `redis://localhost:${server.port}`],
    'valkey:': [() => `valkey://127.0.0.1:${server.port}`],
    'an IPv6 address': [() => `redis://[::1]:${server.port}`],
    'a unix socket': [() => `unix:${path.join(server.folder, 'redis.sock')}`],
    'a unix socket, and parameters': [
      () => `unix:${path.join(server.folder, 'redis.sock')}?db=3`, undefined, { db: 3 },
    ],
    'a database as path': [() => `redis://127.0.0.1:${server.port}/3`, undefined, { db: 3 }],
    'a database as parameter': [() => `${server.url({ db: 4 })}`, undefined, { db: 4 }],
    'a database as option': [() => server.url(), { db: 5 }, { db: 5 }],
    'a prefix as parameter': [() => server.url({ prefix: 'shop:' }), undefined,
      { name: 'shop:key' }],
    'a prefix as option': [() => server.url(), { prefix: 'shop:' }, { name: 'shop:key' }],
    'no prefix': [() => server.url({ prefix: '' }), undefined, { name: 'key' }],
    'an option rather than a parameter': [() => server.url({ prefix: 'a:', db: 1 }),
      { prefix: 'b:', db: 2 }, { name: 'b:key', db: 2 }],
    'all timeouts': [() => server.url({ connectTimeout: 1000 }), { commandTimeout: '2s' }],
  };
  for (const [what, [url, options, where]] of Object.entries(forms)) {
    it(`may have ${what}`, async () => {
      const { token, found } = await holderAt(url(), options, where);
      assert.equal(found, token);
    });
  }

  it('is refused where it means nothing, without a word of its password', async () => {
    const { port } = server;
    for (const url of [
      'redis://127.0.0.1/db', 'redis://127.0.0.1:0', 'redis://127.0.0.1:70000', 'unix:',
      `redis://127.0.0.1:${port},127.0.0.1:${port}`, 'redis+sentinel://127.0.0.1',
      `redis+cluster://127.0.0.1:${port}/2`, `redis://127.0.0.1:${port}?db=-1`,
      `redis://127.0.0.1:${port}?commandTimeout=soon`, `redis://127.0.0.1:${port}?unknown=1`,
      `redis://127.0.0.1:${port}?waitReplicas=x`, `redis://127.0.0.1:${port}?allowEviction=maybe`,
      `redis://127.0.0.1:${port}?prefix={a}{b}`, `redis://127.0.0.1:${port}?prefix=a{b`,
      `redis://127.0.0.1:${port}?prefix={}`, `redis://127.0.0.1:${port}?prefix=${'p'.repeat(129)}`,
    ]) {
      const secret = url.replace('//', '//me:hush@');
      assert.throws(() => new Holdfast(secret), (error) => {
        assert.ok(error instanceof RangeError, `${url}: ${error}`);
        assert.ok(!error.stack.includes('hush'), error.stack);
        return true;
      }, url);
    }
  });

  it('or an option, which the message names', () => {
    for (const [options, name] of [
      [{ prefix: 'p'.repeat(129) }, 'prefix'], [{ prefix: '{a' }, 'prefix'],
      [{ tls: { ca: '-----BEGIN CERTIFICATE-----' } }, 'tls.ca'],
    ]) {
      assert.throws(() => new Holdfast('rediss://127.0.0.1', options), (error) => {
        assert.ok(error instanceof RangeError);
        assert.match(error.message, new RegExp(`^options\\.${name} `));
        return true;
      });
    }
  });

  it('says where nobody listens', async () => {
    const { port } = await startServer().then(async (other) => {
      await other.stop();
      return other;
    });
    const error = await failure(open(`redis://127.0.0.1:${port}`, { connectTimeout: 200 }));
    assert.equal(error.code, 'HF_EUNAVAIL');
    assert.equal(error.retryable, true);
    assert.match(error.message, new RegExp(`127\\.0\\.0\\.1:${port}`));
    const missing = await failure(open('unix:/nowhere/redis.sock'));
    assert.match(missing.message, /\/nowhere\/redis\.sock/);
    const unknown = await failure(open('redis://no-such-host.invalid'));
    assert.match(unknown.message, /no-such-host\.invalid/);
  });
});

describe('what a store leaves in Redis', () => {
  const scope = useDeployment(() => startServer());
  const openStore = useStores();
  let server;
  before(() => { server = scope.deployment; });
  afterEach(() => server.send('FLUSHALL'));

  it('is a string for a plain lease, which ends by itself', async () => {
    const hf = await openStore(server.url());
    const lock = await hf.lock('a {key}', { ttl: '20s', renew: false });
    assert.equal(await server.send('TYPE', 'holdfast:a {key}'), 'string');
    assert.equal(await server.send('GET', 'holdfast:a {key}'), lock.token);
    const left = await server.send('PTTL', 'holdfast:a {key}');
    assert.ok(left > 0 && left <= 20000, `${left} ms`);
    await lock.release();
    assert.equal(await server.send('EXISTS', 'holdfast:a {key}'), 0);
  });

  it('is nothing without an expiry but what is to last', async () => {
    const hf = await openStore(server.url());
    await hf.withLock('one', { ttl: '1m' }, async () => {
      await hf.withLock(['two', 'three'], async () => {
        const waiting = hf.lock('one', { wait: Infinity });
        const other = await openStore(server.url());
        const waitingThere = other.lock('one', { wait: 300 }).catch(() => {});
        await hf.withLock('four', { mode: 'shared' }, async (shared) => {
          assert.equal(shared.held, true);
          await assertAllExpire();
        });
        await waitingThere;
        waiting.then((lock) => lock.release());
      });
    });
    await hf.once('done', () => 1);
    await hf.kv.put('brief', 1, { ttl: '1m' });
    await assertAllExpire();
    await hf.kv.put('lasting', 1);
    assert.equal(await hf.kv.increment('counter'), 1);
    const lasting = await withoutExpiry();
    assert.equal(lasting.length, 2, lasting.join());
  });

  async function withoutExpiry() {
    const keys = await keysOf(server);
    const left = await Promise.all(keys.map((key) => server.send('PTTL', key)));
    return keys.filter((_, i) => left[i] < 0 && left[i] !== -2);
  }

  async function assertAllExpire() {
    assert.ok((await keysOf(server)).length > 0);
    assert.deepEqual(await withoutExpiry(), []);
  }

  it('is apart from that of another prefix', async () => {
    const [one, other] = [await openStore(server.url({ prefix: 'a:' })),
      await openStore(server.url({ prefix: 'b:' }))];
    const locks = [await one.lock('key'), await other.lock('key', { wait: 0 })];
    await one.kv.put('key', 1);
    assert.equal(await other.kv.get('key'), null);
    const seen = [];
    for await (const { key } of one.locks()) seen.push(key);
    assert.deepEqual(seen, ['key']);
    await Promise.all(locks.map((lock) => lock.release()));
  });

  it('is no harm to who keeps other data under the same name', async () => {
    const hf = await openStore(server.url({ prefix: '' }));
    await server.send('RPUSH', 'mine', 'a', 'b');
    const error = await failure(hf.lock('mine', { wait: 0 }));
    assert.equal(error.code, 'HF_ETYPE');
    assert.match(error.message, /mine/);
    assert.match(error.message, new RegExp(server.address));
    assert.match(error.message, /prefix/);
    assert.deepEqual(await server.send('LRANGE', 'mine', 0, -1), ['a', 'b']);
    assert.deepEqual(await keysOf(server), ['mine']);
  });
});

describe('connections to Redis', () => {
  const scope = useDeployment(() => startServer());
  const openStore = useStores();
  endChildren();
  let server;
  before(() => { server = scope.deployment; });
  beforeEach(() => untilClients(server, []));

  it('are one, two once a lock has been renewed, three once somebody waits', async () => {
    const lazy = new Holdfast(scope.url());
    assert.deepEqual(await clientsOf(server), []);
    await lazy.close();
    const url = scope.url();
    const hf = await openStore(url);
    assert.deepEqual(await clientsOf(server), ['holdfast']);
    const locks = await Promise.all(Array.from({ length: 100 }, (_, i) =>
      hf.lock(`${i}`, { ttl: 900 })));
    await untilClients(server, ['holdfast', 'holdfast-keeper']);

    const other = await openStore(url);
    const waiting = Array.from({ length: 100 }, (_, i) => other.lock(`${i}`));
    await untilClients(server, ['holdfast', 'holdfast-keeper', 'holdfast', 'holdfast-wake']);
    for (const lock of locks) await lock.release();
    await Promise.all(waiting);
    const names = await clientsOf(server);
    assert.deepEqual(names.filter((name) => name === 'holdfast'), ['holdfast', 'holdfast']);
    assert.equal(names.filter((name) => name === 'holdfast-wake').length, 1);
    await Promise.all([hf.close({ timeout: 0 }), other.close({ timeout: 0 })]);
    await untilClients(server, []);
  });

  it('are the same in a process of its own, and gone with it', async () => {
    const child = startProcess(`
      const hf = await holdfast.open();
      const lock = await hf.lock('mine', { ttl: 900 });
      const waiting = hf.lock('theirs', { wait: Infinity });
      waiting.then(async (next) => {
        await Promise.all([lock.release(), next.release()]);
        await hf.kv.put('done', 1);
        say('done');
      });
      say('held');
      await heard('go');
    `, scope.url({ prefix: 'child:' }));
    const hf = await openStore(scope.url({ prefix: 'child:' }));
    const lock = await hf.lock('theirs', { ttl: 900 });
    await child.hear('held');
    const mine = ['holdfast', 'holdfast-keeper'];
    await untilClients(server, [...mine, ...mine, 'holdfast-wake']);
    await lock.release();
    await child.hear('done');
    // An idle open store does not keep its process alive.
    child.tell('go');
    assert.deepEqual(await child.ended, { code: 0, signal: null });
    await untilClients(server, mine);
  });
});

describe('who may use a Redis', () => {
  const scope = useDeployment(() => startServer({
    config: { requirepass: 'hush' }, login: ['hush'],
  }));
  const openStore = useStores();
  let server;
  before(() => { server = scope.deployment; });
  afterEach(() => server.send('FLUSHALL'));

  const rules = {
    whole: ['~*', '&*', '+@all'],
    part: ['resetkeys', '~holdfast:*', 'resetchannels', '&holdfast:*', '-@all', '+@read', '+@write',
      '+@scripting', '+@connection', '+@pubsub', '+info', '+time'],
    mute: ['~*', 'resetchannels', '+@all'],
    silent: ['~*', '&*', '+@all', '-info'],
    weak: ['~*', '&*', '-@all', '+get', '+@connection', '+info'],
  };

  before(async () => {
    for (const [name, words] of Object.entries(rules)) {
      await server.send('ACL', 'SETUSER', name, 'on', '>p@ss:w/rd', ...words);
    }
  });

  function withUser(name, password = 'p@ss:w/rd') {
    return server.url().replace('//', `//${name}:${encodeURIComponent(password)}@`);
  }

  /** Everything that a user of the library does. */
  async function use(hf, listed = []) {
    const fences = [];
    for (let i = 0; i < 2; i++) fences.push(await hf.withLock('key', (lock) => lock.fence));
    assert.ok(fences[1] > fences[0]);
    await hf.withLock(['key', 'other'], { mode: 'shared' }, () => {});
    const lock = await hf.lock('key');
    const waiting = hf.lock('key', { wait: Infinity });
    await lock.release();
    await (await waiting).release();
    await hf.kv.put('key', 1);
    assert.equal(await hf.once('key', () => 2), 2);
    const seen = [];
    for await (const { key } of hf.locks()) seen.push(key);
    assert.deepEqual(seen, listed);
    await hf.sweep();
  }

  it('is told by the URL or by options', async () => {
    await use(await openStore(server.url().replace('//', '//:hush@')));
    await use(await openStore(server.url(), { password: 'hush' }));
    await use(await openStore(withUser('whole')));
    await use(await openStore(server.url(), { username: 'whole', password: 'p@ss:w/rd' }));
    await use(await openStore(server.url().replace('//', '//default:wrong@'),
      { password: 'hush' }));
  });

  it('may be told late, by a function', async () => {
    const slow = () => new Promise((resolve) => { setTimeout(resolve, 20, 'hush'); });
    for (const given of [() => 'hush', async () => 'hush', slow]) {
      await use(await openStore(server.url(), { password: given }));
    }
    const password = async () => 'p@ss:w/rd';
    await use(await openStore(server.url(), { username: 'whole', password }));
  });

  it('may change while a store is open', async () => {
    let word = 'first';
    let asked = 0;
    await server.send('ACL', 'SETUSER', 'rotating', 'on', '>first', '~*', '&*', '+@all');
    const hf = await openStore(server.url(), {
      username: 'rotating',
      password: async () => {
        asked += 1;
        return word;
      },
    });
    const lock = await hf.lock('kept', { ttl: 600 });
    assert.ok(asked >= 1);
    word = 'second';
    await server.send('ACL', 'SETUSER', 'rotating', '>second', '<first');
    const before = asked;
    const { fence } = lock;
    await server.send('CLIENT', 'KILL', 'USER', 'rotating');
    await until(() => asked > before, 'it asks again');
    await use(hf, ['kept']);
    // The thread that renews asks for itself, through this one.
    const from = Date.now();
    await until(() => Date.now() - from > 1200, 'two times its TTL have passed');
    assert.equal(lock.held, true);
    assert.equal(lock.fence, fence);
  });

  it('is told when the function fails, without what it said', async () => {
    const cases = [
      () => { throw new Error('no vault'); },
      async () => { throw new Error('no vault'); },
      () => 17,
    ];
    for (const password of cases) {
      const error = await failure(open(server.url(), { password }));
      assert.match(error.message, /password/);
    }
    const error = await failure(open(server.url(), { password: cases[1] }));
    assert.match(`${error.message} ${error.cause?.message}`, /no vault/);
  });

  it('may be one with the least of rights', async () => {
    await use(await openStore(withUser('part')));
  });

  it('may be one who cannot publish: then waiters ask again by themselves', async () => {
    const url = withUser('mute');
    const [hf, other] = [await openStore(url), await openStore(url)];
    const lock = await hf.lock('key', { ttl: 1000 });
    const waiting = other.lock('key', { wait: '30s' });
    await lock.release();
    await (await waiting).release();
  });

  it('may be one who is not told which server it is: fences grow all the same', async () => {
    await use(await openStore(withUser('silent')));
  });

  it('is refused in words that say what to do, and never the password', async () => {
    const cases = [
      [server.url(), 'HF_EACCES', /NOAUTH.*password/],
      [server.url().replace('//', '//:open@'), 'HF_EACCES', /WRONGPASS.*password/],
      [withUser('whole', 'sesame'), 'HF_EACCES', /WRONGPASS/],
      [withUser('nobody'), 'HF_EACCES', /WRONGPASS/],
    ];
    for (const [url, code, message] of cases) {
      const error = await failure(open(url));
      assert.equal(error.code, code, error.message);
      assert.match(error.message, message);
      assert.ok(error.message.includes(server.address), error.message);
      assert.ok(!/open|sesame|hush|p@ss/.test(error.message), error.message);
    }
  });

  it('is refused an operation for which the rights are missing', async () => {
    const hf = new Holdfast(withUser('weak'));
    const error = await failure(hf.lock('a key', { wait: 0 }));
    assert.equal(error.code, 'HF_EACCES', error.message);
    assert.equal(error.retryable, false);
    assert.equal(error.key, 'a key');
    assert.match(error.message, /NOPERM.*ACL SETUSER/);
    assert.ok(error.message.includes(server.address), error.message);
    await hf.close();
  });
});
