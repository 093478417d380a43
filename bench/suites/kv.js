'use strict';

// Values: durable writes of one commit each, and reads.

const { printDisk, runDurable } = require('../durable');

const VALUE = { item: 'lamp', stock: 5, tags: ['new', 'green'] };
const KEYS = 64;

const put = (store) => (lane, n) => store.put(`value-${lane}-${n % KEYS}`, VALUE);
const get = (store) => (lane, n) => store.get(`value-${lane}-${n % KEYS}`);
const increment = (store) => () => store.increment('counter', 1);

const OPERATIONS = [
  { title: 'put', ours: (hf) => put(hf.kv), theirs: put },
  { title: 'increment of one value', ours: (hf) => increment(hf.kv), theirs: increment },
  { title: 'get', ours: (hf) => get(hf.kv), theirs: get },
];

async function run(context) {
  printDisk(context.folder);
  return { results: await runDurable(context, OPERATIONS), aims: [] };
}

module.exports = { about: 'values: durable writes, reads', run };
