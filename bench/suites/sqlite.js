'use strict';

// Locks of one machine: acquire and release, beside what people use for that today.

const { closeLockers, openLockers, pairs } = require('../contenders');
const { openCrew } = require('../crew');
const { load, measureOf } = require('../load');
const { play } = require('../rounds');

const PROCESSES = 8;
const NEVER_RENEWS = ['Holdfast', 'lock table'];

function scenarios(lockers) {
  const one = (title, how, names = Object.keys(lockers)) => ({
    title,
    unit: 'pairs',
    contenders: Object.fromEntries(names.map((name) => [name, async (seconds) => {
      const operation = pairs(lockers[name], how);
      return measureOf([await load(operation, { inFlight: how.inFlight, seconds })]);
    }])),
  });
  return [
    one('1 in flight, distinct keys', { inFlight: 1, renewed: true }),
    one('100 in flight, distinct keys', { inFlight: 100, renewed: true }),
    one('100 in flight, one key', { inFlight: 100, renewed: true, contended: true }),
    one('1 in flight, not renewed', { inFlight: 1, renewed: false }, NEVER_RENEWS),
    one('100 in flight, not renewed', { inFlight: 100, renewed: false }, NEVER_RENEWS),
  ];
}

function crewScenarios(crew, names) {
  const one = (title, how) => ({
    title,
    unit: 'pairs',
    contenders: Object.fromEntries(names.map((name) => [
      name, (seconds) => crew.run({ ...how, name, seconds, renewed: true, inFlight: 1 }),
    ])),
  });
  return [
    one(`${PROCESSES} processes, distinct keys`, { contended: false }),
    one(`${PROCESSES} processes, one key`, { contended: true }),
  ];
}

function aims([single, hundred]) {
  const of = (result, peer, figure) => result.ratios[peer][figure].median;
  return [
    {
      what: 'pairs per second at 100 in flight, against proper-lockfile',
      aim: 'at least 10 x',
      measured: of(hundred, 'proper-lockfile', 'rate'),
      met: (ratio) => ratio >= 10,
    },
    {
      what: 'pairs per second at 100 in flight, against a lock table',
      aim: 'at least 3 x',
      measured: of(hundred, 'lock table', 'rate'),
      met: (ratio) => ratio >= 3,
    },
    {
      what: 'p50 at 1 in flight, against proper-lockfile',
      aim: 'at most 0.5 x',
      measured: of(single, 'proper-lockfile', 'p50'),
      met: (ratio) => ratio <= 0.5,
    },
  ];
}

async function run({ folder, seconds, report }) {
  const results = [];
  const lockers = await openLockers(folder);
  try {
    for (const scenario of scenarios(lockers)) {
      results.push(report(await play(scenario, seconds)));
    }
  } finally {
    await closeLockers(lockers);
  }
  const crew = await openCrew(PROCESSES, folder);
  try {
    for (const scenario of crewScenarios(crew, Object.keys(lockers))) {
      results.push(report(await play(scenario, seconds)));
    }
  } finally {
    await crew.close();
  }
  return { results, aims: aims(results) };
}

module.exports = { about: 'locks on one file: acquire and release', run };
