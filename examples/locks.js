'use strict';

// Locks, on a database in a temporary folder. What it prints stands in docs/locks.md.
//
//   node examples/locks.js

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { setImmediate } = require('node:timers/promises');
const { open, LockTimeoutError, StaleFenceError } = require('holdfast');

let mails = 0;
const nextMail = () => setImmediate(`mail ${++mails}`);

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-locks-'));

// Ten withdrawals at once, each of which reads, thinks and writes.
async function oneAtATime(hf) {
  let balance = 100;
  async function withdraw() {
    const before = balance;
    await setImmediate();
    balance = before - 10;
  }

  await Promise.all(Array.from({ length: 10 }, withdraw));
  console.log('without a lock:', balance);

  balance = 100;
  await Promise.all(Array.from({ length: 10 }, () => hf.withLock('account/7', withdraw)));
  console.log('with a lock:', balance);
}

async function oneAttempt(hf) {
  const lock = await hf.lock('import', { note: 'full import' });
  try {
    console.log('import:', await hf.tryLock('import'));

    const info = await hf.inspect('import');
    console.log('held by:', info.holders[0].note, info.holders[0].pid === process.pid);
  } finally {
    await lock.release();
  }
}

async function boundedWait(hf) {
  const lock = await hf.lock('import', { note: 'full import' });
  try {
    await hf.lock('import', { wait: '100ms' });
  } catch (error) {
    if (!(error instanceof LockTimeoutError)) throw error;
    console.log('gave up:', error.code, error.holder.note);
  }
  await lock.release();
}

// Any number may read at a time, one alone may write; and three may work at a time.
async function together(hf) {
  const readers = [await hf.lock('prices', { mode: 'shared' }),
    await hf.lock('prices', { mode: 'shared' })];
  console.log('readers:', (await hf.inspect('prices')).holders.length);
  console.log('a writer beside them:', await hf.tryLock('prices'));
  await Promise.all(readers.map((reader) => reader.release()));

  let working = 0;
  let most = 0;
  async function work() {
    most = Math.max(most, ++working);
    await setImmediate();
    working--;
  }
  await Promise.all(Array.from({ length: 10 }, () => hf.withLock('gpu', { permits: 3 }, work)));
  console.log('more than three at a time:', most > 3);
}

async function twoKeys(hf) {
  const balances = { alice: 100, bob: 100 };
  async function transfer(from, to, amount) {
    await hf.withLock([`account/${from}`, `account/${to}`], async () => {
      const before = { ...balances };
      await setImmediate();
      balances[from] = before[from] - amount;
      balances[to] = before[to] + amount;
    });
  }

  await Promise.all([transfer('alice', 'bob', 30), transfer('bob', 'alice', 10)]);
  console.log('balances:', balances);
}

async function fencedWrite(hf) {
  // Without renewal, to see what a process that stood still too long would see.
  const old = await hf.lock('report', { ttl: '100ms', renew: false });
  const lock = await hf.lock('report', { wait: '5s' });
  await hf.kv.put('report', { by: 'the new holder' }, { fence: lock });
  console.log('old holder:', old.held, old.remaining(), await old.release());

  try {
    await hf.kv.put('report', { by: 'the old holder' }, { fence: old });
  } catch (error) {
    if (!(error instanceof StaleFenceError)) throw error;
    console.log('refused:', error.code);
  }
  console.log('report:', (await hf.kv.get('report')).value);
  await lock.release();
}

async function oneLeads(hf) {
  const mailed = [];
  const leader = hf.leader('mailer', async ({ signal }) => {
    while (!signal.aborted) {
      mailed.push(await nextMail());
      if (mailed.length === 3) leader.stop();
    }
  });
  await leader.done;
  console.log('mailed:', mailed, leader.leading);
}

async function inNamespace(hf) {
  const shop = hf.namespace('shop');
  await shop.withLock('import', async (lock) => {
    console.log('here:', lock.keys[0]);
    for await (const { key, holders } of hf.locks({ prefix: 'shop:' })) {
      console.log('in the store:', key, holders.length);
    }
  });
}

async function main() {
  const hf = await open(`sqlite:${path.join(folder, 'holdfast.db')}`);
  try {
    await oneAtATime(hf);
    await oneAttempt(hf);
    await boundedWait(hf);
    await together(hf);
    await twoKeys(hf);
    await fencedWrite(hf);
    await oneLeads(hf);
    await inNamespace(hf);
  } finally {
    await hf.close();
    fs.rmSync(folder, { recursive: true });
  }
}

main();
