'use strict';

// The parts of the HTTP adapters that need no server.

const assert = require('node:assert/strict');
const { idempotency, recordKey } = require('../lib/express');
const { canonicalJson } = require('../lib/http/canonical-json');
const { parseKey } = require('../lib/http/key');
const { decodeAnswer, encodeAnswer, isKept, keptHeaders } = require('../lib/http/answer');

/** Mulberry32: numbers from 0 up to 1 that a seed repeats. */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** An independent reading of the grammar, character by character. */
function referenceKey(value) {
  const text = value.replace(/^[\t ]*/, '').replace(/[\t ]*$/, '');
  const codes = [...text].map((c) => c.charCodeAt(0));
  let key = '';
  if (text[0] !== '"') {
    if (codes.some((c) => c < 0x21 || c > 0x7e) || /[",;\\]/.test(text)) return null;
    key = text;
  } else {
    let i = 1;
    for (; i < text.length && text[i] !== '"'; i++) {
      if (codes[i] < 0x20 || codes[i] > 0x7e) return null;
      if (text[i] === '\\') {
        i += 1;
        if (text[i] !== '"' && text[i] !== '\\') return null;
      }
      key += text[i];
    }
    if (i !== text.length - 1) return null;
  }
  return key.length >= 1 && key.length <= 255 ? key : null;
}

describe('the Idempotency-Key header', () => {
  const good = [
    ['8e03978e-40d5-43e8-bc93-6894a57f9324', '8e03978e-40d5-43e8-bc93-6894a57f9324'],
    ['"8e03978e"', '8e03978e'],
    ['  "a"\t', 'a'],
    ['"a b, c; d"', 'a b, c; d'],
    ['"say \\"hi\\" \\\\o/"', 'say "hi" \\o/'],
    ['a/b+c=d:e', 'a/b+c=d:e'],
    ['"\\""', '"'],
    ['x'.repeat(255), 'x'.repeat(255)],
    [`"${'\\"'.repeat(255)}"`, '"'.repeat(255)],
  ];
  for (const [value, key] of good) {
    it(`reads ${value.slice(0, 40)}`, () => {
      assert.deepEqual(parseKey(value), { key, problem: null });
    });
  }

  const bad = ['', ' ', '""', '"a', 'a"', '"a"b', '"a"; q=1', '"\\n"', '"\\"', 'a b', 'a,b', 'a;b',
    'a\\b', '"ä"', 'ä', '"\x7f"', '"\t"', '\x00', 'x'.repeat(256), `"${'x'.repeat(256)}"`];
  for (const value of bad) {
    it(`refuses ${JSON.stringify(value.slice(0, 40))}`, () => {
      const { key, problem } = parseKey(value);
      assert.equal(key, null);
      assert.match(problem, /\.$/);
    });
  }

  it('agrees with a reading of the grammar on 20,000 random values', () => {
    const seed = Number(process.env.HOLDFAST_SEED ?? Date.now() % 1e9);
    const next = random(seed);
    const alphabet = ['"', '"', '\\', '\\', 'a', 'Z', '0', ' ', '\t', ',', ';', '~', '!', '\x7f',
      '\x1f', 'é', '-'];
    let accepted = 0;
    for (let i = 0; i < 20_000; i++) {
      const length = next() < 0.01 ? 250 + Math.floor(next() * 12) : Math.floor(next() * 9);
      const repeated = length > 200 && next() < 0.8;
      let value = '';
      for (let n = 0; n < length; n++) {
        value += repeated ? 'k' : alphabet[Math.floor(next() * alphabet.length)];
      }
      if (next() < 0.4) value = `"${value}"`;
      const expected = referenceKey(value);
      assert.equal(parseKey(value).key, expected, `seed ${seed}: ${JSON.stringify(value)}`);
      if (expected !== null) accepted += 1;
    }
    assert.ok(accepted > 500, `only ${accepted} of the values were keys`);
  });

  it('reads back every key that was written as a quoted string', () => {
    const next = random(7);
    for (let i = 0; i < 2_000; i++) {
      const key = Array.from({ length: 1 + Math.floor(next() * 255) },
        () => String.fromCharCode(0x20 + Math.floor(next() * 95))).join('');
      const value = `"${key.replace(/["\\]/g, '\\$&')}"`;
      assert.equal(parseKey(value).key, key);
    }
  });
});

describe('recordKey', () => {
  it('names a record by key and scope', () => {
    assert.equal(recordKey('k1'), 'http::k1');
    assert.equal(recordKey('k1', 'tenant 7'), 'http:tenant%207:k1');
  });

  it('gives different pairs different names', () => {
    const pairs = [['a:b'], ['b', 'a'], ['b:c', 'a'], ['c', 'a:b'], ['c', 'a%3Ab'], [':c', 'a'],
      ['x', '+'], ...[256, 257, 258].map((length) => ['c', 'a'.repeat(length)])];
    assert.equal(new Set(pairs.map((pair) => recordKey(...pair))).size, pairs.length);
  });

  it('stays within the bounds of a key of hf.once', () => {
    const longest = recordKey('x'.repeat(255), 'ü'.repeat(5_000));
    assert.ok(Buffer.byteLength(longest) <= 517);
    assert.ok(Buffer.byteLength(recordKey('x'.repeat(255), 'y'.repeat(256))) <= 517);
  });

  it('refuses what is neither key nor scope', () => {
    assert.throws(() => recordKey(1), TypeError);
    assert.throws(() => recordKey(''), RangeError);
    assert.throws(() => recordKey('x'.repeat(256)), RangeError);
    assert.throws(() => recordKey('a', 1), TypeError);
    assert.throws(() => recordKey('a', ''), RangeError);
    assert.throws(() => recordKey('a', '\ud800'), RangeError);
  });
});

describe('canonicalJson', () => {
  it('is JSON with sorted names', () => {
    const value = { b: [1, { z: null, a: 'x"y' }], a: true, 10: 'ten', 9: undefined };
    assert.equal(canonicalJson(value), '{"10":"ten","a":true,"b":[1,{"a":"x\\"y","z":null}]}');
    assert.deepEqual(JSON.parse(canonicalJson(value)), JSON.parse(JSON.stringify(value)));
  });

  it('writes what JSON.stringify writes', () => {
    for (const value of [null, '', 0, -0, 1.5e300, false, [], {}, [undefined, () => 1], [[[]]],
      { at: new Date(0) }, Object.create(null), [NaN]]) {
      assert.equal(canonicalJson(value), JSON.stringify(value));
    }
    assert.equal(canonicalJson(12n), '12n');
  });

  it('takes any depth', () => {
    let value = [];
    for (let i = 0; i < 200_000; i++) value = [value];
    assert.equal(canonicalJson(value).length, 2 * 200_001);
  });

  it('allows one object in two places, but not inside itself', () => {
    const shared = { a: 1 };
    assert.equal(canonicalJson([shared, shared]), '[{"a":1},{"a":1}]');
    shared.self = [shared];
    assert.throws(() => canonicalJson(shared), TypeError);
  });
});

describe('a recorded answer', () => {
  const answer = {
    kind: 'answer', status: 201, message: 'Made', headers: [['X-A', ['1', '2']], ['etag', '"x"']],
    early: true, text: 1, trailers: [['X-T', 'é']], body: Buffer.from([0, 255, 10]),
  };

  it('is read as it was written', () => {
    assert.deepEqual(decodeAnswer(encodeAnswer(answer)), answer);
    assert.deepEqual(decodeAnswer(encodeAnswer({ kind: 'unanswered' })),
      { kind: 'unanswered', body: Buffer.alloc(0) });
  });

  it('is not kept when its head is too large', () => {
    const headers = [['X-Big', 'x'.repeat(70_000)]];
    assert.deepEqual(decodeAnswer(encodeAnswer({ ...answer, headers })),
      { kind: 'oversize', status: 201, body: Buffer.alloc(0) });
  });

  it('is told from other values', () => {
    const whole = encodeAnswer(answer);
    const other = Buffer.from(whole);
    other[0] = 9;
    for (const value of [null, 'text', { a: 1 }, Buffer.alloc(3), whole.subarray(0, 40), other]) {
      assert.throws(() => decodeAnswer(value), /does not hold an HTTP answer/);
    }
  });

  it('has the headers of the answer, not those of the message', () => {
    const headers = [['Set-Cookie', 'a=1'], ['DATE', 'now'], ['Connection', 'close, X-Hop'],
      ['x-hop', '1'], ['Transfer-Encoding', 'chunked'], ['Keep-Alive', 'timeout=5'], ['TE', 'a'],
      ['Upgrade', 'b'], ['Location', '/1'], ['ETag', '"e"'], ['Trailer', 'X-T']];
    assert.deepEqual(keptHeaders(headers),
      [['Location', '/1'], ['ETag', '"e"'], ['Trailer', 'X-T']]);
  });

  it('is kept for every status but those that ask for another attempt', () => {
    const dropped = [];
    for (let status = 200; status < 600; status++) if (!isKept(status)) dropped.push(status);
    assert.deepEqual(dropped, [401, 403, 408, 425, 429, 503]);
  });
});

describe('the options of idempotency', () => {
  const hf = { once() {} };

  it('need a Holdfast', () => {
    for (const value of [undefined, null, {}, 'sqlite:', { once: true }]) {
      assert.throws(() => idempotency(value), { name: 'TypeError', message: /^hf / });
    }
  });

  const wrong = [
    [TypeError, 'options', 7], [TypeError, 'options', null],
    [TypeError, 'require', { require: true }], [TypeError, 'wait', { wait: 5 }],
    [TypeError, 'options.required', { required: 1 }],
    [TypeError, 'options.methods', { methods: 'POST' }],
    [TypeError, 'options.methods', { methods: [1] }],
    [RangeError, 'options.methods', { methods: [] }],
    [RangeError, 'options.methods', { methods: ['POKE'] }],
    [TypeError, 'options.header', { header: 1 }],
    [RangeError, 'options.header', { header: 'a b' }],
    [RangeError, 'options.header', { header: '' }],
    [TypeError, 'options.maxBody', { maxBody: '1mb' }],
    [RangeError, 'options.maxBody', { maxBody: -1 }],
    [RangeError, 'options.maxBody', { maxBody: (1 << 20) + 1 }],
    [RangeError, 'options.maxBody', { maxBody: 0.5 }],
    [TypeError, 'options.ttl', { ttl: {} }], [RangeError, 'options.ttl', { ttl: 0 }],
    [RangeError, 'options.ttl', { ttl: 'soon' }],
    [TypeError, 'options.lease', { lease: null }], [RangeError, 'options.lease', { lease: 49 }],
    [RangeError, 'options.lease', { lease: '25h' }],
    [TypeError, 'options.onCrash', { onCrash: 1 }],
    [RangeError, 'options.onCrash', { onCrash: 'ignore' }],
    [TypeError, 'options.fingerprint', { fingerprint: 'x' }],
    [TypeError, 'options.scope', { scope: 'tenant' }],
  ];
  for (const [type, name, options] of wrong) {
    it(`refuse ${JSON.stringify(options)}`, () => {
      assert.throws(() => idempotency(hf, options), (error) => {
        assert.equal(error.constructor, type);
        assert.ok(error.message.includes(name), error.message);
        return true;
      });
    });
  }

  it('take what they should', () => {
    const options = { required: true, methods: ['post'], header: 'X-Key', maxBody: 0, ttl: Infinity,
      lease: 50, onCrash: 'retry', fingerprint: () => '', scope: () => 'a' };
    assert.equal(typeof idempotency(hf, options), 'function');
    assert.equal(typeof idempotency(hf, { ttl: undefined }), 'function');
    assert.equal(typeof idempotency(hf), 'function');
  });
});
