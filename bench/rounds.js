'use strict';

// Contenders in turn, round by round, so that whatever disturbs the machine disturbs all alike.

const { ratios, summary } = require('./stats');

const ROUNDS = 5;
const WARM_UP_SECONDS = 0.1;

/**
 * @typedef {object} Scenario
 * @property {string} title
 * @property {Record<string, (seconds: number) => Promise<object>>} contenders ours first; each
 *   measures itself for so long, and resolves with figures of the same names in every round
 * @property {string} [unit='operations'] what is counted
 * @property {number} [ours=1] how many of the contenders are ours
 * @property {boolean} [timed=false] it is the times that count, not how many there were of them
 * @property {string[]} [compared] the figures whose ratios are told, the one to draw first; by
 *   default p50 and p99 of what is timed, else rate and p50
 */

/**
 * Plays a scenario: each contender for `seconds` in all, in ROUNDS parts. Who begins changes with
 * every round; a short round before them is not counted.
 *
 * @param {Scenario} scenario
 * @param {number} seconds
 * @returns {Promise<object>} the scenario with `rounds`, `figures` and, for every contender that is
 *   not ours, `ratios` of our first's figures to its own; `more` has those of the rest of ours
 */
async function play({ title, contenders, unit = 'operations', ...how }, seconds) {
  const names = Object.keys(contenders);
  const rounds = Object.fromEntries(names.map((name) => [name, []]));
  for (const name of names) await contenders[name](WARM_UP_SECONDS);
  for (let round = 0; round < ROUNDS; round++) {
    for (let i = 0; i < names.length; i++) {
      const name = names[(round + i) % names.length];
      rounds[name].push(await contenders[name](seconds / ROUNDS));
    }
  }
  return sumUp(title, unit, rounds, how);
}

/** Sums up rounds that were measured some other way; see play(). */
function sumUp(title, unit, rounds, { ours = 1, timed = false, compared } = {}) {
  const names = Object.keys(rounds);
  const columns = (name) => Object.keys(rounds[name][0]);
  const series = (name, figure) => rounds[name].map((measure) => measure[figure]);
  const compare = (one, other) => Object.fromEntries(
    columns(other).filter((figure) => columns(one).includes(figure))
      .map((figure) => [figure, ratios(series(one, figure), series(other, figure))]),
  );
  const compareAll = (one) => Object.fromEntries(
    names.slice(ours).map((other) => [other, compare(one, other)]),
  );
  const figures = Object.fromEntries(names.map((name) => [name, Object.fromEntries(
    columns(name).map((figure) => [figure, summary(series(name, figure))]),
  )]));
  const more = Object.fromEntries(names.slice(1, ours).map((name) => [name, compareAll(name)]));
  return {
    title,
    unit,
    timed,
    compared: compared ?? (timed ? ['p50', 'p99'] : ['rate', 'p50']),
    rounds,
    figures,
    ratios: compareAll(names[0]),
    more,
  };
}

module.exports = { play, sumUp, ROUNDS };
