'use strict';

// How processes and workers end, and what becomes of what they held.

const assert = require('node:assert');
const { once } = require('node:events');
const path = require('node:path');
const { Worker } = require('node:worker_threads');
const { open } = require('..');
const { endChildren, library, random, start, until, useFolder } = require('./helpers');

describe('the end of a process', () => {
  const folder = useFolder();
  endChildren();
  let hf;
  let url;
  before(async () => {
    url = `sqlite:${path.join(folder.path, 'exit.db')}`;
    hf = await open(url);
  });
  after(() => hf.close({ timeout: 0 }));

  const ways = {
    'process.exit': ['process.exit(3);', 3],
    'an uncaught error': ['setImmediate(() => { throw new Error(\'uncaught\'); });', 1],
    'a rejection that nobody handles': ['Promise.reject(new Error(\'unhandled\'));', 1],
    'nothing left to do': ['', 0],
    'process.exit in a listener of an abort': [`
      const other = await hf.lock('other', { ttl: 100, renew: false });
      other.signal.addEventListener('abort', () => process.exit(4));
      setInterval(() => {}, 1000); // holding a lock does not keep a process alive
    `, 4],
    'process.exit while operations are under way': [`
      for (let i = 0; i < 50; i++) {
        hf.lock('under-way-' + i).catch(() => {});
        hf.kv.put('under-way-' + i, i).catch(() => {});
        hf.once('under-way-' + i, () => i).catch(() => {});
      }
      setImmediate(() => process.exit(5));
    `, 5],
  };

  for (const [way, [code, exitCode]] of Object.entries(ways)) {
    it(`by ${way} releases at once`, async () => {
      const child = start(`
        const hf = await holdfast.open();
        const lock = await hf.lock('key', { ttl: '1h' });
        say('held', {});
        ${code}
      `, url);
      await child.hear('held');
      const { code: got, signal } = await child.ended;
      assert.strictEqual(signal, null);
      assert.strictEqual(got, exitCode, child.stderr);
      // Far from the end of its hour.
      await (await hf.lock('key', { wait: '5s' })).release();
    });
  }

  it('comes by itself when a store is only open', async () => {
    for (const opened of ['await holdfast.open();', 'new holdfast.Holdfast();',
      'const hf = await holdfast.open(); await (await hf.lock(\'only\')).release();',
      'const hf = await holdfast.open(); await hf.close();']) {
      const child = start(opened, url);
      assert.deepStrictEqual(await child.ended, { code: 0, signal: null }, child.stderr);
    }
  });

  it('waits for operations that are pending', async () => {
    const lock = await hf.lock('pending');
    const child = start(`
      const hf = new holdfast.Holdfast();
      hf.lock('pending', { wait: 300 }).catch((error) => say('ended', { code: error.code }));
    `, url);
    assert.strictEqual((await child.hear('ended')).code, 'HF_ETIMEDOUT');
    assert.strictEqual((await child.ended).code, 0);
    await lock.release();
  });

  it('by close() in a SIGTERM handler releases, after holders have finished', async () => {
    const child = start(`
      const hf = await holdfast.open();
      process.on('SIGTERM', async () => {
        await hf.close({ timeout: '10s' });
        say('closed', {});
        process.exit(0);
      });
      await hf.withLock('key', { ttl: '1h' }, async () => {
        say('held', {});
        await heard('go');
        say('finished', {});
      });
    `, url);
    await child.hear('held');
    child.process.kill('SIGTERM');
    assert.strictEqual(await hf.tryLock('key'), null);
    child.tell('go');
    await child.hear('closed');
    assert.deepStrictEqual(child.said.map(({ event }) => event), ['held', 'finished', 'closed']);
    assert.strictEqual((await child.ended).code, 0);
    await (await hf.lock('key', { wait: 0 })).release();
  });
});

describe('worker_threads', function () {
  this.timeout(120000);
  const folder = useFolder();
  endChildren();

  const program = `
    const { workerData, parentPort } = require('node:worker_threads');
    const { open } = require(workerData.library);
    (async () => {
      const hf = await open(workerData.url);
      for (let i = 0; ; i++) {
        const lock = await hf.lock('key-' + (i % 4), { ttl: 1000, wait: Infinity });
        if (i === 0) parentPort.postMessage('running');
        await hf.kv.increment('count');
        await hf.once(workerData.name + i, () => i);
        await lock.release();
      }
    })();
  `;

  it('each has an engine of its own', async () => {
    const url = `sqlite:${path.join(folder.path, 'own.db')}`;
    const code = `
      const { workerData, parentPort } = require('node:worker_threads');
      const { open } = require(workerData.library);
      (async () => {
        const hf = await open(workerData.url);
        for (let i = 0; i < 50; i++) {
          await hf.withLock('key', { wait: Infinity }, async () => {
            const { value } = await hf.kv.get('n') ?? { value: 0 };
            await hf.kv.put('n', value + 1);
          });
        }
        await hf.close();
      })();
    `;
    const workers = Array.from({ length: 4 }, () =>
      new Worker(code, { eval: true, workerData: { library, url } }));
    await Promise.all(workers.map((worker) => once(worker, 'exit')));
    const hf = await open(url);
    assert.strictEqual((await hf.kv.get('n')).value, 200);
    await hf.close();
  });

  it('8 of them are terminated at random, 50 times', async () => {
    const url = `sqlite:${path.join(folder.path, 'random.db')}`;
    const seed = Date.now() % 2 ** 32;
    // In a process of its own, whose crash would show.
    const child = start(`
      const { Worker } = require('node:worker_threads');
      const random = (${random.toString()})(${seed});
      const program = ${JSON.stringify(program)};
      let serial = 0;
      const launch = () => {
        const name = 'worker-' + ++serial;
        const library = ${JSON.stringify(library)};
        const workerData = { library, url: process.env.HOLDFAST_URL, name };
        const worker = new Worker(program, { eval: true, workerData });
        worker.running = new Promise((resolve) => worker.once('message', resolve));
        worker.on('error', (error) => say('error', { message: error.message }));
        return worker;
      };
      const workers = Array.from({ length: 8 }, launch);
      for (let i = 0; i < 50; i++) {
        const at = Math.floor(random() * workers.length);
        // Some are ended in the middle of their work, some while they begin.
        if (random() < 0.7) await workers[at].running;
        await new Promise((resolve) => setTimeout(resolve, random() * 30));
        await workers[at].terminate();
        workers[at] = launch();
      }
      await Promise.all(workers.map((worker) => worker.terminate()));
      say('done', {});
    `, url);
    const ended = await child.ended;
    assert.deepStrictEqual(ended, { code: 0, signal: null }, `seed ${seed}: ${child.stderr}`);
    assert.deepStrictEqual(child.said, [{ event: 'done' }], `seed ${seed}`);
    const hf = await open(url);
    for (let i = 0; i < 4; i++) await (await hf.lock(`key-${i}`, { wait: '5s' })).release();
    await hf.close();
  });

  it('process.exit in a worker releases', async () => {
    const url = `sqlite:${path.join(folder.path, 'leave.db')}`;
    const worker = new Worker(`
      const { workerData } = require('node:worker_threads');
      require(workerData.library).open(workerData.url)
        .then((hf) => hf.lock('key', { ttl: '1h' }))
        .then(() => process.exit(7));
    `, { eval: true, workerData: { library, url } });
    const [code] = await once(worker, 'exit');
    assert.strictEqual(code, 7);
    const hf = await open(url);
    await (await hf.lock('key', { wait: '5s' })).release();
    await until(async () => await hf.inspect('key') === null, 'nobody holds it');
    await hf.close();
  });
});
