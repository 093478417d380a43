'use strict';

const { Client } = require('pg');

const { optional } = require('./optional');

/** The package advisory-lock, as it comes; null where it is not installed. */
async function openAdvisoryLock(url) {
  const module = optional('advisory-lock');
  if (module === null) return null;
  const createMutex = (module.default ?? module)(url);
  const client = new Client({ connectionString: url }); // for ping()
  await client.connect();
  return {
    async acquire(key) {
      const mutex = createMutex(key);
      const unlock = await mutex.lock();
      return unlock ?? mutex.unlock;
    },
    release: (unlock) => unlock(),
    ping: () => client.query('SELECT 1'),
    close: () => client.end(),
  };
}

module.exports = { openAdvisoryLock };
