'use strict';

// Operations that run once: a durable claim before, a durable result after.

const { printDisk, runDurable } = require('../durable');

const KEYS = 4; // of a lane, replayed again and again

function work() {
  return { order: 17, state: 'paid' };
}

// Fresh keys for every operation of every round.
function keys(prefix) {
  let n = 0;
  return () => `${prefix}-${n++}`;
}

const OPERATIONS = [
  {
    title: 'first run (2 commits)',
    ours(hf) {
      const next = keys('first');
      return () => hf.once(next(), work);
    },
    theirs(table) {
      const next = keys('first');
      return () => table.once(next(), work);
    },
  },
  {
    title: 'replay',
    ours: (hf) => (lane, n) => hf.once(`replay-${lane}-${n % KEYS}`, work),
    theirs: (table) => (lane, n) => table.once(`replay-${lane}-${n % KEYS}`, work),
  },
];

async function run(context) {
  printDisk(context.folder);
  return { results: await runDurable(context, OPERATIONS), aims: [] };
}

module.exports = { about: 'operations that run once, durably', run };
