'use strict';

// A password that a function gives: at a server that wants one, when it changes, and when the
// function has nothing good to give.

const assert = require('node:assert');
const { once } = require('node:events');
const { inspect } = require('node:util');
const { setTimeout: sleep } = require('node:timers/promises');
const { Worker } = require('node:worker_threads');
const { open, Holdfast } = require('..');
const { block, deferred, endChildren, library, start } = require('./helpers');
const { startServer, stopAll } = require('./redis-servers');

const FAILED = 'the function that gives the password failed: ';

describe('a password from a function', function () {
  this.timeout(60_000);
  endChildren();

  let server;
  let secret;
  let clients;
  before(async () => {
    secret = 's3cret-0';
    server = await startServer({ config: { requirepass: secret }, login: [secret] });
  });
  beforeEach(() => {
    clients = [];
  });
  afterEach(() => Promise.all(clients.map((hf) => hf.close({ timeout: 0 }))));
  after(stopAll);

  /** From now on the server wants another, and all who are connected have to say it. */
  async function change() {
    secret = `s3cret-${Number(secret.slice(7)) + 1}`;
    await server.configSet({ requirepass: secret });
    server.login = [secret];
    await hangUp();
  }

  const hangUp = () => server.send('CLIENT', 'KILL', 'TYPE', 'normal');

  function client(password, options) {
    const hf = new Holdfast(server.url(), { password, ...options });
    // A warning of a connection that broke is none of the test's affair.
    hf.on('error', () => {});
    clients.push(hf);
    return hf;
  }

  it('may be there at once, or later', async () => {
    for (const password of [() => secret, async () => secret,
      () => sleep(50, secret)]) {
      const hf = client(password);
      await hf.kv.put('key', 1);
      assert.strictEqual((await hf.kv.get('key')).value, 1);
    }
  });

  it('is asked for once for all connections of a minute', async () => {
    let calls = 0;
    const hf = client(() => {
      calls += 1;
      return secret;
    });
    assert.strictEqual(calls, 0);
    const lock = await hf.lock('many', { ttl: '200ms' });
    // Long enough for the keeper to have signed in, too.
    await sleep(500);
    assert.strictEqual(lock.held, true);
    const waiting = hf.lock('many');
    await lock.release();
    await (await waiting).release();
    const names = await server.send('CLIENT', 'LIST');
    assert.match(names, /name=holdfast-keeper /);
    assert.strictEqual(calls, 1);
  });

  it('may change: nobody who uses the store notices', async () => {
    const given = [];
    const hf = client(() => {
      given.push(secret);
      return secret;
    });
    const lock = await hf.lock('rotated', { ttl: '1s' });
    for (let i = 0; i < 3; i++) {
      await change();
      await hf.kv.put('rotated', i);
      assert.strictEqual(lock.held, true);
    }
    await sleep(1500);
    assert.strictEqual(lock.held, true);
    assert.strictEqual(await lock.release(), true);
    assert.strictEqual(new Set(given).size, 4);
  });

  it('is known to the keeper while JavaScript is stuck', async () => {
    const hf = client(async () => secret);
    const lock = await hf.lock('stuck', { ttl: '1s' });
    await sleep(500);
    await hangUp();
    block(3000);
    assert.strictEqual(lock.held, true);
    assert.strictEqual(await lock.release(), true);
  });

  it('that the server refuses twice is an error without it', async () => {
    const wrong = 'wr0ng';
    let calls = 0;
    const hf = client(() => {
      calls += 1;
      return wrong;
    });
    const error = await hf.kv.get('key').then(assert.fail, (it) => it);
    assert.strictEqual(error.code, 'HF_EACCES');
    assert.ok(calls >= 2);
    for (const shown of [inspect(error), inspect(hf, { depth: 9, showHidden: true })]) {
      assert.ok(!shown.includes(wrong), shown);
    }
  });

  it('is an error where the function fails, in its words', async () => {
    const weird = { get message() { throw new Error('no'); } };
    const rejecting = (reason) => async () => {
      throw reason;
    };
    const cases = [
      [() => { throw new Error('the vault\n is shut'); }, 'the vault is shut'],
      [() => Promise.reject(new Error('503')), '503'],
      [rejecting('a text'), 'a text'],
      [rejecting(undefined), 'undefined'],
      [rejecting(weird), 'it threw something that has no text'],
      [() => 7, 'it gave number, not a string'],
      [() => null, 'it gave null, not a string'],
      [async () => '', 'it gave an empty one'],
      [async () => '\ud800', 'it gave a string with lone surrogates'],
    ];
    for (const [password, text] of cases) {
      await assert.rejects(open(server.url(), { password }), {
        name: 'HoldfastError', code: 'HF_ECALLBACK', retryable: true, message: FAILED + text,
      });
    }
  });

  it('may come after a failure', async () => {
    let calls = 0;
    const hf = client(() => {
      calls += 1;
      if (calls < 3) throw new Error('not yet');
      return secret;
    });
    const lock = await hf.lock('patient');
    assert.strictEqual(calls, 3);
    await lock.release();
  });

  it('is not waited for longer than connecting may take', async () => {
    const never = deferred();
    const hf = client(() => never.promise, { connectTimeout: 200 });
    const connecting = hf.lock('never', { wait: 0 });
    await assert.rejects(connecting, {
      code: 'HF_ECALLBACK',
      message: /^the function that gives the password has not answered for \d+ ms$/,
    });
    await hf.close({ timeout: 0 });
    never.resolve('too late');
    await never.promise;
  });

  it('does not keep the process', async () => {
    const child = start(`
      const hf = new holdfast.Holdfast(process.env.HOLDFAST_URL, {
        password: () => new Promise(() => {}), connectTimeout: 500,
      });
      await hf.lock('a', { wait: 0 }).catch(({ code }) => say('failed', { code }));
      hf.lock('b').catch(() => {});
      await hf.close({ timeout: 0 });
      say('closed', {});
    `, server.url());
    assert.strictEqual((await child.hear('failed')).code, 'HF_ECALLBACK');
    await child.hear('closed');
    await child.ended;
  });

  it('may be asked for when its worker ends', async () => {
    const worker = new Worker(`
      const { parentPort, workerData } = require('node:worker_threads');
      const { Holdfast } = require(workerData.library);
      const hf = new Holdfast(workerData.url, { password: () => {
        parentPort.postMessage('asked');
        return new Promise(() => {});
      }, connectTimeout: 1000 });
      hf.kv.get('key').catch(() => {});
    `, { eval: true, workerData: { library, url: server.url() } });
    assert.deepStrictEqual(await once(worker, 'message'), ['asked']);
    await worker.terminate();
  });
});
