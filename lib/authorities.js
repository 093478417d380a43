'use strict';

// Whom TLS trusts when nobody says: the system's authorities. Where the system has none, as in the
// slim images of containers, or NODE_EXTRA_CA_CERTS adds to them, those that Node brings along, so
// that what Node's own connections trust is trusted here too.

const fs = require('node:fs');
const tls = require('node:tls');

const ENCRYPTED = /^(rediss|valkeys)(\+\w+)?:/i;
// Where the core looks (csrc/driver/redis/tls-trust.c).
const FOLDERS = ['/etc/ssl/certs', '/etc/pki/tls/certs'];
const FILES = ['/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem', '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem', '/etc/ssl/cert.pem'];

function hasEntries(folder) {
  try {
    return fs.readdirSync(folder).length > 0;
  } catch {
    return false;
  }
}

function systemHasAny() {
  if (process.env.SSL_CERT_FILE || process.env.SSL_CERT_DIR) return true;
  return FILES.some((file) => fs.existsSync(file)) || FOLDERS.some(hasEntries);
}

// As Node does: a file that cannot be read adds nothing.
function extra() {
  try {
    return [fs.readFileSync(process.env.NODE_EXTRA_CA_CERTS, 'utf8')];
  } catch {
    return [];
  }
}

function isEncrypted(url, settings) {
  if (ENCRYPTED.test(url) || /[?&]tls=true\b/.test(url)) return true;
  return settings.some((each, i) => i % 2 === 0 && each === 'tls' && settings[i + 1] === 'true');
}

/**
 * Adds the authorities to settings that need them and name none.
 *
 * @param {string} url
 * @param {(string | Buffer)[]} settings names and values in turn
 * @returns {(string | Buffer)[]} these, or others with one more
 */
function withAuthorities(url, settings) {
  if (!isEncrypted(url, settings)) return settings;
  if (settings.some((each, i) => i % 2 === 0 && each === 'tlsCa')) return settings;
  if (/[?&]tlsCa=/.test(url)) return settings;
  if (!process.env.NODE_EXTRA_CA_CERTS && systemHasAny()) return settings;
  return [...settings, 'tlsRoots', Buffer.from([...tls.rootCertificates, ...extra()].join('\n'))];
}

module.exports = { withAuthorities };
