'use strict';

const { randomBytes } = require('node:crypto');

const Redis = require('ioredis');

/**
 * The scripts of Holdfast's store, sent with ioredis, which puts what is asked for in one turn of
 * the loop into one pipeline. It cannot wait, renews nothing and keeps no account of anything: it
 * is what a user would write on ioredis with the same scripts, and no more.
 *
 * @param {number} port of the server on this machine
 * @param {{ take: Function, drop: Function }} recorded see recorded.js
 */
function openIoredis(port, { take, drop }) {
  const client = new Redis({ host: '127.0.0.1', port, enableAutoPipelining: true });

  async function run(command, key, token) {
    const [name, ...words] = command(key, token);
    const answer = await client[name.toLowerCase()](...words);
    if (!command.succeeded(answer)) throw new Error(`${name} of ${key} answered ${answer}`);
  }

  return {
    async acquire(key) {
      const token = randomBytes(16).toString('hex');
      await run(take, key, token);
      return { key, token };
    },
    release: ({ key, token }) => run(drop, key, token),
    ping: () => client.ping(),
    close: () => client.quit(),
  };
}

module.exports = { openIoredis };
