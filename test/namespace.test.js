'use strict';

// A namespace is a prefix of keys: what callers say and are told is without it, what the store has
// is with it.

const assert = require('node:assert');
const diagnostics = require('node:diagnostics_channel');
const http = require('node:http');
const path = require('node:path');
const { once } = require('node:events');
const { inspect } = require('node:util');
const express = require('express');
const { idempotency } = require('holdfast/express');
const { open, Holdfast, ConflictError, LockTimeoutError, StaleFenceError } = require('..');
const { endChildren, start, useFolder } = require('./helpers');

const KEY_MAX = 1024;

const failure = (call) => Promise.resolve().then(call).then(assert.fail, (it) => it);

function namespaceTests(url) {
  let hf;
  let shop;
  before(async () => {
    hf = await open(url());
    shop = hf.namespace('shop');
  });
  after(() => hf.close({ timeout: 0 }));

  it('has its own locks, and they speak its keys', async () => {
    const outer = await hf.lock('a');
    const lock = await shop.lock('a');
    assert.deepStrictEqual(lock.keys, ['a']);
    assert.strictEqual(await hf.tryLock('shop:a'), null);
    assert.strictEqual((await shop.inspect('a')).key, 'a');
    assert.deepStrictEqual(await shop.inspect('shop:a'), null);
    const [mine] = (await hf.inspect('shop:a')).holders;
    assert.strictEqual(mine.token, lock.token);
    assert.notStrictEqual(mine.token, outer.token);
    await Promise.all([outer.release(), lock.release()]);
    const name = await shop.withLock(['a', 'b'], async (several) => {
      assert.notStrictEqual(await hf.inspect('shop:b'), null);
      return several.keys;
    });
    assert.deepStrictEqual(name, ['a', 'b']);
    assert.ok(Object.isFrozen(name));
  });

  it('tells who of it waits', async () => {
    const lock = await shop.lock('queue');
    const waiting = shop.lock('queue', { note: 'second' });
    const { waiters, waiting: count } = await shop.inspect('queue');
    assert.deepStrictEqual([count, waiters[0].note], [1, 'second']);
    await lock.release();
    await (await waiting).release();
  });

  it('has its own values', async () => {
    await hf.kv.put('stock', 1);
    assert.strictEqual(await shop.kv.get('stock'), null);
    await shop.kv.create('stock', 5);
    assert.strictEqual(await shop.kv.increment('stock', 2), 7);
    await shop.kv.update('stock', (n) => n + 1);
    assert.strictEqual((await hf.kv.get('shop:stock')).value, 8);
    assert.strictEqual((await hf.kv.get('stock')).value, 1);
    await shop.kv.put('stock', 3);
    assert.strictEqual(await shop.kv.delete('stock'), true);
    assert.strictEqual(await hf.kv.get('shop:stock'), null);
    assert.strictEqual(shop.kv, shop.kv);
  });

  it('has its own operations', async () => {
    await hf.once('op', () => 'outer');
    let seen;
    const value = await shop.once('op', (run) => {
      seen = run.key;
      return 'inner';
    });
    assert.deepStrictEqual([value, seen], ['inner', 'op']);
    const record = await shop.record('op');
    assert.deepStrictEqual([record.key, record.value], ['op', 'inner']);
    assert.strictEqual((await hf.record('shop:op')).key, 'shop:op');
    const pay = shop.idempotent((id) => id * 2, { key: (id) => `pay/${id}` });
    assert.strictEqual(await pay(4), 8);
    assert.strictEqual((await hf.record('shop:pay/4')).value, 8);
    assert.strictEqual(await shop.forget('op'), true);
    assert.strictEqual((await hf.record('op')).value, 'outer');
  });

  it('takes a fence from any view, and a key of its own', async () => {
    const lock = await shop.lock('guard');
    await shop.kv.put('guarded', 1, { fence: lock });
    await hf.kv.put('shop:guarded', 2, { fence: lock });
    await shop.kv.put('guarded', 3, { fence: { key: 'guard', fence: lock.fence } });
    await hf.kv.put('shop:guarded', 4, { fence: { key: 'shop:guard', fence: lock.fence } });
    const other = await failure(
      () => hf.kv.put('shop:guarded', 5, { fence: { key: 'guard', fence: lock.fence } }));
    assert.ok(other instanceof ConflictError);
    await lock.release();
    const stale = await failure(() =>
      shop.kv.put('guarded', 5, { fence: { key: 'guard', fence: lock.fence - 1 } }));
    assert.ok(stale instanceof StaleFenceError);
    assert.match(stale.message, /"shop:guarded" .* of the lock "shop:guard"/);
  });

  it('nests', async () => {
    const inner = shop.namespace('eu');
    const lock = await inner.lock('a');
    assert.deepStrictEqual(lock.keys, ['a']);
    assert.strictEqual((await hf.inspect('shop:eu:a')).holders[0].token, lock.token);
    assert.strictEqual((await shop.inspect('eu:a')).key, 'eu:a');
    await lock.release();
  });

  it('lists its own locks', async () => {
    const locks = await Promise.all([
      hf.lock('x'), shop.lock('x'), shop.lock('y'), shop.namespace('eu').lock('x'),
      hf.namespace('shopping').lock('x'),
    ]);
    const keys = async (view, options) => {
      const found = [];
      for await (const { key } of view.locks(options)) found.push(key);
      return found;
    };
    assert.deepStrictEqual(await keys(shop), ['eu:x', 'x', 'y']);
    assert.deepStrictEqual(await keys(shop, { prefix: 'e' }), ['eu:x']);
    assert.deepStrictEqual(await keys(shop.namespace('eu')), ['x']);
    assert.deepStrictEqual(await keys(hf),
      ['shop:eu:x', 'shop:x', 'shop:y', 'shopping:x', 'x']);
    await Promise.all(locks.map((lock) => lock.release()));
  });

  it('names the whole key in errors', async () => {
    const lock = await shop.lock('busy');
    const timeout = await failure(() => shop.lock('busy', { wait: 0 }));
    assert.ok(timeout instanceof LockTimeoutError);
    assert.strictEqual(timeout.key, 'shop:busy');
    assert.match(timeout.message, /the lock "shop:busy" .* held by this process/);
    assert.strictEqual(timeout.holder.token, lock.token);
    await lock.release();
    assert.throws(() => lock.assertHeld(), { key: 'shop:busy', message: /"shop:busy"/ });
    await shop.kv.put('v', 1);
    const conflict = await failure(() => shop.kv.create('v', 1));
    assert.deepStrictEqual([conflict.key, conflict.code], ['shop:v', 'HF_ECONFLICT']);
    const kept = await failure(() => shop.once('bad', () => Symbol('no JSON')));
    assert.deepStrictEqual([kept.key, kept.code], ['shop:bad', 'HF_EINVAL']);
    assert.match(kept.message, /^operation "shop:bad" has run/);
  });

  it('names the whole key in telemetry', async () => {
    const heard = [];
    const listener = ({ key, keys }) => heard.push(keys ?? key);
    const channels = ['holdfast:lock', 'holdfast:once', 'holdfast:kv'];
    for (const channel of channels) diagnostics.subscribe(channel, listener);
    try {
      await shop.withLock(['t', 'u'], () => {});
      await shop.once('told', () => 1);
      await shop.kv.get('t');
    } finally {
      for (const channel of channels) diagnostics.unsubscribe(channel, listener);
    }
    assert.deepStrictEqual(heard.slice(0, 3), Array(3).fill(['shop:t', 'shop:u']));
    assert.deepStrictEqual(heard.slice(3), ['shop:told', 'shop:told', 'shop:t']);
  });

  it('has keys of at most 1,024 bytes with its name', async () => {
    const longest = 'k'.repeat(KEY_MAX - 'shop:'.length);
    await (await shop.lock(longest)).release();
    assert.strictEqual(await shop.kv.get(longest), null);
    const long = `${longest}k`;
    const calls = [
      () => shop.lock(long), () => shop.lock(['a', long]), () => shop.tryLock(long),
      () => shop.inspect(long), () => shop.once(long, () => {}), () => shop.record(long),
      () => shop.forget(long), () => shop.kv.get(long), () => shop.kv.put(long, 1),
      () => shop.kv.put('a', 1, { fence: { key: long, fence: 1 } }),
      () => shop.locks({ prefix: long }), () => shop.leader(long, () => {}),
      () => shop.idempotent(() => {}, { key: () => long })(),
    ];
    for (const call of calls) {
      const error = await failure(call);
      assert.ok(error instanceof RangeError, String(call));
      assert.match(error.message, /^[\w.[\] ]+ must be at most 1024 bytes of UTF-8 together with/);
      assert.match(error.message, /got 1025, 5 of which are the namespace's$/);
    }
    // Its bytes count, not its characters.
    await assert.rejects(hf.namespace('ä').lock('k'.repeat(KEY_MAX - 2)), RangeError);
    await (await hf.namespace('ä').lock('k'.repeat(KEY_MAX - 3))).release();
  });

  it('is refused a name that is none', () => {
    for (const name of [undefined, null, 5, {}, ['a']]) {
      assert.throws(() => hf.namespace(name), { name: 'TypeError', message: /^name must be/ });
    }
    for (const name of ['', 'a:b', ':', 'a\0', '\ud800', 'n'.repeat(KEY_MAX + 1)]) {
      assert.throws(() => hf.namespace(name), { name: 'RangeError', message: /^name must/ });
    }
    const most = hf.namespace('n'.repeat(KEY_MAX - 2));
    assert.throws(() => most.namespace('n'), { name: 'RangeError', message: /room for a key/ });
    assert.throws(() => hf.namespace('n'.repeat(KEY_MAX - 1)), /room for a key/);
  });

  it('is a Holdfast that goes on until the one it came from is closed', async () => {
    assert.ok(shop instanceof Holdfast);
    assert.match(inspect(shop), /^Holdfast \{ store: '\w+', namespace: 'shop', closed: false \}$/);
    assert.ok(await shop.ping() >= 0);
    assert.strictEqual(typeof await shop.sweep(), 'number');
    await assert.rejects(shop.close(), {
      name: 'TypeError', message: /^a namespace is closed with the Holdfast it came from/,
    });
    await shop[Symbol.asyncDispose]();
    assert.strictEqual(typeof await shop.kv.put('open', 1), 'number');
  });
}

describe('namespaces', () => {
  const folder = useFolder();
  endChildren();
  const file = () => `sqlite:${path.join(folder.path, 'names.db')}`;
  describe('on memory', () => namespaceTests(() => 'memory:'));
  describe('on sqlite', () => namespaceTests(file));

  it('end with the Holdfast they came from', async () => {
    const hf = await open('memory:');
    const shop = hf.namespace('shop');
    const lock = await shop.lock('a');
    const closing = hf.close({ timeout: '5s' });
    await assert.rejects(shop.lock('b'), { code: 'HF_ECLOSED' });
    await lock.release();
    await closing;
    await assert.rejects(shop.kv.get('a'), { code: 'HF_ECLOSED' });
    assert.match(inspect(shop), /closed: true/);
  });

  it('are the same in every process', async () => {
    const child = start(`
      const hf = await holdfast.open();
      const lock = await hf.namespace('job').lock('nightly', { note: 'theirs' });
      say('held', { fence: lock.fence });
      await heard('go');
      await lock.release();
    `, file());
    const { fence } = await child.hear('held');
    const hf = await open(file());
    const job = hf.namespace('job');
    const error = await failure(() => job.lock('nightly', { wait: 0 }));
    assert.deepStrictEqual([error.holder.note, error.holder.fence], ['theirs', fence]);
    assert.strictEqual((await hf.inspect('job:nightly')).holders[0].pid, child.pid);
    child.tell('go');
    assert.ok((await job.withLock('nightly', (lock) => lock.fence)) > fence);
    await hf.close();
  });

  it('emit errors on the Holdfast that was opened', async () => {
    const hf = await open('memory:');
    const heard = new Promise((resolve) => {
      hf.on('error', resolve);
    });
    const shop = hf.namespace('shop');
    shop.on('error', assert.fail);
    const boss = shop.leader('boss', () => { throw new Error('boom'); });
    const error = await heard;
    assert.deepStrictEqual([error.key, error.cause.message], ['shop:boss', 'boom']);
    await boss.stop();
    await hf.close();
  });

  it('keep the records of an Express route', async () => {
    const hf = await open('memory:');
    const shop = hf.namespace('shop');
    const app = express();
    let runs = 0;
    let key;
    app.post('/', idempotency(shop), (req, res) => {
      key = req.idempotency.key;
      res.json({ run: ++runs });
    });
    const server = http.createServer(app).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const post = () => fetch(`http://127.0.0.1:${server.address().port}/`, {
      method: 'POST', headers: { 'idempotency-key': 'order-7' },
    });
    assert.deepStrictEqual(await (await post()).json(), { run: 1 });
    const again = await post();
    assert.strictEqual(again.headers.get('idempotent-replayed'), 'true');
    assert.deepStrictEqual(await again.json(), { run: 1 });
    assert.strictEqual(key, 'http::order-7');
    assert.strictEqual((await shop.record(key)).state, 'done');
    assert.strictEqual(await hf.record(key), null);
    assert.strictEqual((await hf.record(`shop:${key}`)).state, 'done');
    server.close();
    server.closeAllConnections();
    await hf.close();
  });
});
