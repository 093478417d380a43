'use strict';

// What it takes to hold many locks: the keeper renews them all, in time.

const path = require('node:path');

const { endChild, nextMessage, startChild } = require('../child');
const { sumUp } = require('../rounds');

const LOCKS = 100000;
const TTL_SECONDS = 30;
const ROUND_SECONDS = TTL_SECONDS / 3; // each lock is renewed once
const ROUNDS = 6; // two TTLs

async function run({ folder, report }) {
  const url = `sqlite:${path.join(folder, 'scale.db')}`;
  const child = startChild('scale-child.js', [url, LOCKS, ROUNDS, ROUND_SECONDS].map(String));
  try {
    const { taken } = await nextMessage(child);
    const rounds = [];
    while (rounds.length < ROUNDS) rounds.push((await nextMessage(child)).round);
    const { lost } = await nextMessage(child);
    const title = `${LOCKS.toLocaleString('en-US')} locks of one process, ttl ${TTL_SECONDS} s, `
      + `held for ${ROUNDS * ROUND_SECONDS} s`;
    const summed = sumUp(title, 'locks', { Holdfast: rounds }, { timed: true });
    const result = report({ ...summed, locks: LOCKS, taken, lost });
    console.log(`  taken in ${taken.toFixed(1)} s, 1,000 in flight; ${lost} lost\n`);
    const aim = {
      what: `locks lost of ${LOCKS.toLocaleString('en-US')}`,
      aim: 'none',
      measured: lost,
      unit: 'locks',
      digits: 0,
      met: (count) => count === 0,
    };
    return { results: [result], aims: [aim] };
  } finally {
    await endChild(child);
  }
}

module.exports = { about: 'many locks held by one process on one file', run };
