'use strict';

// A shop whose POST /checkout charges once, however often a request is repeated.
//
//   node examples/express.js
//   curl -i -H 'Idempotency-Key: order-7' --json '{"cents":990}' localhost:3000/checkout
//
// The second time the same command shows the same receipt, with Idempotent-Replayed: true.

const express = require('express');
const { open } = require('holdfast');
const { idempotency } = require('holdfast/express');

async function main() {
  const hf = await open(process.env.HOLDFAST_URL ?? 'sqlite:./shop.db');
  const app = express();
  app.use(express.json());
  app.use(idempotency(hf));

  app.post('/checkout', async (req, res) => {
    const receipt = await charge(req.body.cents);
    res.status(201).location(`/receipts/${receipt.id}`).json(receipt);
  });

  const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
    console.log(`listening on port ${server.address().port}`);
  });
  process.once('SIGTERM', () => {
    server.close(() => hf.close({ timeout: '10s' }));
    server.closeIdleConnections();
  });
}

let charges = 0;

async function charge(cents) {
  charges += 1;
  console.log(`charge ${charges}: ${cents} cents`);
  return { id: charges, cents };
}

main();
