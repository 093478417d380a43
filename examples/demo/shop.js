'use strict';

// A small shop on Express. POST /naive/checkout is what people write by hand; POST /checkout is
// made idempotent by one line. `charge(order)` takes the customer's money and returns a receipt.

const express = require('express');
const { idempotency } = require('holdfast/express');

/**
 * The shop as an Express application. `hf` is the store, `prefix` what the shop's keys begin
 * with.
 */
function createShop({ hf, prefix, charge }) {
  const app = express();
  app.use(express.json());

  // Look whether this order was paid; if not, charge, and note it. Each line is right by itself.
  app.post('/naive/checkout', async (req, res) => {
    const key = `${prefix}/${req.get('Idempotency-Key')}`;
    const paid = await hf.kv.get(key);
    if (paid) {
      res.json(paid.value);
      return;
    }
    const receipt = await charge(req.body);
    await hf.kv.put(key, receipt);
    res.json(receipt);
  });

  // The same route with Holdfast: the handler need not know that there are duplicates.
  app.post('/checkout', idempotency(hf, { required: true }), async (req, res) => {
    res.json(await charge(req.body));
  });

  return app;
}

module.exports = {
  createShop,
  code: { naive: 'get(id), charge, put(id)', holdfast: 'idempotency(hf), charge' },
};
