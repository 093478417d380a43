'use strict';

// What an idempotent route costs, beside the same route bare.

const { randomUUID } = require('node:crypto');

const { ask, endChild, nextMessage, startChild } = require('../child');
const { openDisk } = require('../disk');
const { HttpConnection } = require('../http-connection');
const { load, measureOf } = require('../load');
const { play, sumUp, ROUNDS } = require('../rounds');
const { Samples, summary } = require('../stats');

const CONNECTIONS = 50;
const BODY = JSON.stringify({ item: 'lamp', amount: 4200, currency: 'EUR' });
const COMMITS = 2; // of a first request: its claim and its answer, each durable
const ALLOWANCE_MS = 0.3;
const WARM_UP = 1000; // the compiler of a server that has run for a while has seen it all

async function post(connection, target, key, replayed) {
  const headers = key === null ? {} : { 'Idempotency-Key': key };
  const { status, head } = await connection.post(target, headers, BODY);
  // An answer that is none would be quick, too.
  if (status !== 201) throw new Error(`the server answered ${status}`);
  if (/idempotent-replayed/i.test(head) !== replayed) throw new Error('not what was asked for');
}

const bare = (connection) => post(connection, '/bare', null, false);
const first = (connection, key = randomUUID()) => post(connection, '/protected', key, false);
const replay = (connection, key) => post(connection, '/protected', key, true);

async function timed(samples, fn) {
  const started = performance.now();
  await fn();
  samples.add(performance.now() - started);
}

// One of each in turn, so that all see the same disk and the same machine.
async function latencyRound(connection, disk, until) {
  const samples = {
    'first request': new Samples(),
    replay: new Samples(),
    bare: new Samples(),
    'one fdatasync': new Samples(),
  };
  while (until()) {
    const key = randomUUID();
    await timed(samples.bare, () => bare(connection));
    await timed(samples['first request'], () => first(connection, key));
    await timed(samples.replay, () => replay(connection, key));
    samples['one fdatasync'].add(disk.sync());
  }
  return samples;
}

function measureOfSamples(samples) {
  return { p50: samples.quantile(0.5), p99: samples.quantile(0.99) };
}

async function latencies(connection, disk, seconds) {
  const rounds = {};
  let warm = WARM_UP;
  await latencyRound(connection, disk, () => warm-- > 0);
  for (let round = 0; round < ROUNDS; round++) {
    const end = performance.now() + 1000 * seconds / ROUNDS;
    const samples = await latencyRound(connection, disk, () => performance.now() < end);
    for (const [name, one] of Object.entries(samples)) {
      (rounds[name] ??= []).push(measureOfSamples(one));
    }
  }
  return sumUp('1 request at a time', 'requests', rounds);
}

function addedTo(rounds) {
  const added = (name) => summary(rounds[name].map(({ p50 }, i) => p50 - rounds.bare[i].p50));
  const syncs = summary(rounds['one fdatasync'].map(({ p50 }) => COMMITS * p50));
  const beyond = summary(rounds['first request'].map(({ p50 }, i) => (
    p50 - rounds.bare[i].p50 - COMMITS * rounds['one fdatasync'][i].p50
  )));
  return { first: added('first request'), replay: added('replay'), syncs, beyond };
}

function addedText({ first: one, replay: again, syncs, beyond }) {
  const ms = ({ median, q1, q3 }) => (
    `${median.toFixed(3)} ms (${q1.toFixed(3)} to ${q3.toFixed(3)})`
  );
  return `  added to bare, at the median: first request ${ms(one)}, replay ${ms(again)}\n`
    + `  its ${COMMITS} durable commits: ${ms(syncs)} of fdatasync; beyond them ${ms(beyond)}\n`;
}

function throughput(server, connections) {
  const keys = connections.map(() => randomUUID());
  const of = (operation) => async (seconds) => {
    await ask(server, 'cpu');
    const one = await load(operation, { inFlight: connections.length, seconds });
    // The client is not what is measured.
    const { rate, p50, p99 } = measureOf([one]);
    return { rate, p50, p99, cpu: await ask(server, 'cpu') / one.count };
  };
  return {
    title: `${connections.length} connections`,
    unit: 'requests',
    contenders: {
      'first request': of((lane) => first(connections[lane])),
      replay: of((lane) => replay(connections[lane], keys[lane])),
      bare: of((lane) => bare(connections[lane])),
    },
    prepare: () => Promise.all(connections.map((connection, i) => first(connection, keys[i]))),
  };
}

async function measureServer({ server, port, disk, seconds, report }) {
  const connections = await Promise.all(
    Array.from({ length: CONNECTIONS }, () => HttpConnection.open(port)),
  );
  const single = report(await latencies(connections[0], disk, 2 * seconds));
  const added = addedTo(single.rounds);
  console.log(addedText(added));
  const scenario = throughput(server, connections);
  await scenario.prepare();
  const many = report(await play(scenario, seconds));
  for (const connection of connections) connection.close();
  const aim = {
    what: 'what a first idempotent request adds, beyond its durable commits',
    aim: `at most ${ALLOWANCE_MS} ms`,
    measured: added.beyond.median,
    unit: 'ms',
    met: (ms) => ms <= ALLOWANCE_MS,
  };
  return { results: [{ ...single, added }, many], aims: [aim] };
}

async function run({ folder, seconds, report }) {
  const disk = openDisk(folder);
  const server = startChild('express-server.js', [folder]);
  try {
    const port = await nextMessage(server);
    return await measureServer({ server, port, disk, seconds, report });
  } finally {
    await endChild(server);
    disk.close();
  }
}

module.exports = { about: 'an idempotent Express route beside the same route bare', run };
