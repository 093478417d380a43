'use strict';

// Operations between processes: what is left of one whose process dies, or wakes up too late.

const assert = require('node:assert');
const path = require('node:path');
const { open, HoldfastError, LockLostError } = require('..');
const { deferred, endChildren, start, until, useFolder } = require('./helpers');

describe('once between processes', () => {
  const folder = useFolder();
  endChildren();
  let hf;
  let url;
  let key;
  let serial = 0;
  before(async () => {
    url = `sqlite:${path.join(folder.path, 'once.db')}`;
    hf = await open(url);
  });
  after(() => hf.close({ timeout: 0 }));
  beforeEach(() => { key = `operation-${++serial}`; });

  const runner = (options, body) => start(`
    const hf = await holdfast.open();
    const outcome = await hf.once('${key}', ${JSON.stringify(options)}, async (run) => {
      say('running', { attempt: run.attempt, fence: run.fence });
      ${body}
    }).then((value) => ({ value }), ({ code, result }) => ({ code, result }));
    say('outcome', outcome);
    await hf.close();
  `, url);

  it('one of many runs, and all get its result', async () => {
    const children = Array.from({ length: 4 }, () => runner({}, 'return process.pid;'));
    const outcomes = await Promise.all(children.map((child) => child.hear('outcome')));
    const [{ value }] = outcomes;
    assert.ok(outcomes.every((outcome) => outcome.value === value));
    const ran = children.filter((child) => child.said.some(({ event }) => event === 'running'));
    assert.deepStrictEqual(ran.map(({ pid }) => pid), [value]);
  });

  it('runs again after a crash, and counts the attempts', async () => {
    let last = 0;
    for (const attempt of [1, 2]) {
      const child = runner({ lease: 300 }, 'await heard(\'never\');');
      const running = await child.hear('running');
      assert.strictEqual(running.attempt, attempt);
      assert.ok(running.fence > last);
      last = running.fence;
      await child.kill();
      assert.strictEqual((await hf.record(key)).attempt, attempt);
    }
    await until(async () => (await hf.record(key)).state === 'crashed', 'its lease is over');
    const outcome = await hf.once(key, { detail: true }, (run) => run.attempt);
    assert.deepStrictEqual(outcome, { value: 3, replayed: false, attempt: 3 });
  });

  it('onCrash: \'fail\' refuses until it is forgotten', async () => {
    const child = runner({ lease: 300 }, 'await heard(\'never\');');
    await child.hear('running');
    await child.kill();
    const run = () => hf.once(key, { onCrash: 'fail', lease: 300 }, () => 'ran');
    for (let i = 0; i < 2; i++) {
      const error = await run().then(assert.fail, (it) => it);
      assert.ok(error instanceof HoldfastError);
      assert.strictEqual(error.code, 'HF_ECRASHED');
      assert.match(error.message, /hf\.forget\(key\)/);
    }
    assert.strictEqual((await hf.record(key)).state, 'crashed');
    assert.strictEqual(await hf.forget(key), true);
    assert.strictEqual(await run(), 'ran');
  });

  it('who wakes up too late is refused, and the result of the second stays', async () => {
    const child = runner({ lease: 300 }, 'await heard(\'go\'); return \'late\';');
    await child.hear('running');
    child.process.kill('SIGSTOP');
    assert.strictEqual(await hf.once(key, { lease: 300 }, () => 'second'), 'second');
    child.tell('go');
    child.process.kill('SIGCONT');
    const outcome = await child.hear('outcome');
    assert.strictEqual(outcome.code, 'HF_ELOST');
    assert.strictEqual(outcome.result, 'late');
    assert.strictEqual(await hf.once(key, () => assert.fail()), 'second');
  });

  it('who finishes after the client was closed is told so, and keeps the result', async () => {
    const other = await open(url);
    const gate = deferred();
    const running = deferred();
    const run = other.once(key, { lease: 300 }, async () => {
      running.resolve();
      await gate.promise;
      return 'late';
    });
    await running.promise;
    await other.close({ timeout: 0 });
    gate.resolve();
    const error = await run.then(assert.fail, (it) => it);
    assert.ok(error instanceof LockLostError, error.stack);
    assert.strictEqual(error.message, `the run of "${key}" was lost: the client was closed`);
    assert.strictEqual(error.result, 'late');
  });

  it('a run that is lost learns of it by its signal', async () => {
    const child = runner({ lease: 300 }, `
      const alive = setInterval(() => {}, 1000); // a run does not keep its process alive
      say('waiting', {});
      await new Promise((resolve) => run.signal.addEventListener('abort', resolve));
      clearInterval(alive);
      say('aborted', { code: run.signal.reason.code });
    `);
    await child.hear('waiting');
    child.process.kill('SIGSTOP');
    await hf.once(key, { lease: 300 }, () => 'second');
    child.process.kill('SIGCONT');
    assert.strictEqual((await child.hear('aborted')).code, 'HF_ELOST');
  });

  it('a long run is not taken over while its process lives', async () => {
    const gate = deferred();
    const first = hf.once(key, { lease: 100 }, () => gate.promise);
    await until(async () => (await hf.record(key))?.state === 'running', 'it runs');
    await assert.rejects(hf.once(key, { wait: 1000 }, assert.fail), { code: 'HF_EINPROGRESS' });
    gate.resolve('long');
    assert.strictEqual(await first, 'long');
  });

  it('ends with the process where its function never ends', async () => {
    const child = start(`
      const hf = await holdfast.open();
      hf.once('${key}', { lease: 1500 }, () => new Promise(() => say('running', {})));
      await heard('go');
      process.exit(0);
    `, url);
    await child.hear('running');
    child.tell('go');
    await child.ended;
    assert.strictEqual(await hf.once(key, { lease: 1500 }, ({ attempt }) => attempt > 0), true);
  });
});
