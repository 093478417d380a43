'use strict';

// redlock, over ioredis, as a rival of Holdfast on the same Redis. Both are taken from the project
// of whoever asks for the proof: what is shown is the lock that they run, in its version.
//
// It is used as its documentation says and with its own settings, but that who waits never gives
// up.

const fs = require('node:fs');
const path = require('node:path');
const { createRequire } = require('node:module');

const MODULES = ['redlock', 'ioredis'];
const INSTALL = 'npm install redlock ioredis';
const WAIT = { retryCount: -1 };
const SCHEMES = ['redis:', 'rediss:', 'unix:'];

/** The version of the package that a file belongs to. */
function versionOf(name, file) {
  for (let folder = path.dirname(file); folder !== path.dirname(folder);) {
    const about = path.join(folder, 'package.json');
    const found = fs.existsSync(about) ? JSON.parse(fs.readFileSync(about, 'utf8')) : {};
    if (found.name === name) return String(found.version).replace(/^v/, '');
    folder = path.dirname(folder);
  }
  return 'unknown';
}

/**
 * Finds what is needed, from a folder of the user's project.
 *
 * @param {string} folder
 * @returns {{ title: string, modules: Record<string, string> }} its name with its version, and
 *   where its modules are
 */
function find(folder) {
  const { resolve } = createRequire(path.join(folder, 'package.json'));
  const modules = {};
  const missing = [];
  for (const name of MODULES) {
    try {
      modules[name] = resolve(name);
    } catch (error) {
      if (error.code !== 'MODULE_NOT_FOUND') throw error;
      missing.push(name);
    }
  }
  if (missing.length > 0) {
    throw new Error(`${missing.join(' and ')} cannot be found from ${folder}. What is proved is ` +
      `the redlock of your own project: run this in its folder, or there first '${INSTALL}'`);
  }
  const [redlock, ioredis] = MODULES.map((name) => `${name} ${versionOf(name, modules[name])}`);
  return { title: `${redlock} on ${ioredis}`, modules };
}

/** The parameters of a URL, as Holdfast reads them. */
function parametersOf(url) {
  const pairs = url.search.slice(1).split('&').filter(Boolean).map((pair) => {
    const at = pair.indexOf('=');
    return [pair.slice(0, at), decodeURIComponent(pair.slice(at + 1))];
  });
  return Object.fromEntries(pairs);
}

function tlsOf({ protocol }, parameters) {
  if (protocol !== 'rediss:' && parameters.tls !== 'true') return {};
  return {
    tls: {
      ca: parameters.tlsCa,
      cert: parameters.tlsCert,
      key: parameters.tlsKey,
      servername: parameters.tlsServername,
      rejectUnauthorized: parameters.tlsRejectUnauthorized !== 'false',
    },
  };
}

/** What Holdfast's URL of one server says, as ioredis takes it. */
function addressOf(text) {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (!SCHEMES.includes(url?.protocol)) {
    throw new RangeError('url: redlock is played against on one Redis server; give its URL, ' +
      'such as redis://127.0.0.1:6379');
  }
  const parameters = parametersOf(url);
  const place = url.protocol === 'unix:' ? { path: decodeURIComponent(url.pathname) } : {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: Number(url.port || 6379),
    db: Number(url.pathname.slice(1) || 0),
  };
  const username = parameters.username ?? decodeURIComponent(url.username);
  const password = parameters.password ?? decodeURIComponent(url.password);
  return {
    ...place,
    ...tlsOf(url, parameters),
    ...('db' in parameters && { db: Number(parameters.db) }),
    ...(username && { username }),
    ...(password && { password }),
  };
}

/** How the names of the user's own keys begin, as the URL says it. */
function prefixOf(url) {
  addressOf(url); // says what is wrong with it
  return parametersOf(new URL(url)).prefix ?? '';
}

function connect({ ioredis }, url) {
  const module = require(ioredis);
  const client = new (module.default ?? module)(addressOf(url));
  client.on('error', () => {}); // what is asked of it fails, which says it
  return client;
}

// Version 5 has using(), which extends the lock for as long as the work takes.
function usingOf(redlock) {
  return async (key, ttl, work) => {
    let worked = false;
    try {
      return await redlock.using([key], ttl, WAIT, async () => {
        const result = await work();
        worked = true;
        return result;
      });
    } catch (error) {
      if (worked) return undefined; // it could not release what was another's by then
      throw error;
    }
  };
}

// Version 4 leaves that to the user, who does it by a timer.
function extendingOf(redlock) {
  return async (key, ttl, work) => {
    const lock = await redlock.acquireWithOptions([key], ttl, WAIT);
    const timer = setInterval(() => lock.extend(ttl).catch(() => {}), ttl / 2);
    try {
      return await work();
    } finally {
      clearInterval(timer);
      await lock.unlock().catch(() => {}); // as above
    }
  };
}

/**
 * Opens it, as a process of a trial uses it.
 *
 * @param {Record<string, string>} modules as find() has found them
 * @param {string} url
 */
function open(modules, url) {
  const client = connect(modules, url);
  const module = require(modules.redlock);
  const redlock = new (module.default ?? module)([client]);
  const isOld = typeof redlock.using !== 'function';
  return {
    /** Works with the lock, which is extended meanwhile. */
    hold: isOld ? extendingOf(redlock) : usingOf(redlock),
    take: (key, ttl) => (isOld ? redlock.acquireWithOptions([key], ttl, WAIT)
      : redlock.acquire([key], ttl, WAIT)),
    release: (lock) => redlock.release(lock),
    close: () => client.quit(),
  };
}

/** Removes keys from the server. */
async function remove(modules, url, names) {
  const client = connect(modules, url);
  try {
    await client.del(...names);
  } finally {
    client.disconnect();
  }
}

/** Trials in the order of the page; those of one group play at the same time. */
const groups = [['blocked', 'killed'], ['handover']];

module.exports = { name: 'redlock', groups, find, prefixOf, open, remove };
