'use strict';

// What was written for redlock 5, and for redlock 4, on holdfast/redlock: one Redis, or a quorum of
// several that do not know of each other.
//
//   REDIS_URLS=redis://10.0.0.1,redis://10.0.0.2,redis://10.0.0.3 node examples/redlock.js

const { Redis } = require('ioredis');
const Redlock = require('holdfast/redlock');

const urls = (process.env.REDIS_URLS ?? 'redis://127.0.0.1:6379').split(',');
const clients = urls.map((url) => new Redis(url));
const redlock = new Redlock(clients, { retryCount: -1, retryDelay: 20, retryJitter: 10 });

// Stands for a database: what is read may have changed by the time it is written.
const accounts = { ann: 100, bob: 100 };
const read = async (name) => accounts[name];
const write = async (name, cents) => {
  accounts[name] = cents;
};

// As redlock 5 has it: the lock lasts until the routine has ended.
function transfer(from, to, cents) {
  return redlock.using([`account:${from}`, `account:${to}`], 5000, async (signal) => {
    const [had, has] = [await read(from), await read(to)];
    if (signal.aborted) throw signal.error;
    await write(from, had - cents);
    await write(to, has + cents);
  });
}

// As redlock 4 has it: the lock lasts for a second, unless it is extended.
async function pay(name, cents) {
  const lock = await redlock.lock(`account:${name}`, 1000);
  try {
    await lock.extend(2000);
    await write(name, await read(name) - cents);
  } finally {
    await lock.unlock();
  }
}

async function main() {
  const transfers = Array.from({ length: 10 }, (_, i) =>
    (i % 2 === 0 ? transfer('ann', 'bob', 30) : transfer('bob', 'ann', 20)));
  await Promise.all([...transfers, pay('ann', 5), pay('bob', 5)]);
  console.log('ann:', accounts.ann);
  console.log('bob:', accounts.bob);
  await redlock.quit();
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
