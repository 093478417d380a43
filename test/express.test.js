'use strict';

// The protocol of the Express adapter: who runs, who waits, who is refused, and with what words.

const assert = require('node:assert/strict');
const { AsyncLocalStorage } = require('node:async_hooks');
const { once } = require('node:events');
const { Readable } = require('node:stream');
const { idempotency, recordKey } = require('../lib/express');
const {
  versions, closeAll, endRedis, openStore, serve, sendRequest, start, request, lasting, gate,
} = require('./express-harness');

const TYPE = 'urn:holdfast:idempotency:';

/** Checks that an answer is the problem of that name, and returns its document. */
function assertProblem(answer, status, name) {
  assert.equal(answer.status, status, answer.text);
  assert.equal(answer.headers['content-type'], 'application/problem+json');
  assert.equal(answer.headers['cache-control'], 'no-store');
  assert.equal(answer.replayed, false);
  const document = JSON.parse(answer.text);
  assert.equal(document.type, TYPE + name);
  assert.equal(document.status, status);
  assert.match(document.title, /^\w[\w ]+$/);
  assert.match(document.detail, /\.$/);
  return document;
}

/** The bytes of a request as the handler can still read them. */
async function readAll(req) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  return Buffer.concat(chunks);
}

for (const [version, express] of Object.entries(versions)) {
  /** An application that answers 201 with the number of its handler's calls, unless told else. */
  const shop = (hf, options, { handler, before = [], after = [] } = {}) => {
    const app = express();
    const state = { app, calls: 0, errors: [] };
    for (const middleware of before) app.use(middleware);
    app.use(idempotency(hf, options));
    for (const middleware of after) app.use(middleware);
    app.use((req, res, next) => {
      state.calls += 1;
      if (handler) return handler(req, res, next);
      return res.status(201).json({ call: state.calls });
    });
    // Express knows an error handler by its four arguments.
    app.use((error, req, res, _next) => {
      state.errors.push(error);
      res.status(error.status ?? 500).json({ error: error.message });
    });
    return state;
  };

  for (const url of ['memory:', 'sqlite:', 'redis:']) {
    describe(`idempotency in ${version} on ${url}`, () => {
      endRedis();
      afterEach(closeAll);

      it('runs the handler once and replays its answer', async () => {
        const hf = await openStore(url);
        const { app } = shop(hf);
        const port = await serve(app);
        const first = await request(port, { key: 'a', body: { item: 1 } });
        const second = await request(port, { key: '"a"', body: { item: 1 } });
        const other = await request(port, { key: 'b', body: { item: 1 } });
        assert.deepEqual([first.text, first.replayed], ['{"call":1}', false]);
        assert.deepEqual(lasting(second), lasting(first));
        assert.equal(second.headers['idempotent-replayed'], 'true');
        assert.equal(other.text, '{"call":2}');
      });

      it('runs one of 50 simultaneous duplicates', async () => {
        const hf = await openStore(url);
        const held = gate();
        const state = shop(hf, {}, {
          handler: async (req, res) => {
            await held.promise;
            res.status(201).json({ charged: state.calls });
          },
        });
        const port = await serve(state.app);
        const all = Array.from({ length: 50 },
          () => request(port, { key: 'c', body: { card: 1 } }));
        let refused = 0;
        for (const answer of all) answer.then(() => { if (++refused === 49) held.open(); });
        const answers = await Promise.all(all);
        const winners = answers.filter((answer) => answer.status === 201);
        assert.equal(winners.length, 1);
        for (const answer of answers) {
          if (answer === winners[0]) continue;
          assertProblem(answer, 409, 'in-progress');
          const seconds = Number(answer.headers['retry-after']);
          assert.ok(Number.isInteger(seconds) && seconds >= 1 && seconds <= 30, `${seconds}`);
        }
        assert.equal(state.calls, 1);
        const late = await request(port, { key: 'c', body: { card: 1 } });
        assert.deepEqual([late.text, late.replayed], ['{"charged":1}', true]);
      });

      it('refuses the key for another method, path, query or body', async () => {
        const hf = await openStore(url);
        const state = shop(hf, {}, { before: [express.json()] });
        const port = await serve(state.app);
        const same = { key: 'd', method: 'POST', path: '/pay?a=1', body: { x: 1, y: [2] } };
        await request(port, same);
        for (const change of [{ method: 'PUT' }, { path: '/pay2?a=1' }, { path: '/pay?a=2' },
          { path: '/pay' }, { body: { x: 1, y: [3] } }, { body: undefined }]) {
          assertProblem(await request(port, { ...same, ...change }), 422, 'key-reused');
        }
        const sorted = await request(port, { ...same, body: { y: [2], x: 1 } });
        assert.equal(sorted.replayed, true);
        assert.equal(state.calls, 1);
      });

      it('keeps equal keys of two scopes apart', async () => {
        const hf = await openStore(url);
        const { app } = shop(hf, { scope: async (req) => req.get('X-Tenant') });
        const port = await serve(app);
        const send = (tenant) => request(port, { key: 'e', headers: { 'X-Tenant': tenant } });
        assert.equal((await send('a')).text, '{"call":1}');
        assert.equal((await send('b')).text, '{"call":2}');
        assert.equal((await send('a')).replayed, true);
        assert.equal(await hf.forget(recordKey('e', 'a')), true);
        assert.equal((await send('a')).text, '{"call":3}');
        assert.equal((await send('b')).replayed, true);
      });

      it('does not run the handler when the store is closed', async () => {
        const hf = await openStore(url);
        const state = shop(hf);
        const port = await serve(state.app);
        await hf.close();
        const answer = await request(port, { key: 'f' });
        assertProblem(answer, 503, 'store-unavailable');
        assert.ok(Number(answer.headers['retry-after']) >= 1);
        assert.equal(state.calls, 0);
        assert.equal((await request(port, {})).status, 201);
      });

      it('gives no answer that was not stored: the record is gone', async () => {
        const hf = await openStore(url);
        const state = shop(hf, {}, {
          before: [(req, res, next) => { res.set('X-Before', 'kept').cookie('c', '1') && next(); }],
          handler: async (req, res) => {
            if (state.calls === 1) await hf.forget(recordKey('g'));
            res.set('X-Secret', 'of the handler').status(201).json({ call: state.calls });
          },
        });
        const port = await serve(state.app);
        const first = await request(port, { key: 'g' });
        assertProblem(first, 503, 'outcome-not-stored');
        assert.ok(Number(first.headers['retry-after']) >= 1);
        assert.equal(first.headers['x-before'], 'kept');
        assert.equal(first.headers['x-secret'], undefined);
        assert.equal((await request(port, { key: 'g' })).text, '{"call":2}');
        assert.equal((await request(port, { key: 'g' })).replayed, true);
      });

      it('breaks the connection when a part has left and the rest is not stored', async () => {
        const hf = await openStore(url);
        for (const finish of [(res) => res.end('end'), (res) => res.end()]) {
          const state = shop(hf, {}, {
            handler: async (req, res) => {
              res.set('Content-Length', '8').write('start');
              await hf.forget(recordKey('h'));
              res.write('end');
              finish(res);
            },
          });
          const port = await serve(state.app);
          await assert.rejects(request(port, { key: 'h' }), { code: 'ECONNRESET' });
          assert.equal(state.calls, 1);
        }
      });
    });
  }

  describe(`idempotency in ${version}: requests`, () => {
    afterEach(closeAll);

    it('passes other methods and requests without a key', async () => {
      const state = shop(await openStore());
      const port = await serve(state.app);
      for (const options of [{ method: 'GET', key: 'a' }, { method: 'GET', key: 'a' }, {}, {}]) {
        assert.equal((await request(port, options)).replayed, false);
      }
      assert.equal(state.calls, 4);
    });

    it('protects POST, PATCH, PUT and DELETE, or the methods it is given', async () => {
      const hf = await openStore();
      const usual = await serve(shop(hf).app);
      for (const method of ['POST', 'PATCH', 'PUT', 'DELETE']) {
        await request(usual, { method, key: method });
        assert.equal((await request(usual, { method, key: method })).replayed, true);
      }
      const unusual = await serve(shop(hf, { methods: ['get'] }).app);
      await request(unusual, { method: 'GET', key: 'g' });
      assert.equal((await request(unusual, { method: 'GET', key: 'g' })).replayed, true);
      await request(unusual, { method: 'POST', key: 'p' });
      assert.equal((await request(unusual, { method: 'POST', key: 'p' })).replayed, false);
    });

    it('asks for the key where it is required', async () => {
      const state = shop(await openStore(), { required: true, header: 'X-Request-Key' });
      const port = await serve(state.app);
      const missing = await request(port, { key: 'not this header' });
      assert.match(assertProblem(missing, 400, 'key-missing').detail, /X-Request-Key/);
      assert.equal((await request(port, { method: 'GET' })).status, 201);
      assert.equal((await request(port, { headers: { 'x-request-key': 'k' } })).status, 201);
      assert.equal(state.calls, 2);
    });

    it('refuses a malformed key, and one that comes twice', async () => {
      const state = shop(await openStore());
      const port = await serve(state.app);
      for (const key of ['', '"open', 'a b', 'a, b', 'x'.repeat(256), ['a', 'b'], ['a', 'a']]) {
        assertProblem(await request(port, { key, body: { a: 1 } }), 400, 'key-malformed');
      }
      assert.equal(state.calls, 0);
    });

    it('counts one request once where it is mounted twice', async () => {
      const hf = await openStore();
      const inner = idempotency(hf, { required: true });
      const state = shop(hf, {}, { after: [express.json(), inner] });
      const port = await serve(state.app);
      assert.equal((await request(port, { key: 'k', body: { a: 1 } })).status, 201);
      assert.equal((await request(port, { key: 'k', body: { a: 1 } })).replayed, true);
      assertProblem(await request(port, {}), 400, 'key-missing');
      assert.equal(state.calls, 1);
    });

    it('works on one route, on a router and for a mounted application', async () => {
      const hf = await openStore();
      let calls = 0;
      const answer = (req, res) => { res.json({ call: ++calls }); };
      const app = express();
      const router = express.Router();
      router.use(idempotency(hf));
      router.post('/x', answer);
      app.post('/route', idempotency(hf), answer);
      app.use('/a', router);
      app.use('/b', router);
      const port = await serve(app);
      await request(port, { key: '1', path: '/route' });
      assert.equal((await request(port, { key: '1', path: '/route' })).replayed, true);
      await request(port, { key: '2', path: '/a/x' });
      assert.equal((await request(port, { key: '2', path: '/a/x' })).replayed, true);
      assertProblem(await request(port, { key: '2', path: '/b/x' }), 422, 'key-reused');
      assert.equal(calls, 2);
    });

    it('shows the handler its run', async () => {
      const hf = await openStore();
      let run;
      const { app } = shop(hf, { scope: () => 'me' }, {
        handler: (req, res) => {
          run = req.idempotency;
          res.end();
        },
      });
      const port = await serve(app);
      await request(port, { key: 'k' });
      assert.equal(run.key, recordKey('k', 'me'));
      assert.equal(run.attempt, 1);
      assert.ok(run.signal instanceof AbortSignal);
      await request(port, {});
      assert.equal(run, undefined);
    });

    it('keeps the asynchronous context of the request', async () => {
      const context = new AsyncLocalStorage();
      const { app } = shop(await openStore(), {}, {
        before: [(req, res, next) => context.run(req.get('X-Id'), next)],
        handler: (req, res) => { res.end(context.getStore()); },
      });
      const port = await serve(app);
      const send = (id) => request(port, { key: id, headers: { 'X-Id': id }, body: 'some text' });
      const answers = await Promise.all(['a', 'b', 'c'].map(send));
      assert.deepEqual(answers.map(({ text }) => text), ['a', 'b', 'c']);
    });

    it('hands errors of the program to the error handler, and does not run', async () => {
      const hf = await openStore();
      const wrong = {
        'scope throws': { scope: () => { throw new Error('no tenant'); } },
        'scope is no string': { scope: () => undefined },
        'scope is empty': { scope: () => '' },
        'fingerprint throws': { fingerprint: async () => { throw new Error('no print'); } },
        'fingerprint is an object': { fingerprint: () => ({}) },
      };
      for (const [name, options] of Object.entries(wrong)) {
        const state = shop(hf, options);
        const answer = await request(await serve(state.app), { key: 'k' });
        assert.equal(answer.status, 500, name);
        assert.equal(state.errors.length, 1, name);
        assert.equal(state.calls, 0, name);
      }
      await hf.once(recordKey('foreign'), { fingerprint: undefined }, () => ({ not: 'an answer' }));
      const foreign = await request(await serve(shop(hf).app), { key: 'foreign' });
      assert.equal(foreign.status === 422 || foreign.status === 500, true, foreign.text);
    });
  });

  describe(`idempotency in ${version}: bodies`, () => {
    afterEach(closeAll);

    const echo = async (req, res) => {
      const body = req.body !== undefined && Object.keys(req.body).length > 0
        ? req.body : (await readAll(req)).toString();
      res.json({ body });
    };
    const multipart = (boundary, value) => [`--${boundary}`,
      'Content-Disposition: form-data; name="a"', '', value, `--${boundary}--`, ''].join('\r\n');

    const kinds = {
      json: { body: Buffer.from('{"b":[1,2],"a":"ü"}'), type: 'application/json' },
      urlencoded: { body: Buffer.from('b=1&a=2'), type: 'application/x-www-form-urlencoded' },
      text: { body: Buffer.from('just text'), type: 'text/plain' },
      unknown: { body: Buffer.from([1, 2, 3]), type: 'application/octet-stream' },
      multipart: {
        body: Buffer.from(multipart('b1', 'x')),
        type: 'multipart/form-data; boundary=b1',
      },
      'large text': { body: Buffer.alloc(40_000, 'larger '), type: 'text/plain' },
    };
    const parsers = {
      none: () => [],
      all: () => [express.json(), express.urlencoded({ extended: true }), express.text()],
    };
    for (const place of ['before', 'after']) {
      for (const [kind, { body, type }] of Object.entries(kinds)) {
        it(`${kind} with body parsers mounted ${place}`, async () => {
          const hf = await openStore();
          const bare = express();
          bare.use(...parsers.all(), echo);
          const { app } = shop(hf, {}, { [place]: parsers.all(), handler: echo });
          const headers = { 'Content-Type': type };
          const expected = await request(await serve(bare), { headers, body });
          const port = await serve(app);
          const first = await request(port, { key: 'k', headers, body });
          assert.equal(first.status, 200, first.text);
          assert.equal(first.text, expected.text);
          assert.equal((await request(port, { key: 'k', headers, body })).replayed, true);
          const other = Buffer.concat([body, body]);
          const changed = await request(port, { key: 'k', headers, body: other });
          // Text that is no JSON any more fails in the parser where that comes first.
          if (kind === 'json' && place === 'before') assert.equal(changed.status, 400);
          else assertProblem(changed, 422, 'key-reused');
        });
      }
    }

    it('bodies that no parser took are told apart, though the parser left an object', async () => {
      const hf = await openStore();
      const { app } = shop(hf, {}, { before: [express.json()], handler: echo });
      const port = await serve(app);
      const headers = { 'Content-Type': 'application/octet-stream' };
      await request(port, { key: 'k', headers, body: Buffer.from('one') });
      const other = await request(port, { key: 'k', headers, body: Buffer.from('two') });
      assertProblem(other, 422, 'key-reused');
    });

    it('req.rawBody counts before req.body', async () => {
      const hf = await openStore();
      const keep = express.json({ verify: (req, res, bytes) => { req.rawBody = bytes; } });
      const port = await serve(shop(hf, {}, { before: [keep] }).app);
      const headers = { 'Content-Type': 'application/json' };
      await request(port, { key: 'k', headers, body: Buffer.from('{"a":1,"b":2}') });
      const spaced = { key: 'k', headers, body: Buffer.from('{"b":2,"a":1}') };
      assertProblem(await request(port, spaced), 422, 'key-reused');
    });

    it('a form sent again with another boundary is the same form', async () => {
      const { app } = shop(await openStore(), {}, { handler: echo });
      const port = await serve(app);
      const send = (boundary, value) => request(port, { key: 'k',
        headers: { 'Content-Type': `multipart/form-data; boundary="${boundary}"` },
        body: Buffer.from(multipart(boundary, value)) });
      await send('----one', 'x');
      assert.equal((await send('----two', 'x')).replayed, true);
      assertProblem(await send('----one', 'y'), 422, 'key-reused');
    });

    it('a body without announced length, in pieces of any size', async () => {
      const { app } = shop(await openStore(), {}, { handler: echo });
      const port = await serve(app);
      const send = async (...pieces) => {
        const { sent, answer } = start(port, { key: 'k', end: false });
        for (const piece of pieces) {
          await new Promise((resolve) => { sent.write(piece, resolve); });
          await new Promise((resolve) => { setImmediate(resolve); });
        }
        sent.end();
        return answer;
      };
      const first = await send('ab', 'cd');
      assert.equal(first.text, '{"body":"abcd"}');
      assert.equal((await send('a', 'bc', 'd')).replayed, true);
      assertProblem(await send('abc'), 422, 'key-reused');
    });

    it('an empty body without announced length, for a handler that waits for its end', async () => {
      const handler = (req, res) => {
        let length = 0;
        req.on('data', (chunk) => { length += chunk.length; });
        req.on('end', () => { res.json({ length }); });
      };
      const port = await serve(shop(await openStore(), {}, { handler }).app);
      const headers = { 'Transfer-Encoding': 'chunked' };
      assert.equal((await request(port, { key: 'k', headers })).text, '{"length":0}');
      assert.equal((await request(port, { key: 'k', headers })).replayed, true);
      assert.equal((await request(port, { key: 'k' })).replayed, true);
    });

    const mebibyte = 1 << 20;
    it('of a large unparsed body the first MiB and the length count', async () => {
      const handler = async (req, res) => {
        const bytes = await readAll(req);
        res.json({ length: bytes.length, last: bytes.at(-1) });
      };
      const { app } = shop(await openStore(), {}, { handler });
      const port = await serve(app);
      const body = Buffer.alloc(3 * mebibyte, 'a');
      body[body.length - 1] = 7;
      const send = (bytes) => request(port, { key: 'k', body: bytes,
        headers: { 'Content-Length': bytes.length } });
      const first = await send(body);
      assert.deepEqual(JSON.parse(first.text), { length: body.length, last: 7 });
      assert.equal((await send(body)).replayed, true);
      assertProblem(await send(body.subarray(1)), 422, 'key-reused');
      const late = Buffer.from(body);
      late[mebibyte] = 1;
      assert.equal((await send(late)).replayed, true);
      const early = Buffer.from(body);
      early[mebibyte - 1] = 1;
      assertProblem(await send(early), 422, 'key-reused');
    });

    it('a body of one MiB and a byte more are not the same', async () => {
      const handler = async (req, res) => { res.json({ length: (await readAll(req)).length }); };
      const port = await serve(shop(await openStore(), {}, { handler }).app);
      const upload = (size) => {
        const { sent, answer } = start(port, { key: 'k', end: false });
        Readable.from([Buffer.alloc(size, 'a')]).pipe(sent);
        return answer;
      };
      assert.equal((await upload(mebibyte)).text, `{"length":${mebibyte}}`);
      assert.equal((await upload(mebibyte)).replayed, true);
      assertProblem(await upload(mebibyte + 1), 422, 'key-reused');
    });

    it('a body that was read and lost is an error of the program', async () => {
      const lose = async (req, res, next) => {
        await readAll(req);
        delete req.body;
        next();
      };
      const state = shop(await openStore(), {}, { before: [lose] });
      const port = await serve(state.app);
      const answer = await request(port, { key: 'k', body: 'abc' });
      assert.equal(answer.status, 500);
      assert.match(state.errors[0].message, /read before the idempotency middleware/);
      assert.equal(state.calls, 0);
      const own = shop(await openStore(), { fingerprint: () => 'abc' }, { before: [lose] });
      assert.equal((await request(await serve(own.app), { key: 'k', body: 'abc' })).status, 201);
    });

    it('a custom fingerprint counts in place of query and body', async () => {
      const options = { fingerprint: async (req) => Buffer.from(req.body.order) };
      const state = shop(await openStore(), options, { before: [express.json()] });
      const port = await serve(state.app);
      const send = (path, order, at) => request(port, { key: 'k', path, body: { order, at } });
      await send('/pay?n=1', 'o1', 1);
      assert.equal((await send('/pay?n=2', 'o1', 2)).replayed, true);
      assertProblem(await send('/pay?n=1', 'o2', 1), 422, 'key-reused');
      assertProblem(await send('/refund', 'o1', 1), 422, 'key-reused');
    });

    it('does not run for a client that went away in the middle of its body', async () => {
      const state = shop(await openStore());
      const arrived = gate();
      const app = express();
      app.use((req, res, next) => {
        if (req.headers['content-length']) req.once('close', arrived.open);
        next();
      }, state.app);
      const port = await serve(app);
      const { sent, answer } = start(port, { key: 'k', end: false,
        headers: { 'Content-Length': 100 } });
      await new Promise((resolve) => { sent.write('only this', resolve); });
      sent.destroy();
      await assert.rejects(answer);
      await arrived.promise;
      // The next request with this key is the first one that counts.
      assert.equal((await request(port, { key: 'k' })).text, '{"call":1}');
      assert.equal(state.calls, 1);
    });
  });

  describe(`idempotency in ${version}: disturbances`, () => {
    afterEach(closeAll);

    /** Resolves when the record of a key holds an answer. */
    const stored = async (hf, key) => {
      for (;;) {
        const record = await hf.record(recordKey(key));
        if (record?.state === 'done') return;
        await new Promise((resolve) => { setTimeout(resolve, 5); });
      }
    };

    it('the client leaves while the handler works: its answer is stored', async () => {
      const hf = await openStore();
      const [begun, left] = [gate(), gate()];
      const state = shop(hf, {}, {
        handler: async (req, res) => {
          res.on('close', left.open);
          begun.open();
          await left.promise;
          res.status(201).json({ call: state.calls });
        },
      });
      const port = await serve(state.app);
      const sent = sendRequest(port, { key: 'k' });
      await begun.promise;
      sent.destroy();
      await stored(hf, 'k');
      const again = await request(port, { key: 'k' });
      assert.deepEqual([again.status, again.text, again.replayed], [201, '{"call":1}', true]);
    });

    const chunks = Array.from({ length: 16 }, (_, i) => Buffer.alloc(60_000, `${i} `));
    const streams = {
      'a stream that is piped': (res, source) => { source.pipe(res); },
      'a stream that is piped, ended by the handler': (res, source) => {
        source.pipe(res, { end: false });
        source.on('end', () => { res.end('!'); });
      },
      'writes that heed back-pressure': async (res, source) => {
        for await (const chunk of source) if (!res.write(chunk)) await once(res, 'drain');
        res.end();
      },
    };
    for (const [name, answer] of Object.entries(streams)) {
      it(`the client leaves in the middle of ${name}: the whole is recorded`, async () => {
        const hf = await openStore();
        const state = shop(hf, { maxBody: 1 << 20 }, {
          handler: (req, res) => {
            answer(res, Readable.from(chunks, { objectMode: false, highWaterMark: 1 }));
          },
        });
        const port = await serve(state.app);
        const sent = sendRequest(port, { key: 'k' });
        const [res] = await once(sent, 'response');
        await once(res, 'readable');
        sent.destroy();
        await stored(hf, 'k');
        const again = await request(port, { key: 'k' });
        assert.equal(again.replayed, true);
        const end = name.includes('ended by') ? '!' : '';
        assert.ok(again.body.equals(Buffer.concat([...chunks, Buffer.from(end)])));
        assert.equal(state.calls, 1);
      });
    }

    const misuses = {
      'end twice with data': (res) => res.end('second'),
      'write after the end': (res) => res.write('second'),
    };
    for (const [name, misuse] of Object.entries(misuses)) {
      it(`${name}: the first counts, and Node's error comes after it`, async () => {
        const hf = await openStore();
        const wrong = gate();
        const { app } = shop(hf, {}, {
          handler: (req, res) => {
            res.on('error', wrong.open);
            res.end('first');
            misuse(res);
          },
        });
        const port = await serve(app);
        assert.equal((await request(port, { key: 'k' })).text, 'first');
        assert.equal((await wrong.promise).code, 'ERR_STREAM_WRITE_AFTER_END');
        const again = await request(port, { key: 'k' });
        assert.deepEqual([again.text, again.replayed], ['first', true]);
      });
    }

    it('end twice without data, and the callbacks of both', async () => {
      const called = [];
      const { app } = shop(await openStore(), {}, {
        handler: (req, res) => {
          res.end('x', () => called.push('first'));
          res.end(() => called.push('second'));
        },
      });
      const port = await serve(app);
      assert.equal((await request(port, { key: 'k' })).text, 'x');
      assert.equal((await request(port, { key: 'k' })).replayed, true);
      assert.deepEqual(called.sort(), ['first', 'second']);
    });

    it('after the end the response looks ended, while its record is being stored', async () => {
      const hf = await openStore();
      const seen = {};
      const { app } = shop(hf, {}, {
        handler: (req, res) => {
          res.set('X-A', '1').json({ a: 1 });
          Object.assign(seen, { headersSent: res.headersSent, writableEnded: res.writableEnded });
          for (const act of [() => res.setHeader('X-A', '2'), () => res.removeHeader('X-A'),
            () => res.appendHeader('X-A', '2'), () => res.writeHead(500), () => res.json({})]) {
            assert.throws(act, { code: 'ERR_HTTP_HEADERS_SENT' });
          }
          res.flushHeaders();
          res.statusCode = 500;
          res.statusMessage = 'Changed';
        },
      });
      const port = await serve(app);
      const first = await request(port, { key: 'k' });
      assert.deepEqual(seen, { headersSent: true, writableEnded: true });
      assert.deepEqual([first.status, first.message, first.headers['x-a']], [200, 'OK', '1']);
      assert.deepEqual(lasting(await request(port, { key: 'k' })), lasting(first));
    });

    it('what Node refuses to send is refused as ever, and the error is the answer', async () => {
      const bad = {
        'a number as a body': (res) => res.end(7),
        'a number written': (res) => res.write(7),
        'null written': (res) => res.write(null),
        'a status that is none': (res) => { res.statusCode = 7; res.end(); },
        'a reason with a line break': (res) => { res.statusMessage = 'a\nb'; res.end(); },
        'a header with a line break': (res) => res.writeHead(200, { 'X-A': 'a\nb' }),
      };
      for (const [name, act] of Object.entries(bad)) {
        const state = shop(await openStore(), {}, { handler: (req, res) => { act(res); } });
        state.app.use((error, req, res, _next) => {
          res.statusMessage = '';
          res.status(500).send(error.code);
        });
        const port = await serve(state.app);
        const first = await request(port, { key: 'k' });
        assert.equal(first.status, 500, name);
        const again = await request(port, { key: 'k' });
        assert.deepEqual(lasting(again), lasting(first), name);
        assert.equal(again.replayed, true, name);
        assert.equal(state.calls, 1, name);
      }
    });

    it('writes leave at once, the end only when the record is stored', async () => {
      const hf = await openStore();
      const storing = gate();
      // Stands between the middleware and the store: finishes when the test says so.
      const slow = {
        once: (key, options, fn) => hf.once(key, options, async (run) => {
          const value = await fn(run);
          await storing.promise;
          return value;
        }),
      };
      const { app } = shop(slow, {}, {
        handler: (req, res) => {
          res.write('early ');
          res.end('late');
        },
      });
      const port = await serve(app);
      const sent = sendRequest(port, { key: 'k' });
      const [res] = await once(sent, 'response');
      const [chunk] = await once(res, 'data');
      assert.equal(chunk.toString(), 'early ');
      let rest = '';
      res.on('data', (more) => { rest += more; });
      const refused = await request(port, { key: 'k' });
      assertProblem(refused, 409, 'in-progress');
      assert.equal(rest, '');
      storing.open();
      await once(res, 'end');
      assert.equal(rest, 'late');
    });

    it('nothing leaves before the record is stored where the length is announced', async () => {
      const hf = await openStore();
      const storing = gate();
      const slow = {
        once: (key, options, fn) => hf.once(key, options, async (run) => {
          const value = await fn(run);
          await storing.promise;
          return value;
        }),
      };
      const ended = gate();
      const { app } = shop(slow, {}, {
        handler: (req, res) => {
          res.set('Content-Length', '4');
          const more = res.write('done', () => {
            res.end();
            ended.open();
          });
          assert.equal(more, true);
        },
      });
      const port = await serve(app);
      const { sent, answer } = start(port, { key: 'k' });
      let responded = false;
      sent.on('response', () => { responded = true; });
      await ended.promise;
      assertProblem(await request(port, { key: 'k' }), 409, 'in-progress');
      assert.equal(responded, false);
      storing.open();
      assert.equal((await answer).text, 'done');
    });

    it('gives 503 when the store fails after the handler ran', async () => {
      for (const code of ['HF_EUNAVAIL', 'HF_ELOST', 'HF_EFULL']) {
        const failing = {
          once: async (key, options, fn) => {
            await fn({ key });
            throw Object.assign(new Error('no store'), { code });
          },
        };
        const port = await serve(shop(failing).app);
        assertProblem(await request(port, { key: 'k' }), 503, 'outcome-not-stored');
      }
    });

    it('gives 503 when the store gives up while the handler works', async () => {
      const working = gate();
      const failing = {
        once: (key, options, fn) => {
          fn({ key });
          return Promise.reject(Object.assign(new Error('closed'), { code: 'HF_ECLOSED' }));
        },
      };
      const { app } = shop(failing, {}, {
        handler: async (req, res) => {
          await working.promise;
          res.json({ done: true });
        },
      });
      const port = await serve(app);
      const answer = request(port, { key: 'k' });
      working.open();
      assertProblem(await answer, 503, 'outcome-not-stored');
    });

    for (const onCrash of ['fail', 'retry']) {
      it(`a handler that never answers a client that left counts as hung: ${onCrash}`, async () => {
        const hf = await openStore();
        const left = gate();
        const later = [];
        const state = shop(hf, { onCrash }, {
          handler: (req, res) => {
            if (state.calls > 1) return res.end('second attempt');
            // The one timer that is set when the connection has closed is the recorder's.
            const { setTimeout: real } = globalThis;
            res.prependListener('close', () => {
              globalThis.setTimeout = (fn, ms) => {
                later.push({ fn, ms });
                return real(() => {}, 0);
              };
            });
            res.on('close', () => {
              globalThis.setTimeout = real;
              left.open(res);
            });
            return sent.destroy();
          },
        });
        const port = await serve(state.app);
        const sent = sendRequest(port, { key: 'k' });
        const res = await left.promise;
        assertProblem(await request(port, { key: 'k' }), 409, 'in-progress');
        assert.deepEqual(later.map(({ ms }) => ms), [15 * 60 * 1000]);
        later[0].fn();
        const record = async () => (await hf.record(recordKey('k')))?.state ?? 'none';
        while (await record() === 'running') await new Promise((go) => { setImmediate(go); });
        const again = await request(port, { key: 'k' });
        if (onCrash === 'retry') assert.equal(again.text, 'second attempt');
        else assert.equal(assertProblem(again, 409, 'outcome-unknown').record, recordKey('k'));
        res.end('too late');
        assert.equal((await request(port, { key: 'k' })).text, again.text);
      });
    }

    it('an error after a part of the answer breaks the connection, as ever', async () => {
      const hf = await openStore();
      const app = express();
      app.use(idempotency(hf));
      app.use((req, res) => {
        res.write('part');
        throw new Error('too late');
      });
      const port = await serve(app);
      await assert.rejects(request(port, { key: 'k' }), { code: 'ECONNRESET' });
    });
  });
}
