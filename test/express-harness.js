'use strict';

// Applications and requests for the tests of the Express adapter: real servers on loopback, closed
// again by `closeAll`.

const http = require('node:http');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { open } = require('../lib');
const { startServer } = require('./redis-servers');

const versions = { 'Express 4': require('express4'), 'Express 5': require('express') };

const closers = [];
let folder;

/** Ends what the test opened. */
async function closeAll() {
  while (closers.length > 0) await closers.pop()();
  if (folder) fs.rmSync(folder, { recursive: true, force: true });
  folder = undefined;
}

/** The path of a database in a folder that closeAll removes. */
function databasePath() {
  folder ??= fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-express-'));
  return path.join(folder, 'test.db');
}

let redis = null;
let prefixes = 0;

/** The URL of an empty store: 'memory:', 'sqlite:' on a file of its own, 'redis:' on one server. */
async function storeUrl(kind) {
  if (kind === 'sqlite:') return `sqlite:${databasePath()}`;
  if (kind !== 'redis:') return kind;
  redis ??= await startServer();
  return redis.url({ prefix: `express-${++prefixes}:` });
}

/** To be called by a file whose tests use 'redis:'. */
function endRedis() {
  after(async () => {
    await redis?.stop();
    redis = null;
  });
}

/** Opens a store that closeAll closes, of a kind that storeUrl knows, or at a whole URL. */
async function openStore(kind = 'memory:') {
  const hf = await open(await storeUrl(kind));
  closers.push(() => hf.close({ timeout: 0 }));
  return hf;
}

/** Serves an application on a free port; resolves with the port. */
async function serve(app) {
  // Express's own error handler prints errors unless it is told that this is a test.
  app.set?.('env', 'test');
  const server = http.createServer(app);
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  closers.push(() => new Promise((resolve) => {
    server.close(resolve);
    server.closeAllConnections();
  }));
  return server.address().port;
}

/** Starts a request whose answer the test reads by itself. */
function sendRequest(port, given = {}) {
  const { method = 'POST', path: target = '/', key, headers = {}, end = true } = given;
  let { body } = given;
  const all = { ...headers };
  if (key !== undefined) all['Idempotency-Key'] = key;
  if (typeof body === 'object' && body !== null && !Buffer.isBuffer(body)) {
    body = JSON.stringify(body);
    all['Content-Type'] ??= 'application/json';
  }
  const options = { host: '127.0.0.1', port, method, path: target, headers: all, agent: false };
  const sent = http.request(options);
  sent.on('error', () => {}); // whoever wants to know listens too
  if (body !== undefined) sent.write(body);
  if (end) sent.end();
  return sent;
}

/** Starts a request; `sent` is the ClientRequest, `answer` the promise of its answer. */
function start(port, options) {
  const sent = sendRequest(port, options);
  const answer = new Promise((resolve, reject) => {
    sent.on('error', reject);
    sent.on('response', (res) => collect(res).then(resolve, reject));
  });
  answer.catch(() => {}); // whoever wants to know awaits it
  return { sent, answer };
}

/** One request and its answer. */
function request(port, options) {
  return start(port, options).answer;
}

async function collect(res) {
  const chunks = [];
  for await (const chunk of res) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  return {
    status: res.statusCode,
    message: res.statusMessage,
    headers: res.headers,
    rawHeaders: res.rawHeaders,
    rawTrailers: res.rawTrailers,
    body,
    text: body.toString(),
    replayed: res.headers['idempotent-replayed'] === 'true',
  };
}

const VOLATILE = new Set(['date', 'set-cookie', 'idempotent-replayed']);

/** What of an answer every duplicate of it must have, byte for byte. */
function lasting({ status, message, rawHeaders, rawTrailers, body }) {
  const headers = [];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const [name, value] = rawHeaders.slice(i, i + 2);
    if (!VOLATILE.has(name.toLowerCase())) headers.push(`${name}: ${value}`);
  }
  return { status, message, headers, rawTrailers, body: body.toString('latin1') };
}

/** A promise and what settles it. */
function gate() {
  let opened;
  const promise = new Promise((resolve) => { opened = resolve; });
  return { promise, open: opened };
}

module.exports = {
  versions, closeAll, databasePath, endRedis, storeUrl, openStore, serve, sendRequest, start,
  request, lasting, gate,
};
