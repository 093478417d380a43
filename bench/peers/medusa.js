'use strict';

const { optional } = require('./optional');

/**
 * `execute` of @medusajs/locking-postgres, which locks for a transaction, on an EntityManager of
 * MikroORM; null where they are not installed. Its time limit is as long as it may be.
 *
 * @param {string} url
 * @param {number} max connections of the pool
 */
async function openMedusa(url, max) {
  const services = optional('@medusajs/locking-postgres/dist/services/advisory-lock');
  const orm = optional('@mikro-orm/postgresql');
  if (services === null || orm === null) return null;
  const mikro = await orm.MikroORM.init({
    clientUrl: url,
    entities: [],
    discovery: { warnWhenNoEntities: false },
    pool: { min: max, max }, // as of pg-by-hand.js
    connect: false,
  });
  // All but `execute` needs a whole application.
  const provider = Object.create(services.PostgresAdvisoryLockProvider.prototype);
  provider.getManager = () => mikro.em.fork();
  return {
    acquire: (key) => new Promise((resolve, reject) => {
      const done = provider.execute(key, () => new Promise((release) => {
        resolve({ release, over: () => done });
      }), { timeout: 1 });
      done.catch(reject);
    }),
    async release({ release, over }) {
      release();
      await over();
    },
    ping: () => mikro.em.fork().execute('SELECT 1'),
    close: () => mikro.close(true),
  };
}

module.exports = { openMedusa };
