'use strict';

// Contenders in turn, round by round, so that whatever disturbs the machine disturbs all alike.

const { ratios, summary } = require('./stats');

const ROUNDS = 5;
const WARM_UP_SECONDS = 0.1;

/**
 * @typedef {object} Scenario
 * @property {string} title
 * @property {Record<string, (seconds: number) => Promise<object>>} contenders the first is ours;
 *   each measures itself for so long, and resolves with figures of the same names
 * @property {string} [unit='operations'] what is counted
 */

/**
 * Plays a scenario: each contender for `seconds` in all, in ROUNDS parts. Who begins changes with
 * every round; a short round before them is not counted.
 *
 * @param {Scenario} scenario
 * @param {number} seconds
 * @returns {Promise<object>} the scenario with `rounds`, `figures` and, for every contender but the
 *   first, `ratios` of the first's figures to its own
 */
async function play({ title, contenders, unit = 'operations' }, seconds) {
  const names = Object.keys(contenders);
  const rounds = Object.fromEntries(names.map((name) => [name, []]));
  for (const name of names) await contenders[name](WARM_UP_SECONDS);
  for (let round = 0; round < ROUNDS; round++) {
    for (let i = 0; i < names.length; i++) {
      const name = names[(round + i) % names.length];
      rounds[name].push(await contenders[name](seconds / ROUNDS));
    }
  }
  return sumUp(title, unit, rounds);
}

/** Sums up rounds that were measured some other way; see play(). */
function sumUp(title, unit, rounds) {
  const [ours, ...others] = Object.keys(rounds);
  const columns = (name) => Object.keys(rounds[name][0]);
  const series = (name, figure) => rounds[name].map((measure) => measure[figure]);
  const figures = {};
  for (const name of [ours, ...others]) {
    figures[name] = Object.fromEntries(
      columns(name).map((figure) => [figure, summary(series(name, figure))]),
    );
  }
  const compared = {};
  for (const name of others) {
    const shared = columns(name).filter((figure) => columns(ours).includes(figure));
    compared[name] = Object.fromEntries(
      shared.map((figure) => [figure, ratios(series(ours, figure), series(name, figure))]),
    );
  }
  return { title, unit, rounds, figures, ratios: compared };
}

module.exports = { play, sumUp, ROUNDS };
