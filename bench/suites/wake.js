'use strict';

// How a Redis server had best tell those who wait for a lease that it is free: by a message that
// whoever releases publishes where somebody has noted that he waits, or by the server's own
// tracking of what its clients have read. What Holdfast does rests on these figures.

const { setTimeout: sleep } = require('node:timers/promises');

const { ask, endChild, nextMessage, startChild } = require('../child');
const { closeLockers } = require('../contenders');
const { startRedis } = require('../redis-server');
const { handOverInTrips } = require('../round-trips');
const { play } = require('../rounds');
const { Samples } = require('../stats');
const { openAsLockers, openWakers, ALWAYS, FIRST, NOBODY, WAKING } = require('../wakers');

const LANES = 100;
const CROWD = 20;
const LONGER = 3; // a round of hand-overs must have a hundred, each after some ms of holding
const IDLE_MS = 500;
// What ends a lease without its holder: how often, after how long, and how long until it counts as
// untold.
const TIMES = 20;
const LEASE_MS = 300;
const PATIENCE_MS = 1000;

function handOvers(lockers, child) {
  const contenders = Object.fromEntries(WAKING.map((name) => [
    name, (seconds) => handOverInTrips({ name, locker: lockers[name], child }, seconds),
  ]));
  return { title: 'hand-over between two processes', unit: 'hand-overs', contenders, timed: true };
}

// How long the server's process has run, in microseconds.
async function serverTime(connection) {
  const info = await connection.ask('INFO', 'cpu');
  const of = (name) => Number(new RegExp(`^${name}:(.*)$`, 'm').exec(info)[1]);
  return 1e6 * (of('used_cpu_sys') + of('used_cpu_user'));
}

/** Makes what tells how much the server ran during `work`, less what it does when it is idle. */
async function serverMeter(connection) {
  const meter = async (work) => {
    const before = await serverTime(connection);
    const started = performance.now();
    const result = await work();
    const took = performance.now() - started;
    return { used: await serverTime(connection) - before, took, result };
  };
  const idle = await meter(() => sleep(IDLE_MS));
  return async (work) => {
    const { used, took, result } = await meter(work);
    return { used: used - took * idle.used / idle.took, result };
  };
}

function crowds(child, meter) {
  const one = (title, names, how, unit = 'pairs') => ({
    title,
    unit,
    compared: ['server'],
    contenders: Object.fromEntries(names.map((name) => [name, async (seconds) => {
      await ask(child, { step: 'open', name, ...how });
      const { used, result: { pairs, told } } = await meter(() => (
        ask(child, { step: 'crowd', name, seconds, ...how })
      ));
      return { server: used / pairs, told: told / pairs };
    }])),
  });
  return [
    one(`pairs for which nobody waits, ${LANES} in flight`, [...WAKING, ALWAYS, NOBODY],
      { size: 1, lanes: LANES }),
    one('pairs for which 1 process waits', WAKING, { size: 2 }),
    one(`pairs for which ${CROWD} processes wait`, [...WAKING, FIRST], { size: CROWD + 1 }),
    one(`renewals while ${CROWD} processes wait`, WAKING, { size: CROWD + 1, renewed: true },
      'renewals'),
  ];
}

// How long after a lease of somebody else has ended each waiter is told of it.
async function tolds(name, port, end) {
  const [waker, stranger] = await openWakers([name, NOBODY], port);
  const times = new Samples();
  await Promise.all(Array.from({ length: TIMES }, async (_, i) => {
    const key = `ended-${i}`;
    await stranger.ask('SET', key, 'theirs', 'PX', LEASE_MS + PATIENCE_MS * (end === 'DEL'));
    const started = performance.now();
    const told = waker.acquire(key, { safe: false }).then(() => performance.now());
    told.catch(() => undefined); // it may wait for ever
    await sleep(LEASE_MS + i);
    const ended = end === 'DEL' ? performance.now() : started + LEASE_MS;
    if (end === 'DEL') await stranger.ask('DEL', key);
    const at = await Promise.race([told, sleep(PATIENCE_MS)]);
    if (at !== undefined) times.add(at - ended);
  }));
  waker.close();
  stranger.close();
  const late = times.length > 0 ? { median: times.quantile(0.5), max: times.quantile(1) } : null;
  return { told: times.length, of: TIMES, late };
}

function toldText({ told, of, late }) {
  const ms = (time) => `${time.toFixed(1)} ms`;
  const when = late === null ? ''
    : `, ${ms(late.median)} late at the median, ${ms(late.max)} at most`;
  return `${told} of ${of} were told${when}`;
}

async function strangers(port) {
  const ends = {};
  for (const end of ['DEL', 'expiry']) {
    ends[end] = {};
    console.log(`ended by ${end}, not by a release`);
    for (const name of WAKING) {
      ends[end][name] = await tolds(name, port, end);
      console.log(`  ${name.padEnd(18)}  ${toldText(ends[end][name])}`);
    }
    console.log('');
  }
  return ends;
}

async function measure({ seconds, report }, port) {
  const lockers = await openAsLockers(port);
  const [connection] = await openWakers([NOBODY], port);
  const child = startChild('wake-child.js', [String(port)]);
  try {
    await nextMessage(child);
    const results = [report(await play(handOvers(lockers, child), LONGER * seconds))];
    const meter = await serverMeter(connection);
    for (const scenario of crowds(child, meter)) {
      results.push(report(await play(scenario, seconds)));
    }
    results[0].ended = await strangers(port);
    return results;
  } finally {
    await endChild(child);
    connection.close();
    await closeLockers(lockers);
  }
}

async function run(context) {
  const redis = await startRedis(context.folder);
  if (redis === null) {
    console.log('there is no redis-server: nothing is measured\n');
    return { results: [], aims: [] };
  }
  try {
    return { results: await measure(context, redis.port), aims: [] };
  } finally {
    await redis.stop();
  }
}

module.exports = { about: 'ways in which Redis wakes those who wait', run };
