'use strict';

// Opening: URLs, defaults, what cannot be opened; durations; the package as a module.

const assert = require('node:assert');
const { EventEmitter } = require('node:events');
const fs = require('node:fs');
const path = require('node:path');
const ts = require('typescript');
const holdfast = require('..');
const { duration } = require('../lib/duration');
const binding = require('../lib/binding');
const { endChildren, start, useFolder } = require('./helpers');

const { Holdfast, HoldfastError, open } = holdfast;

describe('opening', () => {
  const folder = useFolder();
  endChildren();

  it('connects at first use, or before open() resolves', async () => {
    const file = path.join(folder.path, 'lazy.db');
    const lazy = new Holdfast(`sqlite:${file}`);
    assert.ok(lazy instanceof EventEmitter);
    assert.strictEqual(fs.existsSync(file), false);
    await lazy.kv.put('key', 1);
    assert.strictEqual(fs.existsSync(file), true);
    await lazy.close();
    const ready = await open(`sqlite:${path.join(folder.path, 'ready.db')}`);
    assert.strictEqual(fs.existsSync(path.join(folder.path, 'ready.db')), true);
    await ready.close();
  });

  it('each memory: is a store of its own', async () => {
    const [one, two] = [await open('memory:'), await open('memory:')];
    await one.kv.put('key', 1);
    assert.strictEqual(await two.kv.get('key'), null);
    await Promise.all([one.close(), two.close()]);
  });

  it('rejects where it cannot connect, and leaves nothing behind', async () => {
    const url = `sqlite:${path.join(folder.path, 'missing', 'x.db')}`;
    const error = await open(url).then(assert.fail, (it) => it);
    assert.ok(error instanceof HoldfastError);
    assert.strictEqual(error.code, 'HF_ENOENT');
    const hf = new Holdfast(url);
    await assert.rejects(hf.kv.get('a'), { code: 'HF_ENOENT' });
    await hf.close();
  });

  it('refuses URLs that it does not understand', async () => {
    for (const url of ['', 'nonsense', '://x', 'sqlite:']) {
      assert.throws(() => new Holdfast(url), RangeError, url);
      await assert.rejects(open(url), RangeError);
    }
    assert.throws(() => new Holdfast('mysql://x'), { code: 'HF_ENOTSUP', name: 'HoldfastError' });
  });

  it('refuses nodes that make no quorum', async () => {
    const sixteen = Array.from({ length: 16 }, (_, i) => `redis://node${i}`);
    for (const [url, message] of [
      [[], /^url must have 1 to 15 nodes; got 0$/],
      [sixteen, /^url must have 1 to 15 nodes; got 16$/],
      [['redis://a', 'redis://b redis://c'], /^url\[1\] must be a URL without blanks/],
      [['redis://a', ''], /^url\[1\] must be a URL without blanks/],
      [['redis://a', 'sqlite:x'], /^url: node 2 of the quorum is no Redis/],
      [['redis://:secret@a', 'redis://b:x'], /^url: node 2 of the quorum is not valid/],
      [['redis://a', 'redis://a'], /^url: node 2 of the quorum is the same server as another/],
      ['quorum:', /^url: a quorum has 1 to 15 nodes/],
    ]) {
      assert.throws(() => new Holdfast(url), { name: 'RangeError', message });
      await assert.rejects(open(url), { name: 'RangeError', message });
    }
    assert.throws(() => new Holdfast(['redis://a', 7]),
      { name: 'TypeError', message: 'url[1] must be a string; got number' });
  });

  it('takes HOLDFAST_URL, else a file here, but not in production', async () => {
    const env = { NODE_ENV: 'production' };
    const refused = start(`
      try { new holdfast.Holdfast(); } catch (error) { say('done', { message: error.message }); }
      await holdfast.open().catch((error) => say('open', { name: error.name }));
    `, '', env);
    assert.match((await refused.hear('done')).message, /HOLDFAST_URL/);
    assert.strictEqual((await refused.hear('open')).name, 'TypeError');
    const given = start(`
      await (await holdfast.open()).close();
      say('done', {});
    `, 'memory:', env);
    await given.hear('done');
    const here = start(`
      process.chdir(${JSON.stringify(folder.path)});
      await (await holdfast.open()).close();
      say('done', {});
    `, '', { NODE_ENV: '' });
    await here.hear('done');
    assert.ok(fs.existsSync(path.join(folder.path, 'holdfast.db')));
  });

  it('many can be open at once, without a warning of leaks', async () => {
    const child = start(`
      process.on('warning', ({ name }) => say('warning', { name }));
      const all = await Promise.all(Array.from({ length: 20 }, () => holdfast.open('memory:')));
      await Promise.all(all.map((hf) => hf.lock('key')));
      const listeners = process.listenerCount('exit');
      await Promise.all(all.map((hf) => hf.close({ timeout: 0 })));
      say('done', { listeners, left: process.listenerCount('exit') });
    `, 'memory:');
    const { listeners, left } = await child.hear('done');
    assert.strictEqual(listeners - left, 1);
    await child.ended;
    assert.deepStrictEqual(child.said.map(({ event }) => event), ['done']);
  });

  it('await using closes and releases', async () => {
    // As a compiler makes it, for versions of Node without the syntax.
    const { outputText } = ts.transpileModule(`
      await using hf = await holdfast.open('memory:');
      { await using lock = await hf.lock('key', { ttl: '1h' }); say('held', { held: lock.held }); }
      say('after', { info: await hf.inspect('key') });
      closing = hf;
    `, { compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext } });
    const child = start(`
      let closing;
      await (async () => { ${outputText} })();
      await closing.ping().catch(({ code }) => say('done', { code }));
    `, '');
    assert.strictEqual((await child.hear('held')).held, true);
    assert.strictEqual((await child.hear('after')).info, null);
    assert.strictEqual((await child.hear('done')).code, 'HF_ECLOSED');
  });

  it('import sees what require sees', async () => {
    const imported = await import('../lib/index.js');
    for (const [name, value] of Object.entries(holdfast)) assert.strictEqual(imported[name], value);
    assert.deepStrictEqual(Object.keys(holdfast).sort(), [
      'BoundsError', 'ConflictError', 'Holdfast', 'HoldfastError', 'InProgressError',
      'LockLostError', 'LockTimeoutError', 'MismatchError', 'QuorumError', 'SqlError',
      'StaleFenceError', 'UnavailableError', 'open',
    ]);
  });

  it('declares every error code there is', () => {
    const declared = fs.readFileSync(path.join(__dirname, '../types/index.d.ts'), 'utf8')
      .match(/export type HoldfastErrorCode =([^;]+);/)[1].match(/HF_\w+/g);
    assert.deepStrictEqual(declared, Object.keys(binding.codes));
  });
});

describe('durations', () => {
  const range = { min: 50, max: 86400000, infinite: true };

  it('are milliseconds or text', () => {
    const cases = [[50, 50], [50.1, 51], [86400000, 86400000], ['30s', 30000], ['1.5h', 5400000],
      ['5 minutes', 300000], [' 2m ', 120000], ['500', 500], ['1d', 86400000], [Infinity, Infinity],
      ['.5m', 30000]];
    for (const [given, wanted] of cases) assert.strictEqual(duration(given, 'x', range), wanted);
  });

  it('of a wrong type are a TypeError, of a wrong value a RangeError, with the name', () => {
    for (const bad of [null, {}, [], true, 5n, Symbol('x'), () => {}]) {
      assert.throws(() => duration(bad, 'ttl', range), { name: 'TypeError', message: /ttl/ });
    }
    for (const bad of [NaN, -1, -Infinity, 49, 86400001, '', ' ', 'x', '5 parsecs', '-5s', '5s5s',
      '1e3', 'Infinity', '0x10', '٣s', '1'.repeat(1000), '2d']) {
      assert.throws(() => duration(bad, 'ttl', range), { name: 'RangeError', message: /ttl/ });
    }
    assert.throws(() => duration(Infinity, 'ttl', { min: 0 }), RangeError);
  });
});
