'use strict';

// What a message says: what was wrong, and what to do. Whole sentences, since they are what a
// programmer reads first.

const assert = require('node:assert');
const { inspect } = require('node:util');
const path = require('node:path');
const { open, ConflictError, Holdfast, StaleFenceError } = require('..');
const { duration } = require('../lib/duration');
const { useFolder } = require('./helpers');

const LEAVE = ', or leave the option out';
const FORMS = 'milliseconds or a string such as \'500ms\', \'30s\', \'5m\', \'24h\'';
const PEM = '-----BEGIN CERTIFICATE-----';
const fn = () => 1;

describe('messages', () => {
  let hf;
  let kv;
  before(async () => {
    hf = await open('memory:');
    ({ kv } = hf);
  });
  after(() => hf.close({ timeout: 0 }));

  const failure = (call) => Promise.resolve().then(call).then(assert.fail, (it) => it);
  async function assertMessage(call, name, message) {
    const error = await failure(call);
    assert.strictEqual(`${error.name}: ${error.message}`, `${name}: ${message}`);
    return error;
  }

  describe('of a condition', () => {
    const writes = {
      create: (options) => kv.create('open', 1, options),
      put: (options) => kv.put('open', 1, options),
      update: (options) => kv.update('open', () => 1, options),
      increment: (options) => kv.increment('open', 1, options),
      delete: (options) => kv.delete('open', options),
    };

    it('kv.increment changes nothing where a bound is undefined', async () => {
      await kv.put('bounded', 1);
      for (const bound of ['min', 'max']) {
        await assertMessage(() => kv.increment('bounded', -5, { [bound]: undefined }), 'TypeError',
          `options.${bound} is undefined: give a number${LEAVE}`);
      }
      assert.strictEqual((await kv.get('bounded')).value, 1);
    });

    for (const [name, write] of Object.entries(writes)) {
      it(`kv.${name} writes nothing where its guard is undefined`, async () => {
        const lock = hf.lock('unawaited');
        await assertMessage(() => write({ fence: lock.fence }), 'TypeError',
          `options.fence is undefined: await the lock first${LEAVE}`);
        await assertMessage(() => write({ fence: lock }), 'TypeError',
          'options.fence is a Promise: await the lock first');
        await assertMessage(() => write(Object.create({ fence: undefined })), 'TypeError',
          `options.fence is undefined: await the lock first${LEAVE}`);
        await assertMessage(() => write({ fence: { key: 'unawaited', fence: lock.fence } }),
          'TypeError',
          'options.fence.fence must be a number; got undefined: await the lock first');
        await assertMessage(() => write({ fence: { key: 'unawaited', fence: null } }), 'TypeError',
          'options.fence.fence must be a number; got null: a lock without a fence guards no write');
        await (await lock).release();
        assert.strictEqual(await kv.get('open'), null);
      });
    }

    for (const name of ['put', 'delete']) {
      it(`kv.${name} writes nothing where its version is undefined`, async () => {
        await kv.put('versioned', 1);
        const write = name === 'put'
          ? () => kv.put('versioned', 2, { version: undefined })
          : () => kv.delete('versioned', { version: undefined });
        await assertMessage(write, 'TypeError',
          `options.version is undefined: read the value first${LEAVE}`);
        assert.strictEqual((await kv.get('versioned')).value, 1);
      });
    }

    it('other options may be undefined', async () => {
      await kv.put('lax', 1, { ttl: undefined });
      await kv.update('lax', () => 2, { ttl: undefined, retries: undefined });
      await kv.increment('lax', 1, { initial: undefined });
      await (await hf.lock('lax', { ttl: undefined, wait: undefined, note: undefined })).release();
    });
  });

  describe('of an argument', () => {
    const took = (value, range) => () => duration(value, 'options.ttl', range);

    it('durations', async () => {
      const range = { min: 50, max: 24 * 3600 * 1000 };
      for (const [value, shown] of [['thirty', '"thirty"'], [NaN, 'NaN'], ['-5s', '"-5s"']]) {
        await assertMessage(took(value, range), 'RangeError',
          `options.ttl must be ${FORMS}; got ${shown}`);
      }
      await assertMessage(took(null, range), 'TypeError',
        `options.ttl must be ${FORMS}; got null`);
      await assertMessage(took(30, range), 'RangeError',
        'options.ttl must be from 50 ms to 24 h; got 30 (numbers are milliseconds)');
      await assertMessage(took('2d', range), 'RangeError',
        'options.ttl must be from 50 ms to 24 h; got "2d"');
      await assertMessage(took(-1, { min: 0, infinite: true }), 'RangeError',
        'options.ttl must be from 0 to 10 years, or Infinity; got -1 ' +
        '(numbers are milliseconds)');
    });

    it('functions', async () => {
      await assertMessage(() => hf.withLock('a', fn, { ttl: 100 }), 'TypeError',
        'fn comes last: withLock(key, options, fn)');
      await assertMessage(() => hf.once('a', fn, {}), 'TypeError',
        'fn comes last: once(key, options, fn)');
      const promise = 'fn is a Promise: pass the function itself, not the promise that ' +
        'calling it gave';
      for (const call of [
        () => hf.withLock('a', Promise.resolve()), () => hf.withLock('a', {}, Promise.resolve()),
        () => hf.once('a', Promise.resolve()), () => hf.once('a', {}, Promise.resolve()),
        () => kv.update('a', Promise.resolve()), () => hf.idempotent(Promise.resolve(), {}),
      ]) await assertMessage(call, 'TypeError', promise);
      await assertMessage(() => hf.idempotent(fn), 'TypeError',
        'options.key must be a function; got undefined');
      await assertMessage(() => hf.idempotent(fn, {}), 'TypeError',
        'options.key must be a function; got undefined');
    });

    it('keys, modes and permits', async () => {
      const lock = (...args) => () => hf.lock(...args);
      await assertMessage(lock(5), 'TypeError',
        'key must be a string or an array of strings; got number');
      await assertMessage(lock([]), 'RangeError', 'key must be 1 to 64 keys; got 0');
      await assertMessage(lock(Array(65).fill('a')), 'RangeError',
        'key must be 1 to 64 keys; got 65');
      await assertMessage(lock(['a', 'b', 'a']), 'RangeError',
        'key[2] is the same as one before it');
      await assertMessage(lock(['a', ['b']]), 'TypeError',
        'key[1] must be a string; got an array');
      await assertMessage(() => hf.inspect(['a']), 'TypeError',
        'key must be a string; got an array');
      await assertMessage(lock('a', { mode: 'read' }), 'RangeError',
        'options.mode must be \'exclusive\' or \'shared\'; got "read"');
      await assertMessage(lock('a', { permits: 0 }), 'RangeError',
        'options.permits must be a whole number from 1 to 1000000; got 0');
      await assertMessage(lock('a', { mode: 'shared', permits: 5 }), 'TypeError',
        'options.mode and options.permits exclude each other: give one of them');
      await assertMessage(() => new Holdfast('memory:', { handoffs: -1 }), 'RangeError',
        'options.handoffs must be a whole number from 0 to 1000000; got -1');
      await assertMessage(() => new Holdfast('memory:', { handoffTime: -1 }), 'RangeError',
        'options.handoffTime must be from 0 to 10 years, or Infinity; got -1 ' +
        '(numbers are milliseconds)');
    });

    it('values', async () => {
      const contains = 'value must not be or contain an instance of';
      const why = 'JSON would not keep what is in it';
      await assertMessage(() => kv.put('a', new Map()), 'TypeError', `${contains} Map: ${why}`);
      await assertMessage(() => kv.put('a', [{ b: new Set() }]), 'TypeError',
        `${contains} Set: ${why}`);
      await assertMessage(() => kv.put('a', Promise.resolve(1)), 'TypeError',
        `${contains} Promise: await it first`);
      await assertMessage(() => kv.update('a', () => undefined), 'TypeError',
        'the result of fn must be JSON or a Buffer; got undefined: return the new value from fn');
      await assertMessage(() => kv.increment('a', { min: 0 }), 'TypeError',
        'by must be a number; got object: options come third, increment(key, by, options)');
      assert.strictEqual(await kv.get('a'), null);
    });

    it('values that JSON keeps are taken', async () => {
      class Point {
        x = 1;
      }
      const kept = [{}, [], Object.create(null), new Date(0), new Point(), Object('text'),
        Object(5), Object(true), { toJSON: () => 'own' }, [[], {}],
        Object.assign(new Map(), { toJSON: () => 'own' })];
      for (const value of kept) {
        await kv.put('kept', value);
        assert.deepStrictEqual((await kv.get('kept')).value, JSON.parse(JSON.stringify(value)));
      }
      // Plain, though of another realm.
      await kv.put('kept', require('node:vm').runInNewContext('({ a: {}, b: [] })'));
      assert.deepStrictEqual((await kv.get('kept')).value, { a: {}, b: [] });
    });

    it('URLs', async () => {
      const file = 'url: for a file write "sqlite:/tmp/x.db", in memory is "memory:"';
      for (const url of ['', '/tmp/x.db', './x.db', 'memory']) {
        await assertMessage(() => new Holdfast(url), 'RangeError', file);
      }
      await assertMessage(() => new Holdfast(':memory:'), 'RangeError',
        'url: in memory is "memory:"');
      await assertMessage(() => new Holdfast('sqlite:'), 'RangeError',
        'url: names no file: sqlite:./name.db');
      const unknown = await failure(() => new Holdfast('mysql://user:secret@host/db'));
      assert.strictEqual(unknown.code, 'HF_ENOTSUP');
      assert.strictEqual(unknown.message, 'there is no store for "mysql:" in this version; ' +
      'it has memory: sqlite: redis: quorum: postgres:');
    });

    it('options that the store does not have', async () => {
      const options = {
        tls: { ca: PEM }, connectTimeout: '1s', commandTimeout: '1s', username: 'secret',
        password: 'secret', db: 1, prefix: 'secret', waitReplicas: 1, allowEviction: true,
        sentinelUsername: 'secret', sentinelPassword: 'secret', maxTtl: '1m', nodeTimeout: '1s',
        fencing: true, schema: 'secret', leases: 'relaxed', pooler: 'session',
      };
      for (const store of ['memory', 'sqlite']) {
        for (const [option, value] of Object.entries(options)) {
          await assertMessage(() => new Holdfast(`${store}:x`, { [option]: value }), 'TypeError',
            `options.${option} is an option that the ${store} store does not have`);
        }
      }
    });

    it('passwords', async () => {
      await assertMessage(() => new Holdfast('memory:', { password: () => 'secret' }), 'TypeError',
        'options.password is an option that the memory store does not have');
      await assertMessage(
        () => new Holdfast('memory:', { password: Promise.resolve('secret') }), 'TypeError',
        'options.password is a Promise: pass the function itself, not the promise that calling ' +
        'it gave');
      await assertMessage(() => new Holdfast('memory:', { password: ['secret'] }), 'TypeError',
        'options.password must be a string or a function that gives one; got an array');
    });

    it('certificates and keys', async () => {
      const wrong = (tls) => () => new Holdfast('memory:', { tls });
      for (const option of ['ca', 'cert', 'key']) {
        for (const file of ['./secret.pem', Buffer.from('0secret')]) {
          await assertMessage(wrong({ [option]: file }), 'RangeError',
            `options.tls.${option} must be PEM, which has a line '-----BEGIN ...-----': ` +
            'of a file, pass what fs.readFileSync() gives');
        }
      }
      await assertMessage(wrong({ cert: PEM }), 'TypeError',
        'options.tls.cert needs options.tls.key: a client shows the server both');
      await assertMessage(wrong({ key: PEM }), 'TypeError',
        'options.tls.key needs options.tls.cert: a client shows the server both');
      await assertMessage(wrong({ servername: 'a secret' }), 'RangeError',
        'options.tls.servername must be a host name or an IP address: ' +
        '1 to 253 characters of ASCII without blanks');
      await assertMessage(wrong({ pfx: PEM }), 'TypeError',
        'options.tls has an unknown option \'pfx\': ' +
        'the options are ca, cert, key, servername, rejectUnauthorized');
    });
  });

  describe('of a refused write', () => {
    it('versions', async () => {
      const old = await kv.put('v', 1);
      const present = await kv.put('v', 2);
      const conflict = `"v" has version ${present}, not ${old}: read it again`;
      const error = await assertMessage(() => kv.put('v', 3, { version: old }), 'ConflictError',
        `${conflict}, or use kv.update`);
      assert.strictEqual(error.version, present);
      await assertMessage(() => kv.delete('v', { version: old }), 'ConflictError', conflict);
      await assertMessage(() => kv.create('v', 3), 'ConflictError',
        `"v" exists, with version ${present}`);
      await assertMessage(() => kv.put('none', 3, { version: 7 }), 'ConflictError',
        '"none" does not exist: it has no version 7: read it again, or use kv.update');
    });

    it('update after its retries, and no other conflict', async () => {
      for (const [retries, times] of [[0, '0 retries'], [1, '1 retry'], [3, '3 retries']]) {
        const error = await assertMessage(() => kv.update('busy', async (n = 0) => {
          await kv.put('busy', n + 1);
          return 'mine';
        }, { retries }), 'ConflictError', `"busy" kept changing: gave up after ${times}`);
        assert.ok(error.cause instanceof ConflictError);
        assert.strictEqual(error.version, (await kv.get('busy')).version);
        assert.strictEqual(error.retryable, true);
      }
      const mine = new ConflictError('mine', { key: 'busy' });
      let calls = 0;
      await assert.rejects(kv.update('busy', () => {
        calls++;
        throw mine;
      }), (error) => error === mine);
      assert.strictEqual(calls, 1);
    });

    it('fences', async () => {
      const old = await hf.lock('job');
      await old.release();
      const lock = await hf.lock('job');
      await kv.put('f', 1, { fence: lock });
      const stale = `"f" was written under fence ${lock.fence} of the lock "job", and this write ` +
        `comes with ${old.fence}: this lock was lost: stop writing`;
      for (const write of [
        () => kv.put('f', 2, { fence: old }), () => kv.update('f', () => 2, { fence: old }),
        () => kv.increment('f', 1, { fence: old }), () => kv.delete('f', { fence: old }),
      ]) {
        const error = await assertMessage(write, 'StaleFenceError', stale);
        assert.ok(error instanceof StaleFenceError);
        assert.strictEqual(error.fence, lock.fence);
      }
      const other = await hf.lock('other');
      await assertMessage(() => kv.put('f', 2, { fence: other }), 'ConflictError',
        '"f" is guarded by another lock key than "other": ' +
        'use the lock that guarded its last write');
      await Promise.all([lock.release(), other.release()]);
    });

    for (const store of ['memory', 'sqlite']) {
      describe(`bounds in ${store}`, () => {
        const folder = useFolder();
        let at;
        before(async () => {
          at = await open(store === 'memory'
            ? 'memory:'
            : `sqlite:${path.join(folder.path, 'bounds.db')}`);
        });
        after(() => at.close());

        it('name the one that is in the way', async () => {
          const add = (...args) => () => at.kv.increment('n', ...args);
          await assertMessage(add(-1, { min: 0 }), 'BoundsError', '"n" would become -1 (min 0)');
          await assertMessage(add(2, { initial: 8, min: 0, max: 9 }), 'BoundsError',
            '"n" would become 10 (max 9)');
          await at.kv.put('n', 5);
          await assertMessage(add(-6, { min: 0, max: 9 }), 'BoundsError',
            '"n" would become -1 (min 0)');
          await assertMessage(add(1, { min: 7 }), 'BoundsError', '"n" would become 6 (min 7)');
          await at.kv.put('n', Number.MAX_SAFE_INTEGER);
          await assertMessage(add(2, { min: 0 }), 'BoundsError',
            '"n" would become 9007199254740993 (max 9007199254740991)');
          await at.kv.put('n', 'text');
          await assertMessage(add(1), 'HoldfastError', '"n" is no whole number');
        });
      });
    }
  });

  describe('of what console.log shows', () => {
    it('a lock, without its token', async () => {
      const lock = await hf.lock('shown');
      assert.strictEqual(inspect(lock),
        `Lock { keys: [ 'shown' ], held: true, fence: ${lock.fence} }`);
      assert.ok(!inspect(lock, { showHidden: true, depth: 9 }).includes(lock.token));
      assert.match(inspect({ a: { b: { c: lock } } }), /c: \[Lock\]/);
      await lock.release();
      assert.match(inspect(lock), /held: false/);
    });

    it('a Holdfast, without its URL', async () => {
      const folder = require('node:fs').mkdtempSync(path.join(require('node:os').tmpdir(), 'hf-'));
      const shown = new Holdfast(`sqlite:${path.join(folder, 'shown.db')}`);
      assert.strictEqual(inspect(shown), 'Holdfast { store: \'sqlite\', closed: false }');
      assert.match(inspect({ a: { b: { c: shown } } }), /c: \[Holdfast\]/);
      await shown.close();
      assert.match(inspect(shown), /closed: true/);
      require('node:fs').rmSync(folder, { recursive: true });
    });
  });

  it('a wait that this process makes vain says so', async () => {
    await hf.withLock('again', async () => {
      const error = await failure(() => hf.lock('again', { wait: 0 }));
      assert.match(error.message, /held by this process for \d+ ms \(locks are not re-entrant\)$/);
    });
  });
});
