'use strict';

// Where the clients that users of redlock have are connected to, as a URL of Holdfast: it opens
// connections of its own. A message names a client by its place, and no password.

const { urlOf } = require('./redlock-urls');
const { typeName } = require('./validate');

const LOCAL = '127.0.0.1';
const PORT = 6379;
const SENTINEL_PORT = 26379;

// What decides whom a client trusts, or as whom it shows itself, and open() cannot be told.
const UNREADABLE_TLS = ['pfx', 'passphrase', 'secureContext', 'checkServerIdentity', 'crl',
  'pskCallback'];
const WAY_OUT = 'give its URL instead, with what else it needs in settings.connection';

function present(value) {
  return value !== undefined && value !== null && value !== '';
}

function isObject(value) {
  return typeof value === 'object' && value !== null;
}

function textOf(value, name) {
  if (!present(value)) return '';
  if (typeof value === 'string') return value;
  throw new TypeError(`${name} cannot be used: it is ${typeName(value)}, no string; ${WAY_OUT}`);
}

// Certificates or a key: text or bytes, or of authorities an array of them.
function pemOf(value, name) {
  const list = Array.isArray(value) ? value : [value];
  for (const each of list) {
    if (typeof each === 'string' || each instanceof Uint8Array) continue;
    throw new TypeError(`${name} cannot be used: it is neither a string nor a Buffer; ${WAY_OUT}`);
  }
  return value;
}

/** What of the options of node:tls Holdfast has, too. `name` is what messages call them. */
function readTls(given, name) {
  if (!isObject(given)) return {};
  for (const option of UNREADABLE_TLS) {
    if (present(given[option])) {
      throw new TypeError(`${name}.${option} is more than Holdfast can take over: ${WAY_OUT}`);
    }
  }
  const tls = {};
  for (const option of ['ca', 'cert', 'key']) {
    if (present(given[option])) tls[option] = pemOf(given[option], `${name}.${option}`);
  }
  tls.servername = textOf(given.servername, `${name}.servername`);
  tls.rejectUnauthorized = given.rejectUnauthorized !== false;
  return tls;
}

function refuseFunctions(options, functions, name) {
  for (const option of functions) {
    if (present(options[option])) {
      throw new TypeError(`${name}.${option} says where to connect, in a way that Holdfast ` +
        `cannot follow: ${WAY_OUT}`);
    }
  }
}

/** A client of ioredis that is no Cluster. */
function readIoredis({ options }, name) {
  const of = `${name}.options`;
  refuseFunctions(options, ['Connector', 'natMap'], of);
  const node = {
    db: options.db,
    username: textOf(options.username, `${of}.username`),
    password: textOf(options.password, `${of}.password`),
    prefix: textOf(options.keyPrefix, `${of}.keyPrefix`),
    tls: options.tls ? readTls(options.tls, `${of}.tls`) : null,
  };
  if (present(options.sentinels)) return readSentinels(options, node, of);
  if (present(options.path)) return { ...node, path: options.path };
  return { ...node, hosts: [{ host: options.host, port: options.port ?? PORT }] };
}

function readSentinels(options, node, of) {
  if (present(options.role) && options.role !== 'master') {
    throw new RangeError(`${of}.role must be 'master': locks are taken where writes go`);
  }
  // ioredis encrypts the connections to the two kinds of servers by an option each.
  const encrypted = Boolean(options.enableTLSForSentinelMode && node.tls);
  if (encrypted !== Boolean(options.sentinelTLS)) {
    throw new RangeError(`${of}: Holdfast encrypts the connections to the Sentinels and to the ` +
      'servers, or neither; set both sentinelTLS and enableTLSForSentinelMode, or none');
  }
  return {
    ...node,
    tls: encrypted ? node.tls : null,
    kind: 'sentinel',
    master: textOf(options.name, `${of}.name`),
    hosts: options.sentinels.map(({ host, port }) => ({ host, port: port ?? SENTINEL_PORT })),
    sentinelUsername: textOf(options.sentinelUsername, `${of}.sentinelUsername`),
    sentinelPassword: textOf(options.sentinelPassword, `${of}.sentinelPassword`),
  };
}

// A URL, "host:port", a port of this machine, or an object: what `new Cluster([...])` takes.
function startupNode(given, name) {
  if (isObject(given)) {
    return { ...given, host: given.host ?? LOCAL, port: given.port ?? PORT };
  }
  if (/^\d+$/.test(String(given))) return { host: LOCAL, port: Number(given) };
  const text = String(given);
  try {
    const url = new URL(text.includes('://') ? text : `redis://${text}`);
    return {
      host: url.hostname || LOCAL,
      port: url.port === '' ? PORT : Number(url.port),
      username: decodeURIComponent(url.username),
      password: decodeURIComponent(url.password),
      tls: url.protocol === 'rediss:' ? {} : undefined,
    };
  } catch {
    // What it says may have a password in it.
    throw new TypeError(`${name} is not a node that can be understood: ${WAY_OUT}`);
  }
}

/** A Cluster of ioredis. */
function readIoredisCluster(client, name) {
  const { options } = client;
  const shared = options.redisOptions ?? {};
  refuseFunctions(options, ['natMap'], `${name}.options`);
  const nodes = Array.from(client.startupNodes, (each, i) =>
    startupNode(each, `${name}.startupNodes[${i}]`));
  const [first = {}] = nodes;
  const of = `${name}.options.redisOptions`;
  const tls = shared.tls ?? first.tls;
  return {
    kind: 'cluster',
    hosts: nodes.map(({ host, port }) => ({ host, port })),
    username: textOf(shared.username ?? first.username, `${of}.username`),
    password: textOf(shared.password ?? first.password, `${of}.password`),
    prefix: textOf(options.keyPrefix ?? shared.keyPrefix, `${name}.options.keyPrefix`),
    tls: tls ? readTls(tls, `${of}.tls`) : null,
  };
}

/** A client of node-redis from version 4: what its URL said has come into its options. */
function readNodeRedis(client, name) {
  const options = client.options ?? {};
  const socket = options.socket ?? {};
  const of = `${name}.options`;
  const isStatic = present(options.username) || present(options.password);
  if (present(options.credentialsProvider) && !isStatic) {
    throw new TypeError(`${of}.credentialsProvider cannot be taken over: give its URL instead, ` +
      'with settings.connection.username and .password, which may be a function');
  }
  const node = {
    db: options.database,
    username: textOf(options.username, `${of}.username`),
    password: textOf(options.password, `${of}.password`),
    prefix: '',
    tls: socket.tls ? readTls(socket, `${of}.socket`) : null,
  };
  if (present(socket.path)) return { ...node, path: socket.path };
  return { ...node, hosts: [{ host: socket.host || 'localhost', port: socket.port ?? PORT }] };
}

/** A client of node_redis 2 or 3. */
function readOldNodeRedis(client, name) {
  const { options, connection_options: connection } = client;
  const of = `${name}.options`;
  const node = {
    db: client.selected_db ?? options.db,
    username: textOf(client.auth_user ?? options.user, `${of}.user`),
    password: textOf(client.auth_pass ?? options.password, `${of}.password`),
    prefix: textOf(options.prefix, `${of}.prefix`),
    tls: options.tls ? readTls(options.tls, `${of}.tls`) : null,
  };
  if (present(connection.path)) return { ...node, path: connection.path };
  return { ...node, hosts: [{ host: connection.host, port: connection.port ?? PORT }] };
}

function readUrl(url) {
  const query = url.includes('?') ? url.slice(url.indexOf('?') + 1) : '';
  return {
    kind: /^(redis|valkey)s?\+cluster:/i.test(url) ? 'cluster' : 'url',
    url,
    isRedis: /^((redis|valkey)s?(\+\w+)?|unix):/i.test(url),
    prefix: new URLSearchParams(query).get('prefix') ?? '',
  };
}

/** Where one client is connected to. */
function readClient(client, name) {
  if (typeof client === 'string') return readUrl(client);
  if (client instanceof URL) return readUrl(client.href);
  if (isObject(client)) {
    if (client.isCluster === true && Array.isArray(client.startupNodes)) {
      return readIoredisCluster(client, name);
    }
    if (isObject(client.connection_options) && isObject(client.options)) {
      return readOldNodeRedis(client, name);
    }
    if (isObject(client.options) && typeof client.defineCommand === 'function') {
      return readIoredis(client, name);
    }
    if ('options' in client && typeof client.sendCommand === 'function') {
      return readNodeRedis(client, name);
    }
  }
  const what = isObject(client)
    ? 'an object whose options cannot be read (a Cluster, a Sentinel or a pool of node-redis?)'
    : typeName(client);
  throw new TypeError(`${name} must be a client of ioredis or node-redis, or a URL such as ` +
    `'redis://host:6379', 'redis+sentinel://host/name' or 'redis+cluster://host'; got ${what}`);
}

function certificatesOf(node) {
  const { ca, cert, key } = node.tls ?? {};
  return { ca, cert, key };
}

// Buffers and strings with the same text are the same.
function comparable(certificates) {
  const text = (value) => (value === undefined ? null : Buffer.from(value).toString('latin1'));
  return JSON.stringify(Object.values(certificates).map((value) =>
    (Array.isArray(value) ? value.map(text) : [text(value)])));
}

function checkSame(nodes, read, what) {
  const [first, ...others] = nodes.map(read);
  const i = others.indexOf(others.find((each) => each !== first));
  if (i < 0) return;
  throw new RangeError(`clients[0] and clients[${i + 1}] have different ${what}: Holdfast opens ` +
    'the connections to all nodes with the same; give settings.connection what is for all');
}

/** The options of open() that the clients make necessary. */
function optionsOf(nodes, connection) {
  const options = {};
  if (nodes.every((node) => node.isRedis !== false)) {
    if (connection.prefix === undefined) checkSame(nodes, ({ prefix }) => prefix, 'key prefixes');
    options.prefix = nodes[0].prefix;
  }
  if (connection.tls === undefined) {
    const none = comparable({ ca: undefined, cert: undefined, key: undefined });
    const certificates = (node) => comparable(certificatesOf(node));
    checkSame(nodes, certificates, 'TLS certificates');
    if (certificates(nodes[0]) !== none) {
      options.tls = Object.fromEntries(Object.entries(certificatesOf(nodes[0]))
        .filter(([, value]) => value !== undefined));
    }
  }
  return { ...options, ...connection };
}

function checkConnection(connection) {
  if (connection === undefined || connection === null) return {};
  if (!isObject(connection) || Array.isArray(connection)) {
    throw new TypeError(`settings.connection must be an object; got ${typeName(connection)}`);
  }
  if ('maxTtl' in connection) {
    throw new TypeError('settings.connection.maxTtl: it is a setting by itself, settings.maxTtl');
  }
  return connection;
}

/**
 * What Holdfast has to open for these clients.
 *
 * @param {readonly unknown[]} clients of ioredis or node-redis, or URLs; at least one
 * @param {object} [connection] options of open() that count more than what the clients say
 * @returns {{ url: string | string[], options: object }} several URLs are a quorum
 * @throws {TypeError} if one of them cannot be understood, or has what Holdfast cannot take over
 * @throws {RangeError} if they differ in what must be the same for all
 */
function readClients(clients, connection) {
  const more = checkConnection(connection);
  const nodes = clients.map((client, i) => readClient(client, `clients[${i}]`));
  if (nodes.length > 1) {
    const i = nodes.findIndex(({ kind, isRedis }) => kind === 'cluster' || isRedis === false);
    if (i >= 0) {
      throw new RangeError(`clients[${i}] cannot be one of several: the nodes of a quorum are ` +
        'single servers, or masters that Sentinels name');
    }
  }
  const urls = nodes.map(urlOf);
  return { url: urls.length === 1 ? urls[0] : urls, options: optionsOf(nodes, more) };
}

module.exports = { readClients };
