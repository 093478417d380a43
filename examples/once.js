'use strict';

// Operations that run once, on a database in a temporary folder. What it prints stands in
// docs/once.md.
//
//   node examples/once.js

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { open, InProgressError, MismatchError } = require('holdfast');

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-once-'));

let charges = 0;

async function charge(order) {
  charges += 1;
  return { order, receipt: `R-${charges}` };
}

async function duplicates(hf) {
  const calls = Array.from({ length: 50 }, () => hf.once('charge/order-7', () => charge(7)));
  const receipts = await Promise.all(calls);
  console.log('50 calls:', charges, 'charge,', new Set(receipts.map((r) => r.receipt)));

  const later = await hf.once('charge/order-7', { detail: true }, () => charge(7));
  console.log('later:', later.value.receipt, later.replayed);
}

async function wrappedFunction(hf) {
  const chargeOnce = hf.idempotent(charge, { key: (order) => `charge/order-${order}` });
  console.log('wrapped:', await chargeOnce(8), await chargeOnce(8));
}

async function otherInput(hf) {
  const pay = (cents) => hf.once('pay/9', { fingerprint: { cents } }, () => `paid ${cents}`);
  console.log(await pay(990));
  try {
    await pay(100);
  } catch (error) {
    if (!(error instanceof MismatchError)) throw error;
    console.log('another input:', error.code);
  }
}

async function nightlyJob(hf) {
  // Every process of the service does this at two o'clock.
  const night = '2026-11-22';
  const results = await Promise.all(['A', 'B', 'C'].map(async (name) => {
    try {
      await hf.once(`nightly-report/${night}`, { wait: 0, ttl: '7d' }, () => report(name));
      return 'ran';
    } catch (error) {
      if (!(error instanceof InProgressError)) throw error;
      return 'left it to another';
    }
  }));
  console.log('nightly job:', results.sort());
}

async function report() {
  await sleep(100);
}

async function failures(hf) {
  let attempts = 0;
  async function flaky() {
    attempts += 1;
    if (attempts === 1) throw new Error('card reader offline');
    return 'charged';
  }

  await hf.once('charge/order-10', flaky).catch((error) => console.log('first:', error.message));
  console.log('again:', await hf.once('charge/order-10', flaky));

  const declined = () => {
    throw new Error('card declined');
  };
  const keep = { keepErrors: true };
  await hf.once('charge/order-11', keep, declined).catch(() => {});
  await hf.once('charge/order-11', keep, declined).catch((error) => {
    console.log('kept:', error.message);
  });
  const record = await hf.record('charge/order-11');
  console.log('record:', record.state, record.error.message);
  console.log('forgotten:', await hf.forget('charge/order-11'));
}

async function main() {
  const hf = await open(`sqlite:${path.join(folder, 'holdfast.db')}`);
  try {
    await duplicates(hf);
    await wrappedFunction(hf);
    await otherInput(hf);
    await nightlyJob(hf);
    await failures(hf);
  } finally {
    await hf.close();
    fs.rmSync(folder, { recursive: true });
  }
}

main();
