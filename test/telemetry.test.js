'use strict';

// What Holdfast tells about itself, and what it does not do while nobody listens.

const assert = require('node:assert');
const diagnostics = require('node:diagnostics_channel');
const fs = require('node:fs');
const path = require('node:path');
const { open, HoldfastError } = require('..');
const binding = require('../lib/binding');
const { endChildren, start, until, useFolder } = require('./helpers');

describe('telemetry', () => {
  let hf;
  before(async () => { hf = await open('memory:'); });
  after(() => hf.close());

  async function listen(name, work) {
    const messages = [];
    const listener = (message) => messages.push(message);
    diagnostics.subscribe(name, listener);
    try {
      await work(messages);
    } finally {
      diagnostics.unsubscribe(name, listener);
    }
    return messages;
  }

  const events = (messages) => messages.map(({ event }) => event);

  it('follows a lock from wait to release', async () => {
    let lock;
    const messages = await listen('holdfast:lock', async (seen) => {
      lock = await hf.lock('key', { ttl: 100, note: 'why' });
      await until(() => events(seen).includes('renewed'), 'it is renewed');
      await lock.release();
    });
    assert.deepStrictEqual([...new Set(events(messages))], ['wait', 'held', 'renewed', 'released']);
    for (const message of messages) {
      assert.strictEqual(message.key, 'key');
      assert.deepStrictEqual([...message.keys], ['key']);
      assert.strictEqual(message.note, 'why');
      if (message.event === 'wait') continue;
      assert.strictEqual(message.token, lock.token);
      assert.strictEqual(message.fence, lock.fence);
    }
    assert.ok(messages.find(({ event }) => event === 'held').waited >= 0);
    assert.ok(messages.at(-1).heldFor >= 0);
  });

  it('names every key of a lock', async () => {
    const keys = ['first', 'second', 'third'];
    const messages = await listen('holdfast:lock', async (seen) => {
      const lock = await hf.lock(keys, { ttl: 100, mode: 'shared' });
      await until(() => events(seen).includes('renewed'), 'it is renewed');
      await lock.release();
      await hf.lock(keys, { ttl: 100, renew: false });
      await until(() => events(seen).includes('lost'), 'it is lost');
    });
    assert.deepStrictEqual([...new Set(events(messages))],
      ['wait', 'held', 'renewed', 'released', 'lost']);
    for (const message of messages) {
      assert.strictEqual(message.key, 'first');
      assert.deepStrictEqual([...message.keys], keys);
    }
    assert.strictEqual(messages.at(-1).error.key, 'first');
  });

  it('tells of a loss', async () => {
    const messages = await listen('holdfast:lock', async () => {
      const lock = await hf.lock('key', { ttl: 100, renew: false });
      await until(() => lock.signal.aborted, 'it is lost');
      await lock.release();
    });
    assert.deepStrictEqual(events(messages), ['wait', 'held', 'lost']);
    assert.strictEqual(messages[2].error.code, 'HF_ELOST');
  });

  it('tells of renewals of what was held before somebody subscribed', async () => {
    const lock = await hf.lock('before', { ttl: 100 });
    const messages = await listen('holdfast:lock', async (seen) => {
      // Any operation that may lead to renewals turns their report on.
      await (await hf.lock('other')).release();
      await until(() => events(seen).includes('renewed'), 'it is renewed');
    });
    const renewed = messages.find(({ event }) => event === 'renewed');
    assert.strictEqual(renewed.key, 'before');
    assert.strictEqual(renewed.token, lock.token);
    await lock.release();
  });

  it('follows operations', async () => {
    const messages = await listen('holdfast:once', async (seen) => {
      await hf.once('a', { lease: 100 }, () =>
        until(() => events(seen).includes('renewed'), 'it is renewed').then(() => 'x'));
      await hf.once('a', () => 'y');
      await hf.once('b', () => Promise.reject(new Error('mine'))).catch(() => {});
      await hf.once('a', { fingerprint: 1 }, () => 1);
    });
    const order = events(messages).filter((event, i, all) => event !== all[i - 1]);
    assert.deepStrictEqual(order, ['claimed', 'renewed', 'finished', 'replayed', 'claimed',
      'abandoned', 'replayed']);
    assert.ok(messages.every(({ key }) => key === 'a' || key === 'b'));
    assert.strictEqual(messages[0].attempt, 1);
    assert.match(messages[0].token, /^[0-9a-f]{32}$/);
  });

  it('follows values', async () => {
    const messages = await listen('holdfast:kv', async () => {
      await hf.kv.put('v', 1);
      await hf.kv.create('v', 1).catch(() => {});
      await hf.kv.update('v', (n) => n + 1);
      await hf.kv.increment('v');
      await hf.kv.delete('v');
    });
    assert.deepStrictEqual(events(messages), ['put', 'create', 'get', 'update', 'increment',
      'delete']);
    assert.ok(messages.every(({ key, took }) => key === 'v' && took >= 0));
    assert.strictEqual(messages[1].error.code, 'HF_ECONFLICT');
  });

  it('tells of stores', async () => {
    const messages = await listen('holdfast:store', async () => {
      await (await open('memory:')).close();
    });
    assert.deepStrictEqual(messages, [
      { event: 'open', store: 'memory' }, { event: 'close', store: 'memory' },
    ]);
  });

  it('a subscriber that throws disturbs nobody', async () => {
    const child = start(`
      process.on('uncaughtException', (error) => say('uncaught', { message: error.message }));
      require('node:diagnostics_channel').subscribe('holdfast:lock', () => {
        throw new Error('of the subscriber');
      });
      const hf = await holdfast.open();
      await (await hf.lock('a')).release();
      await hf.close();
      say('done', {});
    `, 'memory:');
    await child.hear('done');
    assert.match((await child.hear('uncaught')).message, /of the subscriber/);
  });

  it('costs no report of renewals while nobody subscribes', async () => {
    const turned = [];
    const { renewals } = binding;
    binding.renewals = (on) => {
      turned.push(on);
      renewals(on);
    };
    try {
      await (await hf.lock('quiet')).release();
      await (await hf.lock('quiet')).release();
      assert.ok(!turned.includes(true));
    } finally {
      binding.renewals = renewals;
    }
  });
  endChildren();
});

describe('problems that no call reports', () => {
  const folder = useFolder();
  endChildren();

  it('go to the event error, else to one warning for each code', async () => {
    const program = (listener) => `
      const fs = require('node:fs');
      process.on('warning', ({ name, code }) => say('warning', { name, code }));
      const hf = await holdfast.open();
      ${listener}
      const { warn } = require(${JSON.stringify(path.join(__dirname, '../lib/telemetry.js'))});
      for (let i = 0; i < 3; i++) warn(hf, new holdfast.HoldfastError('HF_EIO'));
      await new Promise(setImmediate);
      await hf.close();
      say('done', {});
    `;
    const url = `sqlite:${path.join(folder.path, 'problems.db')}`;
    const silent = start(program(''), url);
    await silent.hear('done');
    assert.deepStrictEqual(silent.said.slice(0, -1),
      [{ event: 'warning', name: 'HoldfastWarning', code: 'HF_EIO' }]);
    const heard = start(program('hf.on(\'error\', ({ code }) => say(\'error\', { code }));'), url);
    await heard.hear('done');
    assert.deepStrictEqual(heard.said.slice(0, -1),
      Array.from({ length: 3 }, () => ({ event: 'error', code: 'HF_EIO' })));
  });

  it('a database that was replaced is one', async () => {
    const file = path.join(folder.path, 'moved.db');
    const hf = await open(`sqlite:${file}`);
    const problems = [];
    hf.on('error', (error) => problems.push(error));
    await hf.kv.put('key', 1);
    for (const end of ['', '-wal', '-shm']) fs.rmSync(file + end, { force: true });
    await until(async () => {
      await hf.kv.get('key').catch(() => {});
      return problems.length > 0;
    }, 'it is noticed');
    assert.strictEqual(problems[0].code, 'HF_EMOVED');
    await hf.close();
  });

  it('never become an unhandled rejection', async () => {
    const child = start(`
      process.on('unhandledRejection', (error) => say('unhandled', { message: error.message }));
      const hf = await holdfast.open();
      const lock = await hf.lock('key', { ttl: 100, renew: false });
      void lock.signal;
      const held = await hf.lock('held');
      const run = hf.once('run', () => new Promise(() => {}));
      const refused = hf.lock('held', { wait: Infinity }).catch(({ code }) => code);
      run.catch(() => {});
      await new Promise((resolve) => lock.signal.addEventListener('abort', resolve));
      lock.release();
      const closing = hf.close({ timeout: 0 });
      held.release();
      held.release();
      await closing;
      say('done', { refused: await refused });
    `, `sqlite:${path.join(folder.path, 'unhandled.db')}`);
    assert.strictEqual((await child.hear('done')).refused, 'HF_ECLOSED');
    await child.ended;
    assert.deepStrictEqual(child.said.map(({ event }) => event), ['done'], child.stderr);
  });

  it('a listener that throws does not change what an operation did', async () => {
    const child = start(`
      process.on('uncaughtException', (error) => say('uncaught', { message: error.message }));
      const binding = require(${JSON.stringify(path.join(__dirname, '../lib/binding.js'))});
      const hf = await holdfast.open();
      hf.on('error', () => { throw new Error('of the listener'); });
      binding.release = () => binding.constants.RELEASE_NOMEM;
      say('done', { result: await hf.withLock('key', () => 42) });
    `, 'memory:');
    assert.strictEqual((await child.hear('done')).result, 42);
    assert.strictEqual((await child.hear('uncaught')).message, 'of the listener');
  });

  it('errors say what they are', () => {
    const error = new HoldfastError('HF_EIO');
    assert.strictEqual(error.name, 'HoldfastError');
    assert.strictEqual(error.message, binding.codes.HF_EIO);
    assert.strictEqual(error.retryable, false);
    assert.strictEqual(error.outcomeUnknown, false);
    assert.ok(!Object.keys(error).includes('name'));
  });
});
