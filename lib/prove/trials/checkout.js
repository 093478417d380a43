'use strict';

// An impatient client sends one checkout fifty times at once, to two copies of a shop.

const http = require('node:http');
const { randomUUID } = require('node:crypto');
const { once } = require('node:events');
const { setTimeout: sleep } = require('node:timers/promises');
const { times, count } = require('../words');

const DUPLICATES = 50;
const SHOPS = 2;
const RETRY_MS = 250; // a shop may say "come back later"; this client does not wait that long
const TRIES = 80;
const BANK_MS = 300; // how long the bank takes for a charge
const ROUTE = { naive: '/naive/checkout', holdfast: '/checkout' };
const ID = 'order-1001';

const acts = {
  /** Opens a shop, which stays open as long as the process; resolves with its port. */
  async openShop({ hf, sink, file, prefix }) {
    const charge = async (order) => {
      await sleep(BANK_MS);
      const receipt = randomUUID();
      sink.append({ what: 'charge', amount: order.amount, receipt, pid: process.pid });
      return { receipt };
    };
    const { createShop } = require(file);
    const server = http.createServer(createShop({ hf, prefix, charge }));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return server.address().port;
  },
};

/** One request of the client, repeated for as long as the shop says that it works on it. */
async function send(url, signal) {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'idempotency-key': ID },
      body: JSON.stringify({ amount: 4200 }),
      signal,
    });
    const { receipt } = await response.json();
    if (response.status !== 409 || attempt === TRIES) {
      return { status: response.status, receipt, attempt };
    }
    await sleep(RETRY_MS, undefined, { signal });
  }
}

async function play(stage, side, shop) {
  const players = await stage.start(SHOPS);
  const sink = stage.sink(side);
  const prefix = stage.key(side, 'orders');
  stage.key(side, `orders/${ID}`);
  const ports = await Promise.all(players.map(
    (player) => player.perform('openShop', { sink: sink.file, file: shop, prefix }),
  ));
  const answers = await Promise.all(Array.from({ length: DUPLICATES }, (_, i) =>
    send(`http://127.0.0.1:${ports[i % SHOPS]}${ROUTE[side]}`, stage.signal)));
  await stage.dismiss(players);
  const good = answers.filter(({ status }) => status === 200);
  return {
    requests: DUPLICATES,
    charges: sink.count('charge'),
    answered: good.length,
    receipts: new Set(good.map(({ receipt }) => receipt)).size,
    cameBack: answers.filter(({ attempt }) => attempt > 1).length,
  };
}

module.exports = {
  name: 'checkout',
  title: `${DUPLICATES} duplicates of one checkout, at once, to ${SHOPS} copies of a shop`,
  code: { naive: 'get(id), charge, put(id)', holdfast: 'once(id, charge)' },
  acts,

  async run(stage, { shop }) {
    return {
      naive: await play(stage, 'naive', shop),
      holdfast: await play(stage, 'holdfast', shop),
    };
  },

  check({ requests, charges, answered, receipts }) {
    const broken = [];
    if (charges !== 1) broken.push(`one order was charged ${times(charges)}`);
    if (answered !== requests) {
      broken.push(`${requests - answered} of ${requests} requests got no receipt`);
    }
    if (receipts > 1) broken.push(`one order has ${receipts} different receipts`);
    return broken;
  },

  tell({ charges, answered, receipts }) {
    return [
      ['card charged', times(charges)],
      ['answers', `${answered}, with ${count(receipts, 'receipt')}`],
    ];
  },
};
