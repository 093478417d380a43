'use strict';

// Values that change only when their condition holds, on a database in a temporary folder. What it
// prints stands in docs/values.md.
//
//   node examples/values.js

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { open, BoundsError, ConflictError } = require('holdfast');

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-values-'));

async function versions(hf) {
  await hf.kv.create('settings', { theme: 'light' });

  // Two editors open the same settings, and save them one after the other.
  const anna = await hf.kv.get('settings');
  const ben = await hf.kv.get('settings');
  await hf.kv.put('settings', { ...anna.value, theme: 'dark' }, { version: anna.version });
  try {
    await hf.kv.put('settings', { ...ben.value, font: 'serif' }, { version: ben.version });
  } catch (error) {
    if (!(error instanceof ConflictError)) throw error;
    console.log('second editor:', error.code);
  }
  console.log('settings:', (await hf.kv.get('settings')).value);
}

async function update(hf) {
  const add = (name) => hf.kv.update('guests', (guests = []) => [...guests, name]);
  await Promise.all(['Anna', 'Ben', 'Cleo'].map(add));
  const { value } = await hf.kv.get('guests');
  console.log('guests:', value.sort());
}

async function stock(hf) {
  let sold = 0;
  await Promise.all(Array.from({ length: 20 }, async () => {
    try {
      await hf.kv.increment('stock/mug', -1, { initial: 5, min: 0 });
      sold += 1;
    } catch (error) {
      if (!(error instanceof BoundsError)) throw error;
    }
  }));
  console.log('sold:', sold, 'left:', (await hf.kv.get('stock/mug')).value);
}

// A debit that may be tried again: the balance and the orders it has paid change in one write.
async function repeatableDebit(hf) {
  await hf.kv.create('account/7', { cents: 2000, paid: [] });

  const debit = (order, cents) => hf.kv.update('account/7', (account) => {
    if (account.paid.includes(order)) return account;
    if (account.cents < cents) throw new Error('not enough');
    return { cents: account.cents - cents, paid: [...account.paid, order] };
  });

  await debit('order-1', 990);
  await debit('order-1', 990);
  console.log('after two tries:', (await hf.kv.get('account/7')).value.cents);
  await debit('order-2', 5000).catch((error) => console.log('order-2:', error.message));
}

async function main() {
  const hf = await open(`sqlite:${path.join(folder, 'holdfast.db')}`);
  try {
    await versions(hf);
    await update(hf);
    await stock(hf);
    await repeatableDebit(hf);
  } finally {
    await hf.close();
    fs.rmSync(folder, { recursive: true });
  }
}

main();
