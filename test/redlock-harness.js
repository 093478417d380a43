'use strict';

// What the tests of holdfast/redlock share: servers, clients for them, and what lies on them.

const { Redis } = require('ioredis');
const { until } = require('./helpers');
const { startServer } = require('./redis-servers');

/**
 * To be called in a suite: `count` servers, and Redlocks on them that are ended after each test.
 *
 * @param {number} count
 */
function useServers(count) {
  const scope = { servers: [], clients: [] };
  const ends = [];
  before(async () => {
    scope.servers = await Promise.all(Array.from({ length: count }, () => startServer()));
  });
  after(() => Promise.all(scope.servers.map((server) => server.stop())));
  beforeEach(async () => {
    await scope.all('FLUSHALL');
    scope.clients = scope.servers.map(({ host, port }) => {
      const client = new Redis({ host, port, commandTimeout: 5000 });
      client.on('error', () => {});
      return client;
    });
  });
  afterEach(async () => {
    await Promise.all(ends.splice(0).map((end) => end()));
    for (const client of scope.clients) client.disconnect();
  });
  return Object.assign(scope, {
    /** The answers of all servers to one command. */
    all: (...words) => Promise.all(scope.servers.map((server) => server.send(...words))),
    /** Waits until the answer of each server `fits`: the last may be told after the lock. */
    each: (words, fits, what) => until(async () => (await scope.all(...words)).every(fits), what),
    /** Waits until every server has `value` under the key. */
    has: (key, value) => scope.each(['GET', key], (each) => each === value, `${key} is ${value}`),
    /** Waits until no server has any of the keys. */
    gone: (...keys) => scope.each(['EXISTS', ...keys], (n) => n === 0, `${keys} are gone`),
    /** A Redlock of `Class`, on all servers unless `clients` says which. */
    redlock(Class, settings, clients = scope.clients) {
      // A busy machine is no server that is down. (Redlock itself has no such setting.)
      const connection = clients.length > 1 ? { nodeTimeout: '1s' } : undefined;
      const redlock = new Class(clients, { connection, ...settings });
      // Those who are still waiting are not to keep the test alive.
      ends.push(() => redlock.quit().catch(() => {}));
      return redlock;
    },
    /** The same, when it is connected to all of them. */
    async connected(Class, settings) {
      const redlock = scope.redlock(Class, settings);
      await until(async () => {
        const lock = await redlock.acquire(['warm-up'], 10_000);
        const [last] = [lock.attempts].flat().slice(-1);
        await redlock.release(lock);
        return typeof last === 'number' || (await last).votesAgainst.size === 0;
      }, 'no server is missing');
      return redlock;
    },
  });
}

/** Settings with which a test does not wait for long. */
const QUICK = { retryCount: 2, retryDelay: 5, retryJitter: 2, automaticExtensionThreshold: 100 };

module.exports = { QUICK, useServers };
