'use strict';

// Certificates that the tests make for themselves: an authority, what it has signed, and what it
// has not.

const fs = require('node:fs');
const path = require('node:path');
const { execFile } = require('node:child_process');
const { promisify } = require('node:util');
const { libraries, program } = require('./server-process');

const run = promisify(execFile);

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
const OWN_NAMES = 'DNS:localhost,DNS:redis.test,IP:127.0.0.1,IP:::1';

/** What each certificate is for; `names` are those of a server, `days` negative is long past. */
const KINDS = {
  server: { names: OWN_NAMES, by: 'ca' },
  client: { by: 'ca' },
  expired: { names: OWN_NAMES, by: 'ca', days: -1 },
  expiredClient: { by: 'ca', days: -1 },
  wrongHost: { names: 'DNS:another.test,IP:127.0.0.2', by: 'ca' },
  stranger: { names: OWN_NAMES, by: 'otherCa' },
  strangerClient: { by: 'otherCa' },
};

function openssl(folder, ...args) {
  const env = { ...process.env, LD_LIBRARY_PATH: libraries() };
  delete env.LD_PRELOAD; // a sanitizer's
  return run(program('openssl'), args, { cwd: folder, env });
}

function makeAuthority(folder, name) {
  return openssl(folder, 'req', '-x509', ...NEW_KEY, '-days', '30', '-subj', `/CN=${name}`,
    '-keyout', `${name}.key`, '-out', `${name}.crt`);
}

async function makeSigned(folder, name, { names, by, days = 30 }) {
  const extensions = ['basicConstraints=critical,CA:FALSE'];
  if (names !== undefined) extensions.push(`subjectAltName=${names}`);
  await openssl(folder, 'req', ...NEW_KEY, '-subj', `/CN=${name}`, '-keyout', `${name}.key`,
    '-out', `${name}.csr`, ...extensions.flatMap((each) => ['-addext', each]));
  await openssl(folder, 'x509', '-req', '-in', `${name}.csr`, '-CA', `${by}.crt`,
    '-CAkey', `${by}.key`, '-copy_extensions', 'copyall', '-days', `${days}`,
    '-out', `${name}.crt`);
}

/**
 * Makes all of them in `folder`.
 *
 * @returns {Promise<Record<string, { cert: string, key: string, certFile: string,
 *   keyFile: string }>>} ca, otherCa, and each of KINDS
 */
async function makeCertificates(folder) {
  const authorities = ['ca', 'otherCa'];
  await Promise.all(authorities.map((name) => makeAuthority(folder, name)));
  await Promise.all(Object.entries(KINDS).map(([name, kind]) => makeSigned(folder, name, kind)));
  const made = {};
  for (const name of [...authorities, ...Object.keys(KINDS)]) {
    const [certFile, keyFile] = ['crt', 'key'].map((end) => path.join(folder, `${name}.${end}`));
    const [cert, key] = [certFile, keyFile].map((file) => fs.readFileSync(file, 'latin1'));
    made[name] = { cert, key, certFile, keyFile };
  }
  return made;
}

module.exports = { makeCertificates };
