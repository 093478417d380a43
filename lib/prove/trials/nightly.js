'use strict';

// Six copies of a service all have the same cron line.

const { setTimeout: sleep } = require('node:timers/promises');
const { times } = require('../words');

const STARTERS = 6;
const JOB_MS = 400;
const NIGHT = '2026-03-14';

/** Bills every customer. */
async function job(sink) {
  await sleep(JOB_MS);
  sink.append({ what: 'billed', pid: process.pid });
  return { billedBy: process.pid };
}

const acts = {
  /** Look whether it has run tonight; if not, run it, and note that it has. */
  async naive({ hf, sink, key }) {
    const last = await hf.kv.get(key);
    if (last?.value.night === NIGHT) return last.value.result;
    const result = await job(sink);
    await hf.kv.put(key, { night: NIGHT, result });
    return result;
  },

  /** Run it once for this night; everyone gets its result. */
  holdfast({ hf, sink, key }) {
    return hf.once(`${key}/${NIGHT}`, () => job(sink));
  },
};

async function play(stage, players, side) {
  const sink = stage.sink(side);
  const key = stage.key(side, 'bill-customers');
  stage.key(side, `bill-customers/${NIGHT}`);
  const results = await Promise.all(players.map(
    (player) => player.perform(side, { sink: sink.file, key }),
  ));
  return {
    starters: STARTERS,
    runs: sink.count('billed'),
    results: new Set(results.map(({ billedBy }) => billedBy)).size,
  };
}

module.exports = {
  name: 'nightly',
  title: `A nightly job, started by ${STARTERS} processes`,
  code: { naive: 'get(last), run, put(last)', holdfast: 'once(night, run)' },
  acts,

  async run(stage) {
    const players = await stage.start(STARTERS);
    const naive = await play(stage, players, 'naive');
    const holdfast = await play(stage, players, 'holdfast');
    await stage.dismiss(players);
    return { naive, holdfast };
  },

  check({ runs, results }) {
    const broken = [];
    if (runs !== 1) broken.push(`the job ran ${times(runs)} in one night`);
    if (results !== 1) broken.push(`${results} different results were handed out`);
    return broken;
  },

  tell({ runs, starters, results }) {
    return [
      ['customers billed', times(runs)],
      ['told the result', `${starters} of ${starters}, ${results === 1 ? 'all the same' :
        `${results} different`}`],
    ];
  },
};
