'use strict';

// Locks on a quorum of five Redis servers, beside what people use for that today: while all of them
// run, and while one or two stand still.

const { openCrew } = require('../quorum-crew');
const { FENCING, HOLDFAST, OURS, REDLOCK_4, REDLOCK_5 } = require('../quorum-lockers');
const { startNodes } = require('../quorum-nodes');
const { playStates, sumUpStates, Unfinished } = require('../quorum-rounds');
const { ROUNDS } = require('../rounds');

const NODES = 5;
const IN_FLIGHT = [1, 100];
const LONGER = 2; // the p99 of a round should rest on some hundred pairs

const ALL = 'all nodes up';
const ONE = 'one node frozen';
/** How many nodes are frozen in each. */
const STATES = { [ALL]: 0, [ONE]: 1, 'two nodes frozen': 2 };

async function measureInFlight(inFlight, crew, nodes, seconds) {
  const how = { inFlight, seconds: LONGER * seconds / ROUNDS };
  const enter = async (state, round) => {
    // Before they are frozen again, so that none has to be frozen for longer than the others.
    nodes.resume();
    await crew.mend();
    nodes.freeze(STATES[state], round % NODES);
  };
  const measure = async (name, state, round) => {
    try {
      return await crew.measure(name, how);
    } catch (error) {
      if (error instanceof Unfinished) await enter(state, round);
      throw error;
    }
  };
  const { names } = crew;
  const played = await playStates({ states: Object.keys(STATES), names, enter, measure });
  return sumUpStates(played, (state) => `${inFlight} in flight, ${state}`, 'pairs', {
    names, ours: OURS, compared: ['rate', 'p50', 'p99', 'cpu'],
  });
}

// Of one of ours, who may be the only one of them that finished.
function ratiosOf(name, { figures, ratios, more }) {
  return name === Object.keys(figures)[0] ? ratios : more[name];
}

function aims(results) {
  const at = (inFlight, state) => results[
    IN_FLIGHT.indexOf(inFlight) * Object.keys(STATES).length + Object.keys(STATES).indexOf(state)
  ];
  const aim = (what, limit, ratios, figure) => ({
    what,
    aim: `at most ${limit} x`,
    measured: ratios === undefined ? null : ratios[figure].median,
    met: (value) => value !== null && value <= limit,
  });
  const cpu = (name, peer) => aim(
    `client CPU per pair at 100 in flight, ${name} against ${peer}`, 0.25,
    ratiosOf(name, at(100, ALL))?.[peer], 'cpu',
  );
  const p99 = (name, inFlight) => aim(
    `p99 with one node frozen at ${inFlight} in flight, ${name} against itself with all up`, 1.5,
    Object.values(at(inFlight, ONE).cost[name] ?? {})[0], 'p99',
  );
  return [HOLDFAST, FENCING].flatMap((name) => [
    cpu(name, REDLOCK_5),
    cpu(name, REDLOCK_4),
    ...IN_FLIGHT.map((inFlight) => p99(name, inFlight)),
  ]);
}

async function measureAll({ seconds, report }, nodes) {
  const crew = await openCrew(nodes.ports);
  const results = [];
  try {
    for (const inFlight of IN_FLIGHT) {
      results.push(...await measureInFlight(inFlight, crew, nodes, seconds));
      results.slice(-Object.keys(STATES).length).forEach(report);
    }
  } finally {
    nodes.resume();
    await crew.close();
  }
  return results;
}

async function run(context) {
  const nodes = await startNodes(context.folder, NODES);
  if (nodes === null) {
    console.log('there is no redis-server: nothing is measured\n');
    return { results: [], aims: [] };
  }
  try {
    const results = await measureAll(context, nodes);
    return { results, aims: aims(results) };
  } finally {
    await nodes.stop();
  }
}

module.exports = { about: `locks on a quorum of ${NODES} Redis servers`, run };
