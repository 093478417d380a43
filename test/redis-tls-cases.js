'use strict';

// Whom a store believes, and whom a server does. test/redis-tls.test.js runs these in mocha, and
// this file as a program in other versions of Node.js:
//
//   node test/redis-tls-cases.js SERVER.json      { certificates, port, tlsPort } of a TLS server
//
// Says { node, passed } in one line of JSON.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const { open } = require('..');
const { Connection } = require('./resp');

/**
 * What a store is given (`tls`, `host`), what the server shows and whether it wants to be shown
 * something (`shown`, `asked`), and by what words of the error it is `refused`, if it is.
 */
function casesOf({ ca, otherCa, client, expiredClient, strangerClient }) {
  const trusting = { ca: ca.cert };
  const showing = ({ cert, key }) => ({ ...trusting, cert, key });
  return {
    'the right authority': { tls: trusting },
    'an IP address that the certificate names': { tls: trusting, host: '127.0.0.1' },
    'several authorities': { tls: { ca: [otherCa.cert, ca.cert] } },
    'no authority that knows it': { refused: /"ca".*tls\.ca/ },
    'another authority': { tls: { ca: otherCa.cert }, refused: /"ca".*tls\.ca/ },
    'a certificate that an unknown authority signed':
      { tls: trusting, shown: 'stranger', refused: /"otherCa".*tls\.ca/ },
    'a certificate that has expired': { tls: trusting, shown: 'expired', refused: /expired/i },
    'the certificate of another host':
      { tls: trusting, shown: 'wrongHost', refused: /not for.*but for another\.test/ },
    'an IP address that the certificate does not name':
      { tls: trusting, shown: 'wrongHost', host: '127.0.0.1', refused: /not for.*127\.0\.0\.2/ },
    'another host, whose name is asked for':
      { tls: { ...trusting, servername: 'another.test' }, shown: 'wrongHost' },
    'the right host, while another name is asked for':
      { tls: { ...trusting, servername: 'another.test' }, refused: /another\.test/ },
    'everything wrong, and no verification':
      { tls: { rejectUnauthorized: false }, shown: 'expired' },
    'a client certificate that is asked for': { tls: showing(client), asked: true },
    'no client certificate where one is asked for':
      { tls: trusting, asked: true, refused: /certificate.*tls\.cert/ },
    'a client certificate that has expired':
      { tls: showing(expiredClient), asked: true, refused: /tls\.cert.*expired/ },
    'a client certificate of another authority':
      { tls: showing(strangerClient), asked: true, refused: /tls\.cert.*CA/ },
  };
}

async function prepare({ certificates, port }, { shown = 'server', asked = false }) {
  const { certFile, keyFile } = certificates[shown];
  const connection = new Connection({ port, host: '127.0.0.1' });
  await connection.send('CONFIG', 'SET', 'tls-auth-clients', asked ? 'yes' : 'optional',
    'tls-cert-file', certFile, 'tls-key-file', keyFile);
  connection.close();
}

/** Runs one of them: `server` has certificates, the port of plain connections, and `tlsPort`. */
async function runCase(server, { tls, host = 'localhost', refused, ...state }) {
  await prepare(server, state);
  const opening = open(`rediss://${host}:${server.tlsPort}`, tls === undefined ? {} : { tls });
  if (refused === undefined) {
    const hf = await opening;
    await hf.withLock('key', () => hf.kv.put('key', 'x'.repeat(100_000)));
    assert.equal((await hf.kv.get('key')).value.length, 100_000);
    await hf.close();
    return;
  }
  const error = await opening.then(() => assert.fail('it was accepted'), (it) => it);
  assert.equal(error.code, 'HF_EACCES', error.message);
  assert.match(error.message, refused);
  assert.ok(error.message.includes(tls?.servername ?? host), error.message);
  assert.doesNotMatch(error.message, /BEGIN|PRIVATE/);
}

async function main(file) {
  const server = JSON.parse(fs.readFileSync(file, 'utf8'));
  const passed = [];
  for (const [name, one] of Object.entries(casesOf(server.certificates))) {
    await runCase(server, one).catch((error) => { throw new Error(name, { cause: error }); });
    passed.push(name);
  }
  console.log(JSON.stringify({ node: process.versions.node, passed }));
}

if (require.main === module) {
  main(process.argv[2]).catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
}

module.exports = { casesOf, prepare, runCase };
