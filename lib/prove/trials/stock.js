'use strict';

// Five pieces are left, and twenty processes of the shop sell one each in the same moment.

const { setTimeout: sleep } = require('node:timers/promises');

const STOCK = 5;
const BUYERS = 20;
const PACK_MS = 200; // between the look at the stock and the new number

const acts = {
  /** Look whether there is one; if so, pack it, and write the stock down. */
  async naive({ hf, sink, key }) {
    const { value: stock } = await hf.kv.get(key);
    if (stock < 1) return;
    await sleep(PACK_MS);
    await hf.kv.put(key, stock - 1);
    sink.append({ what: 'sold', pid: process.pid });
  },

  /** Take one off the stock, which never goes below zero; then pack it. */
  async holdfast({ hf, sink, key }) {
    try {
      await hf.kv.increment(key, -1, { min: 0 });
    } catch (error) {
      if (error.code !== 'HF_EBOUNDS') throw error;
      return;
    }
    await sleep(PACK_MS);
    sink.append({ what: 'sold', pid: process.pid });
  },
};

async function play(stage, players, side) {
  const sink = stage.sink(side);
  const key = stage.key(side, 'stock');
  await stage.hf.kv.put(key, STOCK);
  await Promise.all(players.map((player) => player.perform(side, { sink: sink.file, key })));
  const { value: left } = await stage.hf.kv.get(key);
  return { stock: STOCK, buyers: BUYERS, sold: sink.count('sold'), left };
}

module.exports = {
  name: 'stock',
  title: `A stock of ${STOCK}, bought by ${BUYERS} processes`,
  code: { naive: 'get(n), pack, put(n - 1)', holdfast: 'increment(n, -1, { min: 0 })' },
  acts,

  async run(stage) {
    const players = await stage.start(BUYERS);
    const naive = await play(stage, players, 'naive');
    const holdfast = await play(stage, players, 'holdfast');
    await stage.dismiss(players);
    return { naive, holdfast };
  },

  check({ stock, sold, left }) {
    const broken = [];
    if (sold > stock) broken.push(`${sold} were sold of ${stock}`);
    if (sold < stock) broken.push(`only ${sold} of ${stock} were sold`);
    if (left !== stock - sold) broken.push(`${sold} of ${stock} were sold and ${left} are left`);
    return broken;
  },

  tell({ stock, buyers, sold, left }) {
    return [
      ['sold', `${sold} of ${stock}`],
      ['turned away', `${buyers - sold} of ${buyers}`],
      ['stock says', `${left} left`],
    ];
  },
};
