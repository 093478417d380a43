'use strict';

// Advisory locks of PostgreSQL, as users of `holdfast/postgres` have them.

const assert = require('node:assert/strict');
const diagnostics = require('node:diagnostics_channel');
const { once } = require('node:events');
const { setImmediate: turn, setTimeout: sleep } = require('node:timers/promises');
const { Worker } = require('node:worker_threads');
const { HoldfastError, LockLostError, LockTimeoutError, UnavailableError, open } = require('..');
const { AdvisoryLock, Postgres, advisoryId, postgres } = require('../lib/postgres');
const { block, endChildren, library, random, start, until } = require('./helpers');
const { PgBouncer, stopAll, usePostgres } = require('./postgres-servers');
const { Proxy } = require('./proxy');
const { failure } = require('./redis-harness');

after(stopAll);

describe('advisory locks', () => {
  const scope = usePostgres();
  const opened = [];
  let server;
  let pg;

  function connect(url = server.url(), options) {
    const made = postgres(url, options);
    opened.push(made);
    return made;
  }

  /** Who holds advisory locks, or waits for them, by the server's word. */
  async function locks(granted = true) {
    const { rows } = await server.query(
      'SELECT * FROM pg_locks WHERE locktype = \'advisory\' AND granted = $1', [granted]);
    return rows.length;
  }

  const untilLocks = (n, granted) =>
    until(async () => await locks(granted) === n, `there are ${n} locks`);

  /** Whether it is free, as SQL sees it. */
  async function isFree(call, ...values) {
    const { rows: [{ got }] } = await server.query(`SELECT pg_try_advisory_lock(${call}) AS got`,
      values);
    if (got) await server.query(`SELECT pg_advisory_unlock(${call})`, values);
    return got;
  }

  before(() => { server = scope.server; });
  beforeEach(() => { pg = connect(); });
  afterEach(async () => {
    await Promise.all(opened.splice(0).map((each) => each.close({ timeout: 0 })));
    await untilLocks(0);
    await untilLocks(0, false);
    await until(async () => (await server.backends()).length === 0, 'all connections are gone');
  });

  describe('of a number, a pair or a name', () => {
    it('are those of PostgreSQL', async () => {
      const cases = [
        [42, '42::bigint'],
        [-1, '-1::bigint'],
        [Number.MAX_SAFE_INTEGER, `${Number.MAX_SAFE_INTEGER}::bigint`],
        [-(2n ** 63n), '\'-9223372036854775808\'::bigint'],
        [2n ** 63n - 1n, '9223372036854775807::bigint'],
        [[1, -2], '1, -2'],
        [[-(2 ** 31), 2 ** 31 - 1], '-2147483648, 2147483647'],
      ];
      for (const [id, call] of cases) {
        const lock = await pg.advisoryLock(id);
        assert.deepEqual(lock.id, id);
        assert.equal(await isFree(call), false, call);
        assert.equal(await lock.release(), true);
        assert.equal(await isFree(call), true, call);
      }
    });

    it('are two spaces', async () => {
      const number = await pg.advisoryLock(2n ** 32n + 2n);
      const pair = await pg.advisoryLock([1, 2]);
      assert.ok(number.held && pair.held);
    });

    it('stand for the same number in SQL', async () => {
      const sql = '(\'x\' || encode(substr(sha256(convert_to($1, \'UTF8\')), 1, 8), \'hex\'))' +
        '::bit(64)::bigint';
      for (const name of ['orders', 'Straße 7', '鎖', 'x'.repeat(1024)]) {
        const { rows: [{ id }] } = await server.query(`SELECT ${sql}::text AS id`, [name]);
        assert.equal(advisoryId(name), BigInt(id));
        const lock = await pg.advisoryLock(name);
        assert.equal(lock.id, name);
        assert.equal(await isFree(sql, name), false);
        await lock[Symbol.asyncDispose]();
        assert.equal(lock.held, false);
      }
      assert.equal(advisoryId('orders'), 2023957755765852388n);
    });

    it('are refused where they are none', async () => {
      const wrong = [undefined, null, {}, true, Symbol('a'), () => {}];
      const refused = (id, name, message) =>
        assert.rejects(pg.advisoryLock(id), { name, message });
      for (const id of wrong) await refused(id, 'TypeError', /^id must be/);
      const bad = [0.5, NaN, Infinity, 2 ** 53, 2n ** 63n, -(2n ** 63n) - 1n, '', 'a\0', '\ud800',
        'x'.repeat(1025), [], [1], [1, 2, 3], [1, 2 ** 31], [-(2 ** 31) - 1, 0], [0.5, 1]];
      for (const id of bad) await refused(id, 'RangeError', /^id/);
      await refused([1, '2'], 'TypeError', /^id\[1\]/);
      await refused([1n, 2n], 'TypeError', /^id\[0\]/);
      assert.throws(() => advisoryId(7), { name: 'TypeError', message: /^name/ });
    });

    it('go with options that are some', async () => {
      const wrong = [[{ ttl: 5 }, /unknown option 'ttl'/], [7, /^options/], [{ shared: 1 }, /shared/],
        [{ dedicated: 'yes' }, /dedicated/], [{ signal: {} }, /signal/], [{ wait: {} }, /wait/]];
      for (const [options, message] of wrong) {
        await assert.rejects(pg.advisoryLock(1, options), { name: 'TypeError', message });
      }
      await assert.rejects(pg.advisoryLock(1, { wait: -1 }), { name: 'RangeError' });
      await assert.rejects(pg.tryAdvisoryLock(1, { wait: 1 }), { name: 'TypeError' });
      await assert.rejects(pg.withAdvisoryLock(1), { name: 'TypeError', message: /^fn/ });
      await assert.rejects(pg.withAdvisoryLock(1, () => {}, {}), { message: /fn comes last/ });
    });
  });

  describe('exclude', () => {
    it('callers of one process, who take turns', async () => {
      const order = [];
      let inside = 0;
      const enter = (i) => pg.withAdvisoryLock('turns', async () => {
        assert.equal(++inside, 1);
        await turn();
        order.push(i);
        inside -= 1;
      });
      await Promise.all(Array.from({ length: 50 }, (_, i) => enter(i)));
      assert.deepEqual(order, Array.from({ length: 50 }, (_, i) => i));
    });

    it('other processes', async () => {
      const other = connect();
      const lock = await other.advisoryLock(1);
      assert.equal(await pg.tryAdvisoryLock(1), null);
      const waiting = pg.advisoryLock(1);
      await lock.release();
      assert.equal(await (await waiting).release(), true);
    });

    it('all but those who share, who have one lock at the server', async () => {
      const other = connect();
      const shared = await Promise.all(Array.from({ length: 10 },
        () => pg.advisoryLock(1, { shared: true })));
      assert.equal(await locks(), 1);
      const there = await other.advisoryLock(1, { shared: true });
      assert.equal(there.shared, true);
      assert.equal(await other.tryAdvisoryLock(1), null);
      for (const each of [...shared, there]) assert.equal(await each.release(), true);
      const alone = await other.advisoryLock(1);
      assert.ok(alone.held);
    });

    it('and keep the wait within its bound', async () => {
      const lock = await pg.advisoryLock('mine');
      const here = await failure(pg.advisoryLock('mine', { wait: 50 }));
      assert.ok(here instanceof LockTimeoutError);
      assert.equal(here.key, 'mine');
      assert.match(here.message, /^the advisory lock "mine" was not free within 50 ms: held by this/);
      const there = await failure(connect().advisoryLock('mine', { wait: 0 }));
      assert.match(there.message, /within 0 ms: pg\.advisoryLocks\(\) tells who holds it$/);
      assert.ok(lock.held);
    });
  });

  describe('that are held', () => {
    it('end once', async () => {
      const lock = await pg.advisoryLock(1);
      assert.ok(lock instanceof AdvisoryLock);
      lock.assertHeld();
      const released = lock.release();
      assert.equal(lock.held, false);
      assert.throws(() => lock.assertHeld(), /the advisory lock 1 was released/);
      assert.equal(await lock.release(), false);
      assert.equal(await released, true);
      assert.equal(lock.signal.aborted, false);
    });

    it('run a function, whose error wins', async () => {
      assert.equal(await pg.withAdvisoryLock([1, 2], (lock) => lock.held), true);
      assert.equal(await pg.withAdvisoryLock(1, { shared: true }, (lock) => lock.shared), true);
      const thrown = new Error('mine');
      assert.equal(await failure(pg.withAdvisoryLock(1, () => { throw thrown; })), thrown);
      assert.equal(await locks(), 0);
    });

    it('are a thousand on one connection', async () => {
      const held = await Promise.all(Array.from({ length: 1000 }, (_, i) => pg.advisoryLock(i)));
      assert.equal(await locks(), 1000);
      assert.ok((await server.backends()).length <= 2);
      await Promise.all(held.map((lock) => lock.release()));
      assert.equal(await locks(), 0);
    });

    it('are shown, with who waits', async () => {
      const other = connect(server.url({ application_name: 'biller' }));
      const first = await pg.advisoryLock('a');
      const pair = await pg.advisoryLock([7, -8], { shared: true });
      const waiting = other.advisoryLock('a', { dedicated: true });
      await untilLocks(1, false);
      const list = await pg.advisoryLocks();
      assert.deepEqual(
        list.map(({ id, mode, granted, here }) => ({ id, mode, granted, here })), [
          { id: advisoryId('a'), mode: 'exclusive', granted: true, here: true },
          { id: advisoryId('a'), mode: 'exclusive', granted: false, here: false },
          { id: [7, -8], mode: 'shared', granted: true, here: true },
        ]);
      const [holder, waiter] = list;
      assert.equal(holder.waiting, null);
      assert.equal(waiter.applicationName, 'biller');
      assert.ok(waiter.waiting >= 0 && waiter.queryAge >= waiter.waiting);
      assert.ok((await server.backends('biller')).includes(waiter.pid));
      await first.release();
      assert.ok(await (await waiting).release());
      assert.equal((await other.advisoryLocks()).length, 1);
      assert.ok(pair.held);
    });

    it('are told of', async () => {
      const told = [];
      const listener = (message) => told.push(message);
      diagnostics.subscribe('holdfast:advisory', listener);
      await pg.withAdvisoryLock('a', { shared: true }, () => {});
      diagnostics.unsubscribe('holdfast:advisory', listener);
      assert.deepEqual(told.map(({ event }) => event), ['wait', 'held', 'released']);
      assert.deepEqual({ ...told[0] }, { event: 'wait', id: 'a', shared: true, dedicated: false });
      assert.ok(told[1].waited >= 0 && told[2].heldFor >= 0);
    });
  });

  describe('that are waited for', () => {
    for (const dedicated of [false, true]) {
      const kind = dedicated ? ' on a connection of its own' : '';

      it(`are given up by a signal${kind}`, async () => {
        const lock = await connect().advisoryLock(1);
        const controller = new AbortController();
        const { signal } = controller;
        const waiting = pg.advisoryLock(1, { signal, wait: Infinity, dedicated });
        if (dedicated) await untilLocks(1, false);
        controller.abort();
        assert.equal((await failure(waiting)).name, 'AbortError');
        await untilLocks(0, false);
        assert.ok(lock.held);
        const aborted = AbortSignal.abort();
        assert.equal((await failure(pg.advisoryLock(2, { signal: aborted, dedicated }))).name,
          'AbortError');
      });

      it(`end with close()${kind}`, async () => {
        const lock = await connect().advisoryLock(1);
        const waiting = failure(pg.advisoryLock(1, { dedicated }));
        if (dedicated) await untilLocks(1, false);
        await pg.close();
        assert.equal((await waiting).code, 'HF_ECLOSED');
        assert.equal((await failure(pg.advisoryLock(2, { dedicated }))).code, 'HF_ECLOSED');
        assert.equal((await failure(pg.advisoryLocks())).code, 'HF_ECLOSED');
        assert.ok(lock.held);
      });

      it(`are given up at random and leave nothing${kind}`, async () => {
        const seed = Date.now() % 1e6;
        const next = random(seed);
        const count = dedicated ? 60 : 1000;
        let granted = 0;
        assert.ok(await (await pg.advisoryLock(9, { dedicated })).release()); // it is connected
        const all = Array.from({ length: count }, async () => {
          const controller = new AbortController();
          const options = { dedicated, shared: next() < 0.3, signal: controller.signal };
          const delay = Math.floor(next() * 20);
          setTimeout(() => controller.abort(), delay);
          try {
            const lock = await pg.advisoryLock(Math.floor(next() * 5), options);
            granted += 1;
            await turn();
            assert.equal(await lock.release(), true);
          } catch (error) {
            assert.equal(error.name, 'AbortError', `seed ${seed}: ${error.stack}`);
          }
        });
        await Promise.all(all);
        await untilLocks(0);
        await untilLocks(0, false);
        if (!dedicated) assert.ok(granted > 0, `seed ${seed}: none was granted`);
      });
    }

    it('are waited for in the queue of PostgreSQL, where readers do not overtake', async () => {
      const other = connect();
      const reader = await other.advisoryLock(1, { shared: true });
      const writer = pg.advisoryLock(1, { dedicated: true });
      await untilLocks(1, false);
      assert.equal(await connect().tryAdvisoryLock(1, { shared: true }), null);
      await reader.release();
      assert.ok(await (await writer).release());
    });

    it('come, though the server goes and comes back', async () => {
      const lock = await pg.advisoryLock(1);
      const lost = once(lock.signal, 'abort');
      const waiting = pg.advisoryLock(1, { wait: '30s' });
      await server.kill();
      await lost;
      await server.restart();
      assert.ok(await (await waiting).release());
    });

    it('do not come where nobody is there', async () => {
      const nowhere = connect('postgres://127.0.0.1:1/postgres');
      for (const options of [{ wait: 50 }, { wait: 50, dedicated: true }]) {
        const error = await failure(nowhere.advisoryLock(1, options));
        assert.ok(error instanceof UnavailableError, error.message);
      }
      assert.ok(await failure(nowhere.tryAdvisoryLock(1)) instanceof UnavailableError);
      assert.ok(await failure(nowhere.advisoryLocks()) instanceof UnavailableError);
    });
  });

  describe('are lost', () => {
    for (const dedicated of [false, true]) {
      it(`with ${dedicated ? 'their own' : 'their'} connection, at once`, async () => {
        const first = await pg.advisoryLock('first', { dedicated });
        const second = await pg.advisoryLock(2, { dedicated: false });
        const lost = once(first.signal, 'abort');
        const running = failure(pg.withAdvisoryLock(3, { dedicated }, async (third) => {
          await once(third.signal, 'abort');
          return 'done';
        }));
        await untilLocks(3);
        await server.terminate();
        await lost;
        assert.equal(first.held, false);
        assert.ok(first.signal.reason instanceof LockLostError);
        assert.equal(first.signal.reason.key, 'first');
        assert.equal(first.signal.reason.state, '57P01');
        assert.match(first.signal.reason.message,
          /^the advisory lock "first" was lost with its session: .*terminating connection/);
        assert.throws(() => first.assertHeld(), LockLostError);
        assert.equal(await first.release(), false);
        const error = await running;
        assert.ok(error instanceof LockLostError);
        assert.equal(error.result, 'done');
        await until(() => second.signal.aborted, 'the other is lost as well');
        const again = await pg.advisoryLock('first');
        assert.ok(again.held);
      });
    }

    it('before the server lets go of them, where the network is silent [slow]', async function () {
      this.timeout(30000);
      const proxy = await Proxy.start({ port: server.port }, { opaque: true });
      const far = connect(`postgres://postgres@${proxy.address}/postgres`);
      const lock = await far.advisoryLock(1);
      const own = await far.advisoryLock(2, { dedicated: true });
      const since = performance.now();
      proxy.blackhole();
      await once(lock.signal, 'abort');
      assert.ok(performance.now() - since >= 2900, 'not sooner than it must be');
      assert.match(lock.signal.reason.message, /it has not answered in time|not been heard of/);
      await until(() => own.signal.aborted, 'the other is lost as well');
      assert.equal(await locks(), 2);
      await far.close({ timeout: 0 });
      await proxy.stop();
    });

    it('and nothing hangs where a request to cancel is swallowed', async () => {
      const proxy = await Proxy.start({ port: server.port }, { opaque: true });
      const far = connect(`postgres://postgres@${proxy.address}/postgres`);
      await pg.advisoryLock(1);
      const given = new AbortController();
      const waiting = far.advisoryLock(1, {
        dedicated: true, wait: Infinity, signal: given.signal,
      });
      await untilLocks(1, false);
      proxy.blackhole();
      given.abort();
      await assert.rejects(waiting, { name: 'AbortError' });
      await until(() => proxy.links.size > 1, 'the request is on its way');
      await far.close({ timeout: 0 });
      await proxy.stop();
    });

    it('when JavaScript was busy for so long that the server might have [slow]', async function () {
      this.timeout(30000);
      const lock = await pg.advisoryLock(1);
      block(5000);
      assert.equal(lock.held, true);
      await pg.advisoryLocks();
      block(9000);
      assert.equal(lock.held, false);
      assert.equal(lock.signal.aborted, false);
      await once(lock.signal, 'abort');
      assert.match(lock.signal.reason.message, /the event loop was blocked/);
      const again = await pg.advisoryLock(1);
      assert.ok(again.held);
    });

    it('not while JavaScript is idle, or the lock is [slow]', async function () {
      this.timeout(30000);
      const lock = await pg.advisoryLock(1);
      const own = await pg.advisoryLock(2, { dedicated: true });
      await sleep(10000);
      assert.ok(lock.held && own.held);
      assert.equal(await lock.release(), true);
      assert.equal(await own.release(), true);
    });
  });

  describe('and processes', () => {
    endChildren();

    const taking = (options) => `
      const { postgres } = require(${JSON.stringify(`${library}/lib/postgres`)});
      const pg = postgres(process.env.HOLDFAST_URL);
      const lock = await pg.advisoryLock('child', ${JSON.stringify(options)});
      say('held');
    `;

    it('held locks and idle connections do not keep a process', async () => {
      for (const dedicated of [false, true]) {
        const child = start(taking({ dedicated }), server.url());
        assert.deepEqual(await child.ended, { code: 0, signal: null });
        await untilLocks(0);
      }
    });

    it('a wait does', async () => {
      const lock = await pg.advisoryLock('child');
      for (const dedicated of [false, true]) {
        const child = start(`say('up'); ${taking({ dedicated, wait: 300 })}`.replace('await pg',
          'await failing; await pg').replace('const lock',
          'const failing = Promise.resolve(); const lock'), server.url());
        const { code } = await child.ended;
        assert.notEqual(code, 0);
        assert.match(child.stderr, /was not free within 300 ms/);
      }
      await lock.release();
    });

    it('whose end is the end of their locks', async () => {
      const child = start(`${taking({})} setInterval(() => {}, 1000);`, server.url());
      await child.hear('held');
      assert.equal(await pg.tryAdvisoryLock('child'), null);
      const waiting = pg.advisoryLock('child');
      await child.kill();
      assert.ok(await (await waiting).release());
    });

    it('have workers, whose end it is as well', async () => {
      const lib = require.resolve('../lib/postgres');
      const worker = new Worker(`
        const { parentPort, workerData } = require('node:worker_threads');
        const { postgres } = require(workerData.lib);
        const pg = postgres(workerData.url);
        Promise.all([
          pg.advisoryLock(1), pg.advisoryLock(2, { dedicated: true }),
        ]).then(() => {
          pg.advisoryLock(1, { wait: Infinity });
          pg.advisoryLock(2, { wait: Infinity, dedicated: true });
          setImmediate(() => parentPort.postMessage('held'));
        });
        setInterval(() => {}, 1000);
      `, { eval: true, workerData: { lib, url: server.url() } });
      await once(worker, 'message');
      assert.equal(await pg.tryAdvisoryLock(1), null);
      await worker.terminate();
      const lock = await pg.advisoryLock(1);
      assert.ok(lock.held);
    });
  });

  describe('behind a pooler', () => {
    let pooler;
    afterEach(() => pooler.stop());

    it('that lends connections for each transaction are refused, but shown', async () => {
      pooler = await new PgBouncer(server).start();
      const pooled = connect(pooler.url());
      for (const dedicated of [false, true]) {
        const error = await failure(pooled.advisoryLock(1, { dedicated }));
        assert.ok(error instanceof HoldfastError);
        assert.equal(error.code, 'HF_ENOTSUP');
        assert.match(error.message, /pooler at .* for each transaction.* say pooler=session/);
      }
      const lock = await pg.advisoryLock(1);
      assert.deepEqual((await pooled.advisoryLocks()).map(({ id }) => id), [1n]);
      assert.ok(lock.held);
      await pooled.close();
    });

    it('that lends them for whole sessions work, where the URL says so', async () => {
      pooler = await new PgBouncer(server, { poolMode: 'session' }).start();
      const pooled = connect(pooler.url({ pooler: 'session' }));
      const lock = await pooled.advisoryLock(1);
      const waiting = pooled.advisoryLock(1, { dedicated: true });
      await untilLocks(1, false);
      await lock.release();
      assert.ok(await (await waiting).release());
      await pooled.close();
    });
  });

  describe('of a Holdfast', () => {
    it('are on its server, and end with it', async () => {
      const hf = await open(scope.url());
      const made = postgres(hf);
      assert.ok(made instanceof Postgres);
      assert.equal(postgres(hf), made);
      assert.equal(made.holdfast, hf);
      const lock = await made.advisoryLock(1);
      const lease = await hf.lock('1');
      assert.ok(lease.held);
      assert.equal(await pg.tryAdvisoryLock(1), null);
      await assert.rejects(made.close(), { name: 'TypeError' });
      await lease.release();
      await hf.close({ timeout: 0 });
      assert.equal(lock.held, false);
      assert.equal(lock.signal.reason.code, 'HF_ELOST');
    });

    it('let those who hold them finish', async () => {
      const lock = await pg.advisoryLock(1);
      const closing = pg.close();
      await turn();
      assert.equal(lock.held, true);
      assert.equal(await lock.release(), true);
      await closing;
    });

    it('are for PostgreSQL', async () => {
      const memory = await open('memory:');
      assert.throws(() => postgres(memory), { name: 'TypeError', message: /its store is memory/ });
      await memory.close();
      const hf = await open(scope.url());
      assert.throws(() => postgres(hf.namespace('a')), { name: 'TypeError', message: /namespace/ });
      assert.throws(() => postgres(hf, {}), { name: 'TypeError', message: /^options/ });
      await hf.close();
      assert.throws(() => postgres('memory:'), { name: 'RangeError', message: /^url/ });
      assert.throws(() => postgres(), { name: 'TypeError', message: /^hf must be a Holdfast or a URL/ });
      assert.throws(() => postgres(server.url(), { nope: 1 }), { name: 'TypeError' });
    });
  });
});
