'use strict';

// A small shop on node:http. POST /naive/checkout is what people write by hand; POST /checkout is
// the same step with Holdfast. `charge(order)` takes the customer's money and returns a receipt.

const { json } = require('node:stream/consumers');

/** Look whether this order was paid; if not, charge, and note it. Each line is right by itself. */
async function naiveCheckout({ hf, prefix, charge }, id, order) {
  const paid = await hf.kv.get(`${prefix}/${id}`);
  if (paid) return paid.value;
  const receipt = await charge(order);
  await hf.kv.put(`${prefix}/${id}`, receipt);
  return receipt;
}

/** Charge, once for this id, whoever asks and however often; everyone gets the one receipt. */
function checkout({ hf, prefix, charge }, id, order) {
  return hf.once(`${prefix}/${id}`, () => charge(order));
}

const routes = { '/naive/checkout': naiveCheckout, '/checkout': checkout };

/**
 * The shop as a listener for http.createServer.
 *
 * @param {object} shop
 * @param {Holdfast} shop.hf the store
 * @param {string} shop.prefix what its keys begin with
 * @param {(order: object) => Promise<object>} shop.charge
 */
function createShop(shop) {
  return async (request, response) => {
    const answer = (status, body) => {
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify(body));
    };
    try {
      const route = request.method === 'POST' && routes[request.url];
      if (!route) {
        answer(404, { title: 'Not found' });
        return;
      }
      const order = await json(request);
      answer(200, await route(shop, request.headers['idempotency-key'], order));
    } catch (error) {
      answer(500, { title: error.message });
    }
  };
}

module.exports = {
  createShop,
  code: { naive: 'get(id), charge, put(id)', holdfast: 'once(id, charge)' },
};
