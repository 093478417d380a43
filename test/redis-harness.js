'use strict';

// What the tests of stores on Redis share: stores that are closed again, and looks at the server
// that Holdfast does not know of.

const assert = require('node:assert/strict');
const { open } = require('..');
const { until } = require('./helpers');

/**
 * To be called in a suite: an open() whose stores are closed after each test.
 *
 * @returns {(url: string, options?: object) => Promise<object>}
 */
function useStores() {
  const stores = [];
  afterEach(() => Promise.all(stores.splice(0).map((hf) => hf.close({ timeout: 0 }))));
  return async (url, options) => {
    const hf = await open(url, options);
    stores.push(hf);
    return hf;
  };
}

/** The error that a promise rejects with. */
function failure(promise) {
  return promise.then(() => assert.fail('it did not fail'), (error) => error);
}

/** The names of the keys of a server, or of one of its databases. */
async function keysOf(server, pattern = '*', db = 0) {
  const connection = server.connect(server.login);
  if (db !== 0) await connection.send('SELECT', db);
  const keys = await connection.send('KEYS', pattern);
  connection.close();
  return keys.sort();
}

/** Who is connected to a server, by the names that clients give themselves; not the tests. */
async function clientsOf(server) {
  const list = await server.send('CLIENT', 'LIST');
  return [...list.matchAll(/ name=(holdfast\S*)/g)].map(([, name]) => name).sort();
}

/** Waits until just those are connected. */
function untilClients(server, names) {
  const wanted = [...names].sort().join();
  return until(async () => (await clientsOf(server)).join() === wanted,
    `there are just the connections ${wanted}`);
}

module.exports = { clientsOf, failure, keysOf, untilClients, useStores };
