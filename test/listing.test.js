'use strict';

// All locks that are held, a page at a time.

const assert = require('node:assert');
const path = require('node:path');
const { open } = require('..');
const binding = require('../lib/binding');
const { endChildren, start, useFolder } = require('./helpers');

const MANY = 10_500;

async function keysOf(locks) {
  const keys = [];
  for await (const { key } of locks) keys.push(key);
  return keys;
}

const byBytes = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b));

/** The keys after which `fn` asked the store for a page; `change` may ask for another one. */
async function pagesOf(fn, change = (after) => after) {
  const { list } = binding;
  const pages = [];
  binding.list = (client, slot, prefix, after, ...rest) => {
    pages.push(after);
    return list(client, slot, prefix, change(after), ...rest);
  };
  try {
    await fn();
  } finally {
    binding.list = list;
  }
  return pages;
}

function listingTests(url) {
  let hf;
  beforeEach(async () => { hf = await open(url()); });
  afterEach(() => hf.close({ timeout: 0 }));

  it('is empty where nobody holds anything', async () => {
    assert.deepStrictEqual(await keysOf(hf.locks()), []);
    assert.deepStrictEqual(await keysOf(hf.locks({})), []);
    assert.deepStrictEqual(await keysOf(hf.locks({ prefix: 'a' })), []);
    await hf.withLock('a', () => {});
    assert.deepStrictEqual(await keysOf(hf.locks({ prefix: undefined })), []);
  });

  it('tells of each lock what inspect() tells', async () => {
    await hf.lock('a', { note: 'alone' });
    await hf.lock('b', { mode: 'shared', note: 'one' });
    await hf.lock('b', { mode: 'shared', note: 'two' });
    const waiting = hf.lock('a', { note: 'later' });
    waiting.catch(() => {});
    await hf.lock(['c', 'd']);
    const seen = [];
    for await (const info of hf.locks()) seen.push(info);
    assert.deepStrictEqual(seen.map(({ key }) => key), ['a', 'b', 'c', 'd']);
    assert.deepStrictEqual(seen[0].waiters.map(({ note }) => note), ['later']);
    assert.deepStrictEqual(seen[1].holders.map(({ note }) => note).sort(), ['one', 'two']);
    assert.strictEqual(seen[2].holders[0].token, seen[3].holders[0].token);
    for (const info of seen) {
      const alone = await hf.inspect(info.key);
      assert.deepStrictEqual(Object.keys(info).sort(), Object.keys(alone).sort());
      assert.deepStrictEqual(info.holders.map(({ token }) => token).sort(),
        alone.holders.map(({ token }) => token).sort());
      assert.strictEqual(info.waiting, alone.waiting);
    }
  });

  it('is in the order of the bytes of keys, and heeds the prefix', async () => {
    const keys = ['a', 'B', 'ab', 'a:b', 'ä', 'äb', '\uffee', '💾', 'z', 'a\u0001', ' ', 'a%', 'a_'];
    await Promise.all(keys.map((key) => hf.lock(key)));
    assert.deepStrictEqual(await keysOf(hf.locks()), [...keys].sort(byBytes));
    for (const prefix of ['a', 'ä', '💾', 'a:', 'a%', 'A', 'ab', 'abc', ' ']) {
      const wanted = keys.filter((key) => key.startsWith(prefix)).sort(byBytes);
      assert.deepStrictEqual(await keysOf(hf.locks({ prefix })), wanted, prefix);
    }
  });

  it(`walks through ${MANY} locks, each once`, async () => {
    const keys = Array.from({ length: MANY }, (_, i) => `many/${i}`);
    for (let i = 0; i < MANY; i += 500) {
      await Promise.all(keys.slice(i, i + 500).map((key) => hf.lock(key, { ttl: '1h' })));
    }
    await hf.lock('before', { ttl: '1h' });
    const seen = [];
    const pages = await pagesOf(async () => {
      for await (const { key, holders } of hf.locks({ prefix: 'many/' })) {
        assert.strictEqual(holders.length, 1);
        seen.push(key);
      }
    });
    assert.deepStrictEqual(seen, keys.sort(byBytes));
    assert.ok(pages.length > 2, 'a page is a part');
    assert.strictEqual((await keysOf(hf.locks())).length, MANY + 1);

    // Who breaks asks for nothing more.
    const broken = await pagesOf(async () => {
      for await (const { key } of hf.locks()) {
        if (key !== 'before') break;
      }
    });
    assert.deepStrictEqual(broken, ['']);
    const untouched = await pagesOf(async () => { hf.locks(); });
    assert.deepStrictEqual(untouched, []);
  });

  it('does without what ended between two pages, and with what came', async () => {
    const count = 2500;
    const name = (i) => `k/${String(i).padStart(5, '0')}`;
    const locks = await Promise.all(Array.from({ length: count }, (_, i) => hf.lock(name(i))));
    const seen = [];
    for await (const { key } of hf.locks()) {
      seen.push(key);
      if (seen.length !== 1) continue;
      await Promise.all(locks.slice(count - 500).map((lock) => lock.release()));
      await hf.lock('k/99999');
    }
    const wanted = Array.from({ length: count - 500 }, (_, i) => name(i));
    assert.deepStrictEqual(seen, [...wanted, 'k/99999']);
  });

  it('gives a key with more holders than a page has, whole and once', async () => {
    const readers = 1200;
    await Promise.all(Array.from({ length: readers }, () => hf.lock('m', { mode: 'shared' })));
    await hf.lock('l');
    await hf.lock('n');
    const seen = [];
    for await (const { key, holders } of hf.locks()) seen.push([key, holders.length]);
    assert.deepStrictEqual(seen, [['l', 1], ['m', readers], ['n', 1]]);
  });

  it('does not go round in circles where keys do not come back as they are', async () => {
    await hf.lock('a');
    const pages = await pagesOf(
      () => assert.rejects(keysOf(hf.locks()), { code: 'HF_EPROTO' }), () => '');
    assert.deepStrictEqual(pages, ['', 'a']);
  });

  it('rejects when the store is closed on the way', async () => {
    await Promise.all(Array.from({ length: 1500 }, (_, i) => hf.lock(`k${i}`)));
    const keys = [];
    await assert.rejects(async () => {
      for await (const { key, waiting } of hf.locks()) {
        keys.push(key);
        assert.strictEqual(waiting, 0);
        if (keys.length === 1) await hf.close({ timeout: 0 });
      }
    }, { code: 'HF_ECLOSED' });
    assert.ok(keys.length >= 1 && keys.length < 1500);
    await assert.rejects(keysOf(hf.locks()), { code: 'HF_ECLOSED' });
  });
}

describe('locks()', function () {
  this.timeout(120000);
  const folder = useFolder();
  endChildren();
  let serial = 0;
  const file = () => `sqlite:${path.join(folder.path, `list-${++serial}.db`)}`;
  describe('on memory', () => listingTests(() => 'memory:'));
  describe('on sqlite', () => listingTests(file));

  it('tells of other processes', async () => {
    const url = file();
    const hf = await open(url);
    const child = start(`
      const hf = await holdfast.open();
      await hf.lock('theirs', { note: 'a note' });
      const waiting = hf.lock('theirs');
      say('held');
      await heard('go');
    `, url);
    await child.hear('held');
    await hf.lock('mine');
    const seen = [];
    for await (const { key, holders: [holder], waiting } of hf.locks()) {
      seen.push([key, holder.pid, holder.note, waiting]);
    }
    // Waiters are those of this process.
    assert.deepStrictEqual(seen,
      [['mine', process.pid, '', 0], ['theirs', child.pid, 'a note', 0]]);
    await child.kill();
    await hf.close({ timeout: 0 });
  });
});
