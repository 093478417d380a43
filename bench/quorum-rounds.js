'use strict';

// Contenders in turn in several states of what they stand on, all in every round, so that a state
// is compared with another one as a contender is with another: within a round.

const { ratios } = require('./stats');
const { sumUp, ROUNDS } = require('./rounds');

/** Somebody did not do what was to be measured, for a reason that is told. */
class Unfinished extends Error {}

// One measure, or why there is none.
async function attempt(measure) {
  try {
    return { measured: await measure() };
  } catch (error) {
    if (!(error instanceof Unfinished)) throw error;
    return { reason: error.message };
  }
}

/**
 * Plays all in all states, for ROUNDS rounds. Who begins changes with every round. Whoever does not
 * finish is left out of that state from then on.
 *
 * @param {object} how
 * @param {string[]} how.states
 * @param {string[]} how.names
 * @param {(state: string, round: number) => Promise<void>} how.enter
 * @param {(name: string, state: string, round: number) => Promise<object>} how.measure resolves
 *   with figures; rejects with Unfinished
 * @returns {Promise<Record<string, { rounds: Record<string, object[]>,
 *   unfinished: Record<string, string> }>>} for each state; `rounds` of those who finished all
 */
async function playStates({ states, names, enter, measure }) {
  const played = Object.fromEntries(states.map((state) => [state, {
    rounds: Object.fromEntries(names.map((name) => [name, []])), unfinished: {},
  }]));
  for (let round = 0; round < ROUNDS; round++) {
    for (const state of states) {
      const { rounds, unfinished } = played[state];
      await enter(state, round);
      for (let i = 0; i < names.length; i++) {
        const name = names[(round + i) % names.length];
        if (name in unfinished) continue;
        const { measured, reason } = await attempt(() => measure(name, state, round));
        if (reason === undefined) {
          rounds[name].push(measured);
        } else {
          unfinished[name] = reason;
          delete rounds[name];
        }
      }
    }
  }
  return played;
}

/**
 * Sums up what playStates() resolved with.
 *
 * @param {object} played
 * @param {(state: string) => string} title
 * @param {string} unit
 * @param {{ names: string[], ours: number, compared: string[] }} how as of rounds.js; the first
 *   `ours` of the `names` are ours
 * @returns {object[]} a result for each state, with those `unfinished`, and from the second on
 *   `cost`: of each contender, the ratios of its figures to `itself` in the first state
 */
function sumUpStates(played, title, unit, { names, ours, compared }) {
  const [[name, first]] = Object.entries(played);
  const itself = `itself, ${name}`;
  return Object.entries(played).map(([state, { rounds, unfinished }]) => {
    const left = names.slice(0, ours).filter((who) => who in rounds);
    const result = sumUp(title(state), unit, rounds, { ours: left.length, compared });
    const both = Object.keys(rounds).filter((who) => who in first.rounds);
    const cost = state === name ? {} : Object.fromEntries(both.map((who) => [
      who, { [itself]: costOf(rounds[who], first.rounds[who]) },
    ]));
    return { ...result, ...(left.length === 0 ? { ratios: {} } : {}), unfinished, cost };
  });
}

function costOf(rounds, before) {
  return Object.fromEntries(Object.keys(before[0]).map((figure) => [figure, ratios(
    rounds.map((measure) => measure[figure]), before.map((measure) => measure[figure]),
  )]));
}

module.exports = { playStates, sumUpStates, Unfinished };
