'use strict';

// Locks on one Redis server, beside what people use for that today.

const { endChild, nextMessage, startChild } = require('../child');
const { closeLockers, pairs } = require('../contenders');
const { load, measureOf } = require('../load');
const { openPipeline } = require('../pipeline');
const { record } = require('../recorded');
const {
  openRedisLockers, openRedisWaiters, HOLDFAST, IOREDIS, PIPELINE, REDLOCK, SLOW,
} = require('../redis-lockers');
const { startRedis } = require('../redis-server');
const { handOverInTrips } = require('../round-trips');
const { play } = require('../rounds');
const { measureStalls, stallsText } = require('../stalls');

const IN_FLIGHT = [1, 10, 100, 1000];
const LONGER = 5; // a round of hand-overs must have a hundred, each after some ms of holding

function pairsInFlight(inFlight, lockers, pipeline) {
  const contenders = Object.fromEntries(Object.entries(lockers).map(([name, locker]) => [
    name, async (seconds) => {
      const operation = pairs(locker, { contended: false, renewed: true });
      return measureOf([await load(operation, { inFlight, seconds })]);
    },
  ]));
  if (pipeline !== null) contenders[PIPELINE] = (seconds) => pipeline({ inFlight, seconds });
  return {
    title: `${inFlight.toLocaleString('en-US')} in flight, distinct keys`,
    unit: 'pairs',
    compared: ['rate', 'p50', 'cpu'],
    contenders,
  };
}

function handOvers(title, waiters, child) {
  const contenders = Object.fromEntries(Object.entries(waiters).map(([name, locker]) => [
    name, (seconds) => handOverInTrips({
      name, locker, child, few: SLOW.includes(name),
    }, seconds),
  ]));
  return { title: `hand-over, ${title}`, unit: 'hand-overs', contenders, timed: true };
}

function aims(results) {
  const at = (inFlight) => results[IN_FLIGHT.indexOf(inFlight)];
  const ratio = (inFlight, figure, peer, what, limit, most) => ({
    what: `${what} at ${inFlight} in flight, against ${peer}`,
    aim: `at ${most ? 'most' : 'least'} ${limit} x`,
    measured: at(inFlight).ratios[peer][figure].median,
    met: (value) => (most ? value <= limit : value >= limit),
  });
  const trips = (result) => ({
    what: result.title,
    aim: 'under 3 round trips at the median',
    measured: result.figures[HOLDFAST].trips.median,
    unit: 'round trips',
    met: (value) => value < 3,
  });
  const built = PIPELINE in at(100).ratios;
  return [
    ratio(100, 'cpu', REDLOCK, 'client CPU per pair', 0.25, true),
    ratio(100, 'cpu', IOREDIS, 'client CPU per pair', 0.5, true),
    ...(built ? [ratio(100, 'rate', PIPELINE, 'pairs per second', 0.8, false)] : []),
    ratio(1, 'p50', IOREDIS, 'p50', 1, true),
    ...results.slice(IN_FLIGHT.length).map(trips),
  ];
}

async function measurePairs({ folder, seconds, report }, port) {
  const recorded = await record(port, folder);
  const pipeline = openPipeline(port, recorded);
  if (pipeline === null) console.log('script/bench-peers has not built the C pipeline\n');
  const lockers = await openRedisLockers(port, recorded);
  const results = [];
  try {
    for (const inFlight of IN_FLIGHT) {
      results.push(report(await play(pairsInFlight(inFlight, lockers, pipeline), seconds)));
    }
  } finally {
    await closeLockers(lockers);
  }
  return results;
}

async function measureHandOvers({ seconds, report }, port) {
  const waiters = await openRedisWaiters(port);
  const child = startChild('redis-child.js', [String(port)]);
  try {
    await nextMessage(child);
    return [
      report(await play(handOvers('two waiters of one process', waiters), LONGER * seconds)),
      report(await play(handOvers('two processes', waiters, child), LONGER * seconds)),
    ];
  } finally {
    await endChild(child);
    await closeLockers(waiters);
  }
}

async function run(context) {
  const redis = await startRedis(context.folder);
  if (redis === null) {
    console.log('there is no redis-server: nothing is measured\n');
    return { results: [], aims: [] };
  }
  try {
    const results = [
      ...await measurePairs(context, redis.port),
      ...await measureHandOvers(context, redis.port),
    ];
    results[0].stalls = await measureStalls(redis.port);
    console.log(`${stallsText(results[0].stalls)}\n`);
    return { results, aims: aims(results) };
  } finally {
    await redis.stop();
  }
}

module.exports = { about: 'locks on one Redis server', run };
