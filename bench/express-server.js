'use strict';

// The shop of the suite `express`, in a process of its own: one route bare, the same protected.

const path = require('node:path');

const express = require('express');
const { open } = require('holdfast');
const { idempotency } = require('holdfast/express');

function checkout(req, res) {
  res.status(201).json({ order: 17, amount: req.body.amount, state: 'paid' });
}

async function main(folder) {
  const hf = await open(`sqlite:${path.join(folder, 'shop.db')}`);
  const app = express();
  let usage = process.cpuUsage();
  app.use(express.json());
  app.post('/bare', checkout);
  app.post('/protected', idempotency(hf), checkout);
  const server = app.listen(0, '127.0.0.1', () => process.send(server.address().port));
  // Asked for it, tells the CPU time since it was asked before, in microseconds.
  process.on('message', () => {
    const { user, system } = process.cpuUsage(usage);
    usage = process.cpuUsage();
    process.send(user + system);
  });
  process.on('disconnect', async () => {
    server.close();
    server.closeAllConnections();
    await hf.close();
  });
}

main(process.argv[2]);
