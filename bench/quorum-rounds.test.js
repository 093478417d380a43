'use strict';

const assert = require('node:assert/strict');

const { describe, it } = require('mocha');

const { playStates, sumUpStates, Unfinished } = require('./quorum-rounds');
const { aimsText, scenarioText } = require('./report');
const { ROUNDS } = require('./rounds');

const NAMES = ['ours', 'other', 'third'];
const STATES = ['well', 'ill'];

/** Plays with a `measure` of its own; resolves also with what happened, in order. */
async function play(measure) {
  const steps = [];
  const played = await playStates({
    states: STATES,
    names: NAMES,
    enter: async (state, round) => steps.push(`${round} ${state}`),
    measure: async (name, state, round) => {
      steps.push(name);
      return measure(name, state, round);
    },
  });
  return { played, steps };
}

describe('rounds of the quorum benchmark', () => {
  it('enters every state in every round, and lets another one begin', async () => {
    const { played, steps } = await play(() => ({ rate: 1 }));
    assert.deepEqual(steps.slice(0, 12), [
      '0 well', 'ours', 'other', 'third', '0 ill', 'ours', 'other', 'third',
      '1 well', 'other', 'third', 'ours',
    ]);
    assert.equal(steps.length, ROUNDS * STATES.length * (1 + NAMES.length));
    for (const state of STATES) {
      assert.deepEqual(NAMES.map((name) => played[state].rounds[name].length),
        NAMES.map(() => ROUNDS));
    }
  });

  it('leaves who does not finish out of that state, and asks once only', async () => {
    const { played, steps } = await play((name, state, round) => {
      if (name === 'other' && state === 'ill' && round === 1) throw new Unfinished('stuck');
      return { rate: 1 };
    });
    assert.deepEqual(Object.keys(played.ill.rounds), ['ours', 'third']);
    assert.deepEqual(played.ill.unfinished, { other: 'stuck' });
    assert.deepEqual(Object.keys(played.well.rounds), NAMES);
    assert.equal(steps.filter((step) => step === 'other').length, ROUNDS + 2);
  });

  it('ends with any other error', async () => {
    await assert.rejects(play(() => {
      throw new TypeError('a fault of the benchmark');
    }), TypeError);
  });

  it('compares a state with the first one within each round', async () => {
    // Every round is twice as slow as the one before; the state costs three times as much.
    const { played } = await play((name, state, round) => (
      { p99: 2 ** round * (state === 'ill' ? 3 : 1) * (name === 'ours' ? 1 : 4) }
    ));
    const how = { names: NAMES, ours: 1, compared: ['p99'] };
    const [well, ill] = sumUpStates(played, (state) => state, 'pairs', how);
    assert.deepEqual(well.cost, {});
    const { q1, median, q3 } = ill.cost.other['itself, well'].p99;
    assert.deepEqual([q1, median, q3], [3, 3, 3]);
    assert.equal(ill.ratios.third.p99.median, 0.25);
    assert.ok(scenarioText(ill).includes('\n  other / itself, well: p99 3.0 x (3.0 to 3.0)\n'));
  });

  it('makes nobody ours where ours did not finish, and says so', async () => {
    const { played } = await play((name, state) => {
      if (name === 'ours' && state === 'well') throw new Unfinished('no majority');
      return { rate: 1 };
    });
    const how = { names: NAMES, ours: 1, compared: ['rate'] };
    const [well, ill] = sumUpStates(played, (state) => state, 'pairs', how);
    assert.deepEqual(well.ratios, {});
    assert.deepEqual(Object.keys(ill.ratios), ['other', 'third']);
    assert.deepEqual(Object.keys(ill.cost), ['other', 'third']);
    assert.ok(scenarioText(well).includes('\n  ours: nothing measured, no majority\n'));
    const aim = { what: 'rate', aim: 'at least 1 x', measured: null, met: false };
    assert.ok(aimsText([aim]).includes('  missed  rate: at least 1 x; not measured'));
  });
});
