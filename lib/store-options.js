'use strict';

// The options of open() that are the store's own. They are checked here, and handed on as the named
// settings of the core, which knows what each store takes. What may be secret is in no message.

const { TTL_MAX, TTL_MIN } = require('./binding').constants;
const { duration } = require('./duration');
const {
  checkBoolean, checkFunction, checkInteger, checkOptions, checkPrefix, isPromise, wrongType,
} = require('./validate');

const STORE_OPTIONS = ['tls', 'connectTimeout', 'commandTimeout', 'username', 'password', 'db',
  'prefix', 'waitReplicas', 'allowEviction', 'sentinelUsername', 'sentinelPassword',
  'maxTtl', 'nodeTimeout', 'fencing', 'schema', 'leases', 'pooler',
  'max', 'idleTimeout'];
const TLS_OPTIONS = new Set(['ca', 'cert', 'key', 'servername', 'rejectUnauthorized']);

const TIMEOUT = { min: 10, max: 3600000 };
const NODE_TIMEOUT = { min: 1, max: 3600000 };
const MAX_TTL = { min: TTL_MIN, max: TTL_MAX };
const DB_MAX = 65535;
const REPLICAS_MAX = 16;
const POOL_MAX = 1000;
const SERVERNAME_MAX = 253;

function text(value, name) {
  if (typeof value !== 'string') throw wrongType(name, 'a string', value);
  if (!value.isWellFormed()) throw new RangeError(`${name} must not contain lone surrogates`);
  return value;
}

function flag(value, name) {
  checkBoolean(value, name);
  return String(value);
}

function prefix(value, name) {
  checkPrefix(value, name);
  return value;
}

function whole(max, min = 0) {
  return (value, name) => {
    checkInteger(value, name, min, max);
    return String(value);
  };
}

function passwordText(value, name) {
  if (typeof value === 'string') return text(value, name);
  if (isPromise(value)) checkFunction(value, name);
  throw wrongType(name, 'a string or a function that gives one', value);
}

const timeout = (value, name) => String(duration(value, name, TIMEOUT));

// What makes the text of each setting, but for `tls`, which is several.
const readers = {
  connectTimeout: timeout,
  commandTimeout: timeout,
  username: text,
  password: passwordText,
  db: whole(DB_MAX),
  prefix,
  waitReplicas: whole(REPLICAS_MAX),
  allowEviction: flag,
  sentinelUsername: text,
  sentinelPassword: text,
  maxTtl: (value, name) => String(duration(value, name, MAX_TTL)),
  nodeTimeout: (value, name) => String(duration(value, name, NODE_TIMEOUT)),
  fencing: flag,
  schema: text,
  leases: text,
  pooler: text,
  max: whole(POOL_MAX, 1),
  idleTimeout: timeout,
};

// Certificates or a key: the text itself, as Node's own tls takes it, not the name of a file.
function pem(value, name) {
  if (typeof value !== 'string' && !(value instanceof Uint8Array)) {
    throw wrongType(name, 'a string or a Buffer', value);
  }
  const bytes = Buffer.from(value);
  if (!bytes.includes('-----BEGIN ')) {
    throw new RangeError(`${name} must be PEM, which has a line '-----BEGIN ...-----': ` +
      'of a file, pass what fs.readFileSync() gives');
  }
  return bytes;
}

function authorities(value, name) {
  if (!Array.isArray(value)) return pem(value, name);
  if (value.length === 0) throw new RangeError(`${name} must not be empty`);
  const parts = Array.from(value, (each, i) => pem(each, `${name}[${i}]`));
  return Buffer.concat(parts.flatMap((each) => [each, Buffer.from('\n')]));
}

function servername(value, name) {
  text(value, name);
  if (value === '' || value.length > SERVERNAME_MAX || /[^!-~]/.test(value)) {
    throw new RangeError(`${name} must be a host name or an IP address: ` +
      `1 to ${SERVERNAME_MAX} characters of ASCII without blanks`);
  }
  return value;
}

const tlsReaders = {
  ca: ['tlsCa', authorities],
  cert: ['tlsCert', pem],
  key: ['tlsKey', pem],
  servername: ['tlsServername', servername],
  rejectUnauthorized: ['tlsRejectUnauthorized', flag],
};

function tlsSettings(value, name) {
  if (typeof value === 'boolean') return ['tls', String(value)];
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw wrongType(name, 'true, false or an object', value);
  }
  checkOptions(value, TLS_OPTIONS, name);
  const settings = ['tls', 'true'];
  const given = {};
  for (const [option, [setting, read]] of Object.entries(tlsReaders)) {
    given[option] = value[option];
    if (given[option] === undefined) continue;
    settings.push(setting, read(given[option], `${name}.${option}`));
  }
  for (const [one, other] of [['cert', 'key'], ['key', 'cert']]) {
    if (given[one] !== undefined && given[other] === undefined) {
      throw new TypeError(`${name}.${one} needs ${name}.${other}: a client shows the server both`);
    }
  }
  return settings;
}

/**
 * Reads the options of open() that are the store's.
 *
 * @param {object} options with no other names than open() has
 * @returns {{ settings: (string | Buffer)[], password: Function | undefined }} the settings, names
 *   and values in turn; and the function that gives the password, where there is one
 */
function storePlan(options) {
  const settings = [];
  let password;
  for (const option of STORE_OPTIONS) {
    const value = options[option];
    if (value === undefined) continue;
    const name = `options.${option}`;
    if (option === 'tls') settings.push(...tlsSettings(value, name));
    else if (option === 'password' && typeof value === 'function') password = value;
    else settings.push(option, readers[option](value, name));
  }
  return { settings, password };
}

// The option that a setting came from.
function optionOf(setting) {
  const part = Object.keys(tlsReaders).find((option) => tlsReaders[option][0] === setting);
  return part === undefined ? `options.${setting}` : `options.tls.${part}`;
}

/**
 * Why the core refused one of the settings, as an error of the option that it came from.
 *
 * @param {(string | Buffer)[]} settings
 * @param {string} message of the core, which begins with the name of the setting
 * @returns {Error | null} null if it is about something else
 */
function settingFailure(settings, message) {
  const [, store, unknown] = /^the (\S+) store has no setting "(\w+)"/.exec(message) ?? [];
  if (unknown !== undefined) {
    return new TypeError(`${optionOf(unknown)} is an option that the ${store} store does not have`);
  }
  const word = /^\w+/.exec(message)?.[0];
  const named = settings.some((each, i) => i % 2 === 0 && each === word);
  return named ? new RangeError(`${optionOf(word)}${message.slice(word.length)}`) : null;
}

module.exports = { STORE_OPTIONS, storePlan, settingFailure };
