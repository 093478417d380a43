'use strict';

// TLS to a Redis, in each version of Node.js.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { execFile } = require('node:child_process');
const { Holdfast, open } = require('..');
const { block } = require('./helpers');
const { startTlsServer, stopAll, useDeployment } = require('./redis-servers');
const { failure, useStores } = require('./redis-harness');
const { casesOf, prepare, runCase } = require('./redis-tls-cases');

after(stopAll);

const OTHER_NODES = ['22', '24', '26'];
const CASES = path.join(__dirname, 'redis-tls-cases.js');

// Whatever certificate is asked for: their names are known before there is a server.
const names = Object.keys(casesOf(new Proxy({}, { get: () => ({}) })));

/** What a program run by another Node.js says. */
function runIn(version, ...args) {
  const node = path.join(__dirname, '..', 'build-servers', `node-${version}`, 'bin', 'node');
  if (!fs.existsSync(node)) throw new Error(`${node} is missing: script/servers fetches it`);
  return new Promise((resolve, reject) => {
    execFile(node, args, { timeout: 60_000 }, (error, stdout, stderr) => {
      if (error) reject(new Error(`${error.message}\n${stdout}${stderr}`));
      else resolve(stdout);
    });
  });
}

describe('TLS to a Redis', () => {
  const scope = useDeployment(() => startTlsServer());
  const openStore = useStores();
  let server;
  let ca;
  before(() => {
    server = scope.deployment;
    ca = server.certificates.ca.cert;
  });
  beforeEach(() => prepare(server, {}));

  for (const name of names) {
    it(name, () => runCase(server, casesOf(server.certificates)[name]));
  }

  it('may be an option, beside redis:', async () => {
    const hf = await openStore(`redis://localhost:${server.tlsPort}`, { tls: { ca } });
    await hf.withLock('key', () => {});
  });

  it('where the other side speaks none, and the other way round', async () => {
    const options = { tls: { ca }, connectTimeout: 500 };
    const plain = await failure(open(`rediss://localhost:${server.port}`, options));
    assert.match(plain.code, /HF_EPROTO|HF_EUNAVAIL/);
    assert.ok(plain.message.includes(`localhost:${server.port}`), plain.message);
    const secured = await failure(open(`redis://localhost:${server.tlsPort}`,
      { connectTimeout: 500 }));
    assert.match(secured.code, /HF_EPROTO|HF_EUNAVAIL/);
  });

  it('certificates that are none are refused at once, without a word of them', () => {
    const { client, server: own } = server.certificates;
    const broken = client.key.replace(/\n[^-]/, '\n!');
    for (const tls of [{ ca: 'x' }, { ca: '-----BEGIN CERTIFICATE-----\nhush\n' },
      { cert: client.cert, key: own.key }, { cert: client.cert, key: broken },
      { cert: client.cert }, { key: client.key }, { ca: 7 }, { ca: [] }]) {
      assert.throws(() => new Holdfast(server.url(), { tls }), (error) => {
        assert.match(error.message, /tls/i);
        assert.doesNotMatch(error.message, /hush|PRIVATE/);
        return true;
      });
    }
  });

  it('renews a lock while the loop is blocked, and wakes who waits', async () => {
    const [hf, other] = [await openStore(server.url(), { tls: { ca } }),
      await openStore(server.url(), { tls: { ca } })];
    const lock = await hf.lock('key', { ttl: 300 });
    block(1000);
    assert.equal(lock.held, true);
    const waiting = other.lock('key', { wait: '1m' });
    await lock.release();
    await (await waiting).release();
  });

  for (const version of OTHER_NODES) {
    it(`all of it inside Node.js ${version} [slow]`, async () => {
      const file = path.join(server.folder, 'server.json');
      const { certificates, port, tlsPort } = server;
      fs.writeFileSync(file, JSON.stringify({ certificates, port, tlsPort }));
      const { node, passed } = JSON.parse(await runIn(version, CASES, file));
      assert.equal(node.split('.')[0], version);
      assert.deepEqual(passed, names);
    });
  }
});
