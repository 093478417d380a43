'use strict';

// Whatever a handler uses to answer: the first answer is what it would be without the middleware,
// and the replay is that answer, byte for byte.

const assert = require('node:assert/strict');
const http = require('node:http');
const path = require('node:path');
const zlib = require('node:zlib');
const { Readable, Transform, pipeline } = require('node:stream');
const { idempotency } = require('../lib/express');
const { versions, closeAll, databasePath, openStore, serve, request, lasting } =
  require('./express-harness');

const big = Buffer.alloc(300_000, 'holdfast ');
const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));

/** An error that Express shows the same way wherever it came from. */
function failure(message, more) {
  return Object.assign(new Error(message), { stack: message, ...more });
}

const handlers = {
  json: (req, res) => { res.status(201).json({ id: 1, text: 'größer' }); },
  'json, pretty and with a length beyond 1,000': (req, res) => {
    res.json({ list: Array.from({ length: 300 }, (_, i) => i) });
  },
  'send of text': (req, res) => { res.send('<p>hello</p>'); },
  'send of bytes': (req, res) => { res.type('image/png').send(bytes); },
  'send of nothing': (req, res) => { res.send(); },
  sendStatus: (req, res) => { res.sendStatus(202); },
  'status 204 without a body': (req, res) => { res.status(204).end(); },
  'status 204 with a body, which is dropped': (req, res) => {
    res.statusCode = 204;
    res.end('x');
  },
  'status 304': (req, res) => { res.status(304).set('ETag', '"1"').end(); },
  'status 205 by send': (req, res) => { res.status(205).send('x'); },
  'a client error': (req, res) => { res.status(404).json({ error: 'no such thing' }); },
  'a server error': (req, res) => { res.status(500).send('broken'); },
  redirect: (req, res) => { res.redirect(303, '/orders/7'); },
  'location and ETag of its own': (req, res) => {
    res.set('ETag', 'W/"mine"').location('/x').send('x');
  },
  'end without anything': (req, res) => { res.end(); },
  'end with text': (req, res) => { res.end('plain'); },
  'end with empty text': (req, res) => { res.end(''); },
  'end with an encoding': (req, res) => { res.end('00ff10', 'hex'); },
  'end with latin1': (req, res) => { res.end('größe', 'latin1'); },
  'end with a Uint8Array': (req, res) => { res.end(new Uint8Array([1, 2, 3])); },
  'write and end': (req, res) => {
    res.write('a');
    res.write('b');
    res.end('c');
  },
  'write of an encoding': (req, res) => {
    res.write('4869', 'hex');
    res.end('IQ==', 'base64');
  },
  'write and end without data': (req, res) => {
    res.write('a');
    res.end();
  },
  'write with a Content-Length': (req, res) => {
    res.set('Content-Length', '4');
    res.write('ab');
    res.write('cd');
    res.end();
  },
  'write with a Content-Length, in the end call': (req, res) => {
    res.set('Content-Length', '4');
    res.write('ab');
    res.end('cd');
  },
  'write of bytes that are overwritten afterwards': (req, res) => {
    const reused = Buffer.from('first');
    res.write(reused, () => {
      reused.fill('x');
      res.end('!');
    });
  },
  'writeHead with an object': (req, res) => {
    res.writeHead(202, { 'X-One': '1', 'x-two': ['a', 'b'], 'Content-Length': 2 });
    res.end('ok');
  },
  'writeHead with a reason and a flat array': (req, res) => {
    res.writeHead(299, 'Quite Good', ['X-One', '1', 'y', '3']);
    res.end('ok');
  },
  'writeHead over headers set before': (req, res) => {
    res.set('X-One', 'old');
    res.writeHead(200, { 'X-ONE': 'new' });
    res.end('ok');
  },
  'writeHead and an empty end': (req, res) => {
    res.writeHead(200);
    res.end();
  },
  'writeHead with 204': (req, res) => {
    res.writeHead(204, { 'X-A': 'b' });
    res.end();
  },
  'writeHead, chained': (req, res) => { res.writeHead(200, { 'X-A': 'b' }).end('chained'); },
  flushHeaders: (req, res) => {
    res.set('X-A', 'b');
    res.flushHeaders();
    res.end('late');
  },
  'a file name beyond ASCII, with text': (req, res) => { res.attachment('größe.txt').send('x'); },
  'a file name beyond ASCII, with bytes': (req, res) => { res.attachment('größe.bin').end(bytes); },
  'a file name beyond ASCII, text by write': (req, res) => {
    res.attachment('größe.txt').set('Content-Length', '3');
    res.write('é');
    res.end('x');
  },
  'a file name beyond ASCII, text by one write': (req, res) => {
    res.attachment('größe.txt').set('Content-Length', '2');
    res.write('é');
    res.end();
  },
  'a file name beyond ASCII, text and then bytes': (req, res) => {
    res.attachment('größe.txt').set('Content-Length', '3');
    res.write('é');
    res.end(Buffer.from([255]));
  },
  'a reason of its own': (req, res) => {
    res.statusMessage = 'Très Bien';
    res.end('x');
  },
  'headers with several values and odd case': (req, res) => {
    res.setHeader('lInK', ['</a>; rel=x', '</b>; rel=y']);
    res.append('Vary', 'A').append('Vary', 'B').append('x-LATIN', 'caf\xe9').end('x');
  },
  'a header removed': (req, res) => {
    res.removeHeader('X-Powered-By');
    res.end('x');
  },
  trailers: (req, res) => {
    res.setHeader('Trailer', 'X-Sum');
    res.write('abc');
    res.addTrailers({ 'X-Sum': '3' });
    res.end();
  },
  'trailers announced, the body in the end call': (req, res) => {
    res.setHeader('Trailer', 'X-Sum');
    res.addTrailers([['X-Sum', '3']]);
    res.end('abc');
  },
  'trailers without chunks, which are dropped': (req, res) => {
    res.addTrailers({ 'X-Sum': '3' });
    res.end('abc');
  },
  'a stream piped': (req, res) => { Readable.from(['one ', 'two ', 'three']).pipe(res); },
  'a large stream by pipeline': (req, res, next) => {
    const source = Readable.from([big.subarray(0, 100_000), big.subarray(100_000)]);
    pipeline(source, res, (error) => { if (error) next(error); });
  },
  'a stream compressed by hand': (req, res) => {
    res.set('Content-Encoding', 'gzip');
    Readable.from([big]).pipe(zlib.createGzip()).pipe(res);
  },
  'writes that heed back-pressure': async (req, res) => {
    for (let i = 0; i < 10; i++) {
      const drained = new Promise((resolve) => { res.once('drain', resolve); });
      if (!res.write(big.subarray(0, 60_000))) await drained;
    }
    res.end();
  },
  sendFile: (req, res) => { res.sendFile(__filename); },
  download: (req, res) => { res.download(path.join(__dirname, 'express-harness.js'), 'a.js'); },
  'an error thrown': () => { throw failure('handler failed'); },
  'an error with a status': (req, res, next) => {
    next(failure('teapot', { status: 418, expose: true }));
  },
  'no handler at all': (req, res, next) => { next(); },
  'a cookie beside the body': (req, res) => { res.cookie('a', 'b').send('with cookie'); },
  'an answer much later': (req, res) => { setTimeout(() => res.json({ late: true }), 20); },
  'an answer within the callbacks of write and end': (req, res) => {
    res.write('a', () => {
      res.write('b', () => { res.end('c', () => {}); });
    });
  },
};

/** Compression as a middleware: gzip in place of write and end, headers fixed late. */
function compression(req, res, next) {
  const { write, end, writeHead } = res;
  let gzip = null;
  res.writeHead = function hooked(...args) {
    if (!gzip) {
      res.setHeader('Content-Encoding', 'gzip');
      res.removeHeader('Content-Length');
    }
    return writeHead.apply(res, args);
  };
  const begin = () => {
    if (gzip) return;
    if (!res.headersSent) res.writeHead(res.statusCode);
    gzip = zlib.createGzip();
    gzip.on('data', (chunk) => { write.call(res, chunk); });
    gzip.on('end', () => { end.call(res); });
  };
  res.write = (...args) => {
    begin();
    return gzip.write(...args);
  };
  res.end = (...args) => {
    begin();
    gzip.end(...args);
    return res;
  };
  next();
}

const timing = (req, res, next) => {
  const { writeHead } = res;
  res.writeHead = function timed(...args) {
    res.setHeader('X-Timed', 'yes');
    return writeHead.apply(res, args);
  };
  next();
};

for (const [version, express] of Object.entries(versions)) {
  /** An application that answers with `handler`, and counts its calls. */
  const application = (handler, middlewares) => {
    const app = express();
    const state = { app, calls: 0 };
    for (const middleware of middlewares) app.use(middleware);
    app.all('/', (req, res, next) => {
      state.calls += 1;
      return handler(req, res, next);
    });
    return state;
  };

  describe(`answers through ${version}`, () => {
    afterEach(closeAll);

    for (const [name, handler] of Object.entries(handlers)) {
      it(`${name}: unchanged, then replayed`, async () => {
        const hf = await openStore();
        const plain = application(handler, []);
        const wrapped = application(handler, [idempotency(hf)]);
        const expected = await request(await serve(plain.app), { key: 'k' });
        const port = await serve(wrapped.app);
        const first = await request(port, { key: 'k' });
        assert.deepEqual(lasting(first), lasting(expected));
        assert.deepEqual(first.headers['set-cookie'], expected.headers['set-cookie']);
        assert.equal(first.replayed, false);
        for (let i = 0; i < 2; i++) {
          const again = await request(port, { key: 'k' });
          assert.deepEqual(lasting(again), lasting(expected));
          assert.equal(again.headers['set-cookie'], undefined);
          assert.equal(again.headers['idempotent-replayed'], 'true');
        }
        assert.equal(wrapped.calls, 1);
      });
    }

    it('both values of a header that a flat array of writeHead names twice', async () => {
      const hf = await openStore();
      const handler = (req, res) => {
        res.writeHead(200, ['X-One', '1', 'y', '3', 'x-one', '2']).end('ok');
      };
      const port = await serve(application(handler, [idempotency(hf)]).app);
      const first = await request(port, { key: 'k' });
      assert.equal(first.headers['x-one'], '1, 2');
      assert.deepEqual(lasting(await request(port, { key: 'k' })), lasting(first));
    });

    it('chunks that the handler asked for by Transfer-Encoding', async () => {
      const hf = await openStore();
      const handler = (req, res) => { res.set('Transfer-Encoding', 'chunked').end('x'); };
      const port = await serve(application(handler, [idempotency(hf)]).app);
      const first = await request(port, { key: 'k' });
      const again = await request(port, { key: 'k' });
      assert.equal(first.headers['transfer-encoding'], 'chunked');
      assert.deepEqual(new Set(lasting(again).headers), new Set(lasting(first).headers));
      assert.equal(again.text, 'x');
    });

    it('HEAD, where it is among the methods', async () => {
      const hf = await openStore();
      const handler = (req, res) => { res.json({ a: 1 }); };
      const plain = application(handler, []);
      const wrapped = application(handler, [idempotency(hf, { methods: ['HEAD'] })]);
      const expected = await request(await serve(plain.app), { method: 'HEAD', key: 'k' });
      const port = await serve(wrapped.app);
      const first = await request(port, { method: 'HEAD', key: 'k' });
      const again = await request(port, { method: 'HEAD', key: 'k' });
      assert.deepEqual(lasting(first), lasting(expected));
      assert.deepEqual(lasting(again), lasting(expected));
      assert.equal(again.replayed, true);
      assert.equal(wrapped.calls, 1);
    });

    for (const [place, order] of [['before', (a, b) => [a, b]], ['after', (a, b) => [b, a]]]) {
      for (const name of ['json', 'a stream piped', 'end without anything', 'an error thrown']) {
        it(`${name}, compressed by a middleware ${place}`, async () => {
          const hf = await openStore();
          const plain = application(handlers[name], [compression]);
          const wrapped = application(handlers[name], order(compression, idempotency(hf)));
          const expected = await request(await serve(plain.app), { key: 'k' });
          const port = await serve(wrapped.app);
          const first = await request(port, { key: 'k' });
          const again = await request(port, { key: 'k' });
          assert.equal(expected.headers['content-encoding'], 'gzip');
          assert.deepEqual(lasting(first), lasting(expected));
          assert.deepEqual(new Set(lasting(again).headers), new Set(lasting(expected).headers));
          assert.equal(zlib.gunzipSync(again.body).toString(),
            zlib.gunzipSync(expected.body).toString());
          assert.equal(again.replayed, true);
          assert.equal(wrapped.calls, 1);
        });
      }

      it(`a header set as the head is written, by a middleware ${place}`, async () => {
        const hf = await openStore();
        const wrapped = application(handlers.json, order(timing, idempotency(hf)));
        const port = await serve(wrapped.app);
        const first = await request(port, { key: 'k' });
        const again = await request(port, { key: 'k' });
        assert.equal(first.headers['x-timed'], 'yes');
        assert.deepEqual(new Set(lasting(again).headers), new Set(lasting(first).headers));
      });
    }

    it('a cookie of another middleware stays on a replay, other headers give way', async () => {
      const hf = await openStore();
      let visits = 0;
      const visit = (req, res, next) => {
        visits += 1;
        res.cookie('visit', String(visits)).set('X-Visit', String(visits));
        next();
      };
      const { app } = application(handlers.json, [visit, idempotency(hf)]);
      const port = await serve(app);
      await request(port, { key: 'k' });
      const again = await request(port, { key: 'k' });
      assert.deepEqual(again.headers['set-cookie'], ['visit=2; Path=/']);
      assert.equal(again.headers['x-visit'], '1');
    });

    for (const status of [401, 403, 408, 425, 429, 503]) {
      it(`status ${status} leaves no record`, async () => {
        const hf = await openStore();
        const refuse = (req, res) => { res.status(status).json({ n: wrapped.calls }); };
        const wrapped = application(refuse, [idempotency(hf)]);
        const port = await serve(wrapped.app);
        for (let n = 1; n <= 3; n++) {
          const { text, replayed, ...answer } = await request(port, { key: 'k' });
          assert.deepEqual([answer.status, text, replayed], [status, `{"n":${n}}`, false]);
        }
      });
    }

    it('a body of more than maxBody passes unchanged and is not kept', async () => {
      const hf = await openStore();
      const ways = {
        end: (res) => { res.end(big); },
        write: (res) => {
          res.write(big.subarray(0, 1000));
          res.end(big.subarray(1000));
        },
        length: (res) => {
          res.set('Content-Length', big.length).write(big);
          res.end();
        },
      };
      for (const [key, way] of Object.entries(ways)) {
        const wrapped = application((req, res) => { way(res.status(201)); },
          [idempotency(hf, { maxBody: big.length - 1 })]);
        const port = await serve(wrapped.app);
        const first = await request(port, { key });
        assert.equal(first.status, 201);
        assert.ok(first.body.equals(big));
        const again = await request(port, { key });
        assert.equal(again.status, 409);
        assert.equal(again.headers['content-type'], 'application/problem+json');
        const problem = JSON.parse(again.text);
        assert.equal(problem.type, 'urn:holdfast:idempotency:answer-too-large');
        assert.equal(problem.originalStatus, 201);
        assert.equal(again.replayed, false);
        assert.equal(wrapped.calls, 1);
      }
    });

    it('a body of exactly maxBody is kept, also of 0 and of 1 MiB', async () => {
      const hf = await openStore('sqlite:');
      for (const size of [0, big.length, 1 << 20]) {
        const body = Buffer.alloc(size, 'x');
        const { app } = application((req, res) => { res.end(body); },
          [idempotency(hf, { maxBody: size })]);
        const port = await serve(app);
        await request(port, { key: `size ${size}`.replace(' ', '-') });
        const again = await request(port, { key: `size-${size}` });
        assert.equal(again.replayed, true);
        assert.ok(again.body.equals(body));
      }
    });

    it('headers of more than 64 KiB make an answer too large', async () => {
      const hf = await openStore();
      const { app } = application((req, res) => {
        for (let i = 0; i < 10; i++) res.set(`X-${i}`, 'x'.repeat(7_000));
        res.end('small');
      }, [idempotency(hf)]);
      const server = await serve(app);
      const get = (key) => new Promise((resolve, reject) => {
        const sent = http.request({ host: '127.0.0.1', port: server, method: 'POST', agent: false,
          maxHeaderSize: 200_000, headers: { 'Idempotency-Key': key } }, (res) => {
          res.resume().on('end', () => resolve(res.statusCode));
        });
        sent.on('error', reject).end();
      });
      assert.equal(await get('k'), 200);
      assert.equal(await get('k'), 409);
    });

    it('a transformed upload comes back the same', async () => {
      const hf = await openStore();
      const upper = () => new Transform({
        transform(chunk, encoding, done) { done(null, chunk.toString().toUpperCase()); },
      });
      const { app } = application((req, res) => { req.pipe(upper()).pipe(res); },
        [idempotency(hf)]);
      const port = await serve(app);
      const body = Buffer.from('abc '.repeat(50_000));
      const first = await request(port, { key: 'k', body });
      const again = await request(port, { key: 'k', body });
      assert.equal(first.text, body.toString().toUpperCase());
      assert.deepEqual(lasting(again), lasting(first));
    });

    it('an answer is found by another client of the file', async () => {
      const url = `sqlite:${databasePath()}`;
      const one = application(handlers['send of bytes'], [idempotency(await openStore(url))]);
      const first = await request(await serve(one.app), { key: 'k' });
      const two = application(handlers.json, [idempotency(await openStore(url))]);
      const again = await request(await serve(two.app), { key: 'k' });
      assert.deepEqual(lasting(again), lasting(first));
      assert.equal(two.calls, 0);
    });
  });
}
