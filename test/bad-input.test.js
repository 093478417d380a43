'use strict';

// Whatever a function is given, it answers with an error that names the argument. Nothing crashes,
// and nothing has begun.

const assert = require('node:assert');
const { open } = require('..');

const NO_STRING = [undefined, null, 0, 5n, true, {}, [], Symbol('x'), () => {}, new Date(0)];
const NO_KEY = ['', 'a\0b', '\ud800', 'x'.repeat(1025), 'ä'.repeat(513)];
// Of a lock, which may have several.
const NO_KEYS = [undefined, null, 0, 5n, true, {}, Symbol('x'), () => {}, new Set(['a']),
  { length: 1, 0: 'a' }];
const NO_LIST = [[], Array(65).fill('a').map((it, i) => `${it}${i}`), ['a', 'b', 'a'],
  ...NO_KEY.map((bad) => [bad]), ...NO_KEY.map((bad) => ['a', bad])];
const NO_FUNCTION = [undefined, null, 5, 'fn', {}, [], Promise.resolve()];
const NO_OBJECT = [null, 5, 'x', true, [], 5n];
const NO_DURATION = [null, {}, true, 5n, [], Symbol('x')];
const NO_TIME = [NaN, -1, -Infinity, 'soon', '', '-5s'];
const NO_NUMBER = [null, '5', {}, true, 5n, []];
// What JSON would silently make {} of, or, of an Error, keep anything but the message.
const EMPTIED = [new Map([[1, 2]]), new Set([1]), /x/, new WeakMap(), new ArrayBuffer(5),
  Promise.resolve(5), new Error('x'), Object.assign(new Error('x'), { code: 'E' }),
  new (class Money { #cents = 5; get cents() { return this.#cents; } })()];
const PEM = '-----BEGIN CERTIFICATE-----';
const NO_INTEGER = [NaN, Infinity, 1.5, 2 ** 53, -(2 ** 53)];

const wrong = (values) => ({ values, type: 'TypeError' });
const outside = (values) => ({ values, type: 'RangeError' });
const fn = () => {};

// function name: argument: [call with a value, kinds of bad values]
function table(hf) {
  const { kv } = hf;
  const cyclic = {};
  cyclic.self = cyclic;
  const key = (call) => [call, wrong(NO_STRING), outside(NO_KEY)];
  const options = (call) => [call, wrong(NO_OBJECT)];
  const time = (call, ...times) => [call, wrong(NO_DURATION), outside([...NO_TIME, ...times])];
  const value = (call) => [
    call, wrong([undefined, fn, Symbol('x'), 5n, cyclic, { a: 5n }, ...EMPTIED,
      ...EMPTIED.map((it) => ({ deep: [it] }))]),
    outside([NaN, [Infinity], 'x'.repeat((1 << 20) + 1), Buffer.alloc((1 << 20) + 1)]),
  ];
  const fence = (call) => [
    call, wrong([undefined, null, 5, 'x', true, [], {}, { key: 'a' }, { key: 5, fence: 5 },
      { key: 'a', fence: '5' }, { key: 'a', fence: null }, { key: 'a', fence: undefined },
      Promise.resolve({ key: 'a', fence: 5 })]),
    outside([{ key: '', fence: 5 }, { key: 'a', fence: 0 }, { key: 'a', fence: 1.5 },
      { key: 'a', fence: -1 }]),
  ];
  const integer = (call) => [call, wrong(NO_NUMBER), outside(NO_INTEGER)];
  const version = (call) => [
    call, wrong([undefined, ...NO_NUMBER]), outside([...NO_INTEGER, 0, -1]),
  ];
  const text = (call, ...bad) => [call, wrong([null, 5, {}, true]), outside(bad)];
  const flag = (call) => [call, wrong([null, 0, 1, 'true', {}])];
  const signal = (call) => [call, wrong([null, {}, 'x', new AbortController(), fn])];
  const lockOptions = (call, name) => ({
    key: [(bad) => call(bad), wrong(NO_KEYS), outside([...NO_KEY, ...NO_LIST])],
    // Also where there is nothing at the place: a hole in a list is no key.
    'key[1]': [(bad) => call(['a', bad]), wrong([...NO_STRING, ['b']]), outside([...NO_KEY, 'a'])],
    [name]: options((bad) => call('a', bad)),
    'options.ttl': time((ttl) => call('a', { ttl }), 49, 86400001, Infinity, '2d'),
    'options.maxHold': time((maxHold) => call('a', { maxHold }), 49),
    'options.maxStall': time((maxStall) => call('a', { maxStall }), 49),
    'options.renew': flag((renew) => call('a', { renew })),
    'options.note': text((note) => call('a', { note }), 'x'.repeat(257), 'a\0', '\udc00'),
    'options.signal': signal((it) => call('a', { signal: it })),
    tll: [(tll) => call('a', { tll }), wrong([5])],
    'did you mean ttl': [(tll) => call('a', { tll }), wrong([5])],
    'options.mode': text((mode) => call('a', { mode }), '', 'Shared', 'read', 'exclusive '),
    'options.permits': [(permits) => call('a', { permits }), wrong(NO_NUMBER),
      outside([...NO_INTEGER, 0, -1, 1000001])],
    'options.mode and options.permits': [
      ([mode, permits]) => call('a', { mode, permits }),
      wrong([['shared', 5], ['exclusive', 1], ['shared', 1]]),
    ],
  });
  const onceOptions = (call) => ({
    'options.ttl': time((ttl) => call({ ttl }), 0, 49),
    'options.lease': time((lease) => call({ lease }), 49, 86400001, Infinity),
    'options.wait': time((wait) => call({ wait })),
    'options.onCrash': text((onCrash) => call({ onCrash }), '', 'ignore', 'Retry'),
    'options.keepErrors': flag((keepErrors) => call({ keepErrors })),
    'options.fingerprint': [(fingerprint) => call({ fingerprint }),
      wrong([fn, Symbol('x'), 5n, cyclic, ...EMPTIED]), outside([NaN])],
    'options.signal': signal((it) => call({ signal: it })),
    maxHold: [(maxHold) => call({ maxHold }), wrong([5])],
  });
  return {
    open: {
      url: [open, wrong([null, 5, {}, true, fn]), outside(['', 'x', 'sqlite:'])],
      options: options((bad) => open('memory:', bad)),
      'options.handoffs': [(handoffs) => open('memory:', { handoffs }), wrong(NO_NUMBER),
        outside([...NO_INTEGER, -1, 1000001])],
      'options.handoffTime': time((handoffTime) => open('memory:', { handoffTime })),
      host: [(host) => open('memory:', { host }), wrong(['x'])],
      ...Object.fromEntries(['connectTimeout', 'commandTimeout', 'idleTimeout']
        .map((name) => [`options.${name}`,
          time((bad) => open('memory:', { [name]: bad }), 9, '2h', Infinity)])),
      'options.max': [(max) => open('memory:', { max }),
        wrong(NO_NUMBER), outside([...NO_INTEGER, 0, 1001])],
      ...Object.fromEntries(['username', 'password', 'sentinelUsername', 'sentinelPassword']
        .map((name) => [`options.${name}`,
          text((bad) => open('memory:', { [name]: bad }), '\udc00')])),
      'options.prefix': text((prefix) => open('memory:', { prefix }), ...NO_KEY.slice(1)),
      'options.db': [(db) => open('memory:', { db }), wrong(NO_NUMBER),
        outside([...NO_INTEGER, -1, 65536])],
      'options.maxTtl': [(maxTtl) => open('memory:', { maxTtl }),
        { values: NO_DURATION, type: 'TypeError' },
        { values: [...NO_TIME, 49, Infinity, '25h'], type: 'RangeError' }],
      'options.nodeTimeout': [(nodeTimeout) => open('memory:', { nodeTimeout }),
        { values: NO_DURATION, type: 'TypeError' },
        { values: [...NO_TIME, 0, Infinity, '2h'], type: 'RangeError' }],
      'options.fencing': [(fencing) => open('memory:', { fencing }),
        { values: ['true', 1, null], type: 'TypeError' }],
      'options.waitReplicas': [(waitReplicas) => open('memory:', { waitReplicas }),
        wrong(NO_NUMBER), outside([...NO_INTEGER, -1, 17])],
      'options.allowEviction': flag((allowEviction) => open('memory:', { allowEviction })),
      'options.tls': [(tls) => open('memory:', { tls }), wrong([null, 0, 'x', 5n, [], fn])],
      'options.tls.ca': [(ca) => open('memory:', { tls: { ca } }), wrong([null, 5, {}, true]),
        outside(['', './ca.pem', [], Buffer.alloc(9)])],
      'options.tls.ca[1]': [(bad) => open('memory:', { tls: { ca: [PEM, bad] } }),
        wrong([undefined, null, 5, {}, true, [PEM]]), outside(['', './ca.pem', Buffer.alloc(9)])],
      'options.tls.cert': [(cert) => open('memory:', { tls: { cert, key: PEM } }),
        wrong([undefined, null, 5, {}, true, [PEM]]), outside(['', './cert.pem'])],
      'options.tls.key': [(bad) => open('memory:', { tls: { cert: PEM, key: bad } }),
        wrong([undefined, null, 5, {}, true, [PEM]]), outside(['', './key.pem'])],
      'options.tls.servername': text((servername) => open('memory:', { tls: { servername } }),
        '', 'a b', 'a\0', 'ä', 'x'.repeat(254)),
      'options.tls.rejectUnauthorized': flag(
        (rejectUnauthorized) => open('memory:', { tls: { rejectUnauthorized } })),
      sername: [(sername) => open('memory:', { tls: { sername } }), wrong(['x'])],
    },
    lock: {
      ...lockOptions((...args) => hf.lock(...args), 'options'),
      'options.wait': time((wait) => hf.lock('a', { wait })),
    },
    tryLock: {
      ...lockOptions((...args) => hf.tryLock(...args), 'options'),
      wait: [(wait) => hf.tryLock('a', { wait }), wrong([0])],
    },
    withLock: {
      ...lockOptions((k, o) => hf.withLock(k, o, fn), 'options'),
      'options.wait': time((wait) => hf.withLock('a', { wait }, fn)),
      fn: [(bad) => hf.withLock('a', {}, bad), wrong(NO_FUNCTION)],
    },
    inspect: { key: key((bad) => hf.inspect(bad)) },
    locks: {
      options: options(async (bad) => hf.locks(bad)),
      'options.prefix': [async (prefix) => hf.locks({ prefix }),
        wrong([null, 5, {}, true, ['a'], /a/]), outside(['a\0', '\ud800', 'x'.repeat(1025)])],
      'did you mean prefix': [async (prefx) => hf.locks({ prefx }), wrong(['a'])],
    },
    namespace: {
      name: [async (bad) => hf.namespace(bad), wrong(NO_STRING), outside([...NO_KEY, 'a:b', ':'])],
    },
    leader: {
      name: key(async (bad) => hf.leader(bad, fn)),
      fn: [async (bad) => hf.leader('a', bad), wrong(NO_FUNCTION)],
      options: options(async (bad) => hf.leader('a', fn, bad)),
      'options.ttl': time(async (ttl) => hf.leader('a', fn, { ttl }), 49, 86400001, Infinity),
      'options.maxStall': time(async (maxStall) => hf.leader('a', fn, { maxStall }), 49),
      'options.note': text(async (note) => hf.leader('a', fn, { note }), 'x'.repeat(257), 'a\0'),
      'options.signal': signal(async (it) => hf.leader('a', fn, { signal: it })),
      wait: [async (wait) => hf.leader('a', fn, { wait }), wrong([0])],
      renew: [async (renew) => hf.leader('a', fn, { renew }), wrong([true])],
    },
    once: {
      key: key((bad) => hf.once(bad, fn)),
      options: options((bad) => hf.once('a', bad, fn)),
      ...onceOptions((o) => hf.once('a', o, fn)),
      'options.detail': flag((detail) => hf.once('a', { detail }, fn)),
      fn: [(bad) => hf.once('a', {}, bad), wrong(NO_FUNCTION)],
    },
    idempotent: {
      fn: [async (bad) => hf.idempotent(bad, { key: fn }), wrong(NO_FUNCTION)],
      options: options(async (bad) => hf.idempotent(fn, bad)),
      ...onceOptions(async (o) => hf.idempotent(fn, { ...o, key: fn })),
      'options.key': [async (bad) => hf.idempotent(fn, { key: bad }), wrong(NO_FUNCTION)],
      detail: [async (detail) => hf.idempotent(fn, { key: fn, detail }), wrong([true])],
      'the result of options.key': key((bad) => hf.idempotent(fn, { key: () => bad })()),
    },
    record: { key: key((bad) => hf.record(bad)) },
    forget: { key: key((bad) => hf.forget(bad)) },
    close: {
      options: options((bad) => hf.close(bad)),
      'options.timeout': time((timeout) => hf.close({ timeout })),
      force: [(force) => hf.close({ force }), wrong([true])],
    },
    'kv.get': { key: key((bad) => kv.get(bad)) },
    'kv.create': {
      key: key((bad) => kv.create(bad, 1)),
      value: value((bad) => kv.create('a', bad)),
      options: options((bad) => kv.create('a', 1, bad)),
      'options.ttl': time((ttl) => kv.create('a', 1, { ttl }), 0),
      'options.fence': fence((it) => kv.create('a', 1, { fence: it })),
      version: [(it) => kv.create('a', 1, { version: it }), wrong([1])],
    },
    'kv.put': {
      key: key((bad) => kv.put(bad, 1)),
      value: value((bad) => kv.put('a', bad)),
      options: options((bad) => kv.put('a', 1, bad)),
      'options.ttl': time((ttl) => kv.put('a', 1, { ttl }), 0),
      'options.fence': fence((it) => kv.put('a', 1, { fence: it })),
      'options.version': version((it) => kv.put('a', 1, { version: it })),
      retries: [(retries) => kv.put('a', 1, { retries }), wrong([1])],
    },
    'kv.update': {
      key: key((bad) => kv.update(bad, fn)),
      fn: [(bad) => kv.update('a', bad), wrong(NO_FUNCTION)],
      // In a list, since a promise that it returns is awaited.
      'the result of fn': value((bad) =>
        kv.update('a', () => (bad instanceof Promise ? [bad] : bad))),
      options: options((bad) => kv.update('a', fn, bad)),
      'options.retries': [(retries) => kv.update('a', fn, { retries }), wrong(NO_NUMBER),
        outside([...NO_INTEGER, -1, 10001])],
      'options.ttl': time((ttl) => kv.update('a', fn, { ttl }), 0),
      'options.fence': fence((it) => kv.update('a', fn, { fence: it })),
    },
    'kv.increment': {
      key: key((bad) => kv.increment(bad, 1)),
      by: integer((bad) => kv.increment('a', bad)),
      options: options((bad) => kv.increment('a', 1, bad)),
      'options.min': integer((min) => kv.increment('a', 1, { min })),
      'options.max': integer((max) => kv.increment('a', 1, { max })),
      'options.initial': integer((initial) => kv.increment('a', 1, { initial })),
      'options.min must be at most': [(min) => kv.increment('a', 1, { min, max: 0 }), outside([1])],
      'options.fence': fence((it) => kv.increment('a', 1, { fence: it })),
    },
    'kv.delete': {
      key: key((bad) => kv.delete(bad)),
      options: options((bad) => kv.delete('a', bad)),
      'options.version': version((it) => kv.delete('a', { version: it })),
      'options.fence': fence((it) => kv.delete('a', { fence: it })),
      ttl: [(ttl) => kv.delete('a', { ttl }), wrong([5])],
    },
  };
}

const shown = (value) => {
  try {
    return (typeof value === 'string' ? JSON.stringify(value) : String(value)).slice(0, 40);
  } catch {
    return 'something strange';
  }
};

describe('bad input', () => {
  let hf;
  before(async () => { hf = await open('memory:'); });
  after(() => hf.close());

  const shape = table({ kv: {} });
  for (const [name, args] of Object.entries(shape)) {
    for (const argument of Object.keys(args)) {
      it(`${name}: ${argument}`, async () => {
        const [call, ...kinds] = table(hf)[name][argument];
        for (const { values, type } of kinds) {
          for (const value of values) {
            const error = await call(value).then(
              () => assert.fail(`${shown(value)} was taken`), (it) => it);
            assert.strictEqual(error.name, type, `${shown(value)}: ${error.stack}`);
            assert.ok(error.message.includes(argument), `${shown(value)}: ${error.message}`);
          }
        }
      });
    }
  }

  it('covers every public function', () => {
    const methods = (object) => Object.getOwnPropertyNames(Object.getPrototypeOf(object))
      .filter((name) => name !== 'constructor' && name !== 'kv');
    // Those that take nothing cannot be given anything wrong.
    const all = [...methods(hf), ...methods(hf.kv).map((name) => `kv.${name}`)]
      .filter((name) => !['sweep', 'ping', 'nodes'].includes(name));
    assert.deepStrictEqual(Object.keys(shape).filter((name) => name !== 'open').sort(), all.sort());
  });

  it('extend: ttl', async () => {
    const lock = await hf.lock('extend');
    for (const bad of NO_DURATION) {
      await assert.rejects(lock.extend(bad), { name: 'TypeError', message: /ttl/ });
    }
    for (const bad of [...NO_TIME, 49, Infinity]) {
      await assert.rejects(lock.extend(bad), { name: 'RangeError', message: /ttl/ });
    }
    assert.strictEqual(lock.held, true);
    await lock.release();
  });

  it('a Run is no fence', async () => {
    await hf.once('run', async (run) => {
      await assert.rejects(hf.kv.put('a', 1, { fence: run }), { name: 'TypeError', message: /Run/ });
    });
  });

  it('a lock that guards no write is no fence', async () => {
    const { kv } = hf;
    const kinds = [
      [['fences', { mode: 'shared' }], 'a shared Lock'],
      [['fences', { permits: 2 }], 'a Lock with several permits'],
      [[['fences', 'more']], 'a Lock of several keys'],
      [[['fences', 'more'], { mode: 'shared' }], 'a shared Lock'],
    ];
    for (const [args, what] of kinds) {
      await hf.withLock(...args, async (fence) => {
        for (const write of [
          () => kv.create('a', 1, { fence }), () => kv.put('a', 1, { fence }),
          () => kv.update('a', () => 1, { fence }), () => kv.increment('a', 1, { fence }),
          () => kv.delete('a', { fence }),
        ]) {
          await assert.rejects(write(), {
            name: 'TypeError', message: `options.fence is ${what}, which guards no write`,
          });
        }
      });
    }
    for (const args of [['fences', { permits: 1 }], [['fences'], { mode: 'exclusive' }]]) {
      await hf.withLock(...args, (fence) => kv.put('guarded', 1, { fence }));
    }
  });

  it('the least and the most of permits, keys and handoffs', async () => {
    const keys = Array.from({ length: 64 }, (_, i) => `${i}`.padEnd(1024, 'x'));
    for (const [key, options] of [['a', { permits: 1 }], ['a', { permits: 1000000 }], [['a']],
      [keys], [keys, { mode: 'shared' }]]) {
      for (const method of ['lock', 'tryLock']) {
        const lock = await hf[method](key, options);
        assert.deepStrictEqual([...lock.keys], [key].flat());
        assert.strictEqual(lock.held, true);
        await lock.release();
      }
    }
    for (const [handoffs, handoffTime] of [[0, 0], [1000000, Infinity], [undefined, '1s']]) {
      await (await open('memory:', { handoffs, handoffTime })).close();
    }
  });

  it('keys that change after the call, or while they are read', async () => {
    const keys = ['first', 'second'];
    const taken = hf.lock(keys);
    keys.reverse();
    keys.push('third');
    const lock = await taken;
    assert.deepStrictEqual([...lock.keys], ['first', 'second']);
    assert.throws(() => lock.keys.push('third'), TypeError);
    await (await hf.tryLock('third')).release();
    await lock.release();

    let reads = 0;
    const unsteady = ['first', 'second'];
    Object.defineProperty(unsteady, 1, { get: () => (++reads === 1 ? 'once' : 5) });
    const read = await hf.lock(unsteady);
    assert.deepStrictEqual([...read.keys], ['first', 'once']);
    await read.release();
    // An option that is read after the keys does not change them.
    const late = ['first', 'second'];
    const options = { get note() { return late.pop() ?? ''; } };
    const both = await hf.lock(late, options);
    assert.deepStrictEqual([...both.keys], ['first', 'second']);
    await both.release();
  });

  it('lists of keys that are not what they seem', async () => {
    const many = Object.assign(['b', 'c'], {
      * [Symbol.iterator]() {
        for (;;) yield `${Math.random()}`;
      },
    });
    const lengths = (length) => new Proxy(['b', 'c'], {
      get: (list, name) => (name === 'length' ? length : list[name]),
    });
    for (const list of [many, new Proxy(['b', 'c'], {}), lengths(2), lengths('2')]) {
      const lock = await hf.lock(list);
      assert.deepStrictEqual([...lock.keys], ['b', 'c']);
      await lock.release();
    }
    const none = Object.assign(['b'], { [Symbol.iterator]: () => [][Symbol.iterator]() });
    await (await hf.lock(none)).release();
    for (const length of [0, -1, NaN, 65, 2 ** 32, Infinity, undefined]) {
      await assert.rejects(hf.lock(lengths(length)), RangeError, String(length));
    }
    await assert.rejects(hf.lock(lengths(3)), { name: 'TypeError', message: /key\[2\]/ });
    // eslint-disable-next-line no-sparse-arrays
    for (const sparse of [Array(2), [, 'b'], ['b', , 'c']]) {
      await assert.rejects(hf.lock(sparse), { name: 'TypeError', message: /key\[[01]\]/ });
    }
    const thrown = new Error('mine');
    const trap = new Proxy(['b'], { get: () => { throw thrown; } });
    for (const call of [() => hf.lock(trap), () => hf.tryLock(trap), () => hf.withLock(trap, fn)]) {
      await assert.rejects(call(), thrown);
    }
    const { proxy, revoke } = Proxy.revocable(['b'], {});
    revoke();
    await assert.rejects(hf.lock(proxy), TypeError);
    for (const key of ['b', 'c']) assert.strictEqual(await hf.inspect(key), null);
  });

  it('a getter that throws, a proxy, a strange prototype', async () => {
    const thrown = new Error('mine');
    const trap = new Proxy({}, { ownKeys: () => { throw thrown; } });
    await assert.rejects(hf.lock('a', trap), thrown);
    await assert.rejects(hf.lock('a', { get ttl() { throw thrown; } }), thrown);
    await (await hf.lock('a', Object.create(null))).release();
    await assert.rejects(hf.lock('a', Object.create({ tll: 5 })), TypeError);
    await assert.rejects(hf.kv.put('a', { toJSON: () => { throw thrown; } }), TypeError);
  });

  it('has begun nothing', async () => {
    assert.strictEqual(await hf.inspect('a'), null);
    assert.strictEqual(await hf.record('a'), null);
    assert.strictEqual(await hf.kv.get('a'), null);
  });
});
