'use strict';

// A process that is killed in the middle of a request, and what the others then say.

const assert = require('node:assert/strict');
const path = require('node:path');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const express = require('express');
const { idempotency, recordKey } = require('../lib/express');
const {
  closeAll, endRedis, openStore, request, serve, storeUrl,
} = require('./express-harness');

// A server, on the database and with the lease it is given, that dies in the middle of a request or
// after its answer.
const CHILD = `
  const express = require('express');
  const { open } = require(process.argv[1]);
  const { idempotency } = require(process.argv[1] + '/express');
  open(process.argv[2]).then((hf) => {
    const app = express();
    app.use(idempotency(hf, { lease: Number(process.argv[3]) }));
    const die = () => process.kill(process.pid, 'SIGKILL');
    app.post('/pay', (req, res) => {
      if (process.argv[4] === 'during') die();
      else res.on('finish', die).json({ paid: true });
    });
    const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port));
  });
`;

const pay = { path: '/pay', key: 'k' };

/** Sends a request with key `k` to a server that dies; resolves with what came back. */
async function crash(url, { lease = 600, when = 'during' } = {}) {
  const library = path.join(__dirname, '../lib');
  const child = spawn(process.execPath, ['-e', CHILD, library, url, String(lease), when], {
    cwd: path.join(__dirname, '..'), stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  try {
    const [line] = await once(child.stdout, 'data');
    const answer = await request(Number(line), pay).catch(() => null);
    assert.equal((await exited)[1], 'SIGKILL');
    return answer;
  } finally {
    child.kill('SIGKILL');
  }
}

/** Repeats a request until the crashed one no longer counts as running. */
async function afterLease(port) {
  for (;;) {
    const answer = await request(port, pay);
    if (!answer.text.includes(':in-progress"')) return answer;
    assert.equal(answer.status, 409);
    assert.ok(Number(answer.headers['retry-after']) >= 1);
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
}

endRedis();

for (const kind of ['sqlite:', 'redis:']) {
  describe(`idempotency after a crash on ${kind}`, () => {
    afterEach(closeAll);

    /** An application on the same database, which counts its calls. */
    async function survivor(url, onCrash) {
      const hf = await openStore(url);
      const state = { hf, calls: 0 };
      const app = express();
      app.use(idempotency(hf, { onCrash }));
      app.post('/pay', (req, res) => {
        state.calls += 1;
        res.json({ attempt: req.idempotency.attempt });
      });
      state.port = await serve(app);
      return state;
    }

    it('fail: the outcome is unknown until the record is forgotten', async () => {
      const url = await storeUrl(kind);
      assert.equal(await crash(url), null);
      const state = await survivor(url, 'fail');
      const { hf, port } = state;
      const refused = await afterLease(port);
      assert.equal(refused.status, 409);
      assert.equal(refused.headers['content-type'], 'application/problem+json');
      assert.equal(refused.headers['retry-after'], undefined);
      const problem = JSON.parse(refused.text);
      assert.equal(problem.type, 'urn:holdfast:idempotency:outcome-unknown');
      assert.equal(problem.record, recordKey('k'));
      assert.equal((await request(port, pay)).text, refused.text);
      assert.equal(state.calls, 0);
      assert.equal(await hf.forget(problem.record), true);
      assert.equal((await request(port, pay)).status, 200);
      assert.equal((await request(port, pay)).replayed, true);
    });

    it('retry: it runs again, as the second attempt', async () => {
      const url = await storeUrl(kind);
      assert.equal(await crash(url), null);
      const state = await survivor(url, 'retry');
      const answer = await afterLease(state.port);
      assert.equal(answer.text, '{"attempt":2}');
      assert.equal((await request(state.port, pay)).replayed, true);
      assert.equal(state.calls, 1);
    });

    it('an answer that left is there after the process was killed', async () => {
      const url = await storeUrl(kind);
      const first = await crash(url, { when: 'after' });
      assert.deepEqual([first.text, first.replayed], ['{"paid":true}', false]);
      const state = await survivor(url, 'fail');
      const again = await request(state.port, pay);
      assert.deepEqual([again.text, again.replayed], ['{"paid":true}', true]);
      assert.equal(state.calls, 0);
    });
  });
}
