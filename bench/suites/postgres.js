'use strict';

// Locks, values and transactions on one PostgreSQL, beside what people use for that today.

const { setTimeout: sleep } = require('node:timers/promises');

const { endChild, nextMessage, startChild } = require('../child');
const { closeLockers, pairs } = require('../contenders');
const { load, measureOf } = require('../load');
const { DEBIT, ENTER } = require('../peers/pg-by-hand');
const { pgbench } = require('../peers/pgbench');
const {
  openPostgresLockers, openPostgresWaiters, ADVISORY, ADVISORY_LOCK, BY_HAND, LEASES, NATIVE,
  PGBENCH, POOL,
} = require('../postgres-lockers');
const { ACCOUNTS, startPostgres } = require('../postgres-server');
const { handOverInTrips } = require('../round-trips');
const { play } = require('../rounds');

const IN_FLIGHT = [1, 10, 100];
const LONGER = 4; // a round of hand-overs must have a hundred, each after some ms of holding
// Connections that were ended, and the processes of the server that go with them.
const SETTLE_MS = 400;
const VALUE = { item: 'lamp', stock: 5, tags: ['new', 'green'] };
const KEYS = 64;

const PAIR = `\\set id random(1, 1000000000)
SELECT pg_advisory_lock(:id);
SELECT pg_advisory_unlock(:id);
`;
const TRANSACTION = `\\set id random(1, ${ACCOUNTS})
BEGIN;
${DEBIT.text.replace('$1', ':id').replaceAll('$2', '1')};
${ENTER.text.replace('$1', ':id').replace('$2', '1')};
COMMIT;
`;

/** An operation as a contender: keeps so many in flight, when who came before has let go of all. */
const measured = (operation, inFlight) => async (seconds) => {
  await sleep(SETTLE_MS);
  return measureOf([await load(operation, { inFlight, seconds })]);
};

/** Each of them with what `operationOf(locker, name)` gives: null leaves it out. */
function contenders(lockers, inFlight, operationOf) {
  return Object.fromEntries(Object.entries(lockers)
    .map(([name, locker]) => [name, operationOf(locker, name)])
    .filter(([, operation]) => operation !== null)
    .map(([name, operation]) => [name, measured(operation, inFlight)]));
}

/** pgbench with as many clients as there are operations in flight, but not more than the pools. */
function withPgbench({ server, folder }, inFlight, script, all) {
  if (server.pgbench === null) return all;
  const clients = Math.min(inFlight, POOL);
  return {
    ...all,
    [PGBENCH]: pgbench(server.pgbench, {
      url: server.url, folder, name: `pgbench-${script.length}-${inFlight}`, clients, script,
    }),
  };
}

const flight = (inFlight) => `${inFlight} in flight`;

function pairsInFlight(context, lockers, inFlight) {
  return {
    title: `${flight(inFlight)}, distinct keys`,
    unit: 'pairs',
    ours: 2,
    compared: ['rate', 'p50', 'cpu'],
    contenders: withPgbench(context, inFlight, PAIR, contenders(lockers, inFlight,
      (locker) => pairs(locker, { contended: false, renewed: true }))),
  };
}

function values(title, lockers, inFlight, ours, theirs) {
  const operations = { [LEASES]: ours, [BY_HAND]: theirs, [NATIVE]: theirs };
  return {
    title: `${title}, ${flight(inFlight)}`,
    compared: ['rate', 'p50', 'cpu'],
    contenders: contenders(lockers, inFlight, (locker, name) => operations[name]?.(locker) ?? null),
  };
}

const VALUES = [
  ['put', (store) => (lane, n) => store.put(`value-${lane}-${n % KEYS}`, VALUE)],
  ['increment of one value', (store) => () => store.increment('counter', 1)],
  ['get', (store) => (lane, n) => store.get(`value-${lane}-${n % KEYS}`)],
];

function debit(pg, account, amount) {
  return pg.transaction(async (tx) => {
    await tx.affectOne(DEBIT.text, [account, amount]);
    await tx.query(ENTER.text, [account, amount]);
  });
}

function transactions(context, lockers, inFlight) {
  const account = (lane, n) => (lane * KEYS + n) % ACCOUNTS + 1;
  const operations = {
    [ADVISORY]: ({ pg }) => (lane, n) => debit(pg, account(lane, n), 1),
    [BY_HAND]: (hand) => (lane, n) => hand.debit(account(lane, n), 1),
    [NATIVE]: (hand) => (lane, n) => hand.debit(account(lane, n), 1),
  };
  return {
    title: `transaction of two statements, ${flight(inFlight)}`,
    unit: 'transactions',
    compared: ['rate', 'p50', 'cpu'],
    contenders: withPgbench(context, inFlight, TRANSACTION, contenders(lockers, inFlight,
      (locker, name) => operations[name]?.(locker) ?? null)),
  };
}

function statements(lockers, inFlight) {
  const operations = {
    [ADVISORY]: ({ pg }) => () => pg.query('SELECT 1 AS one'),
    [BY_HAND]: (hand) => () => hand.select(),
    [NATIVE]: (hand) => () => hand.select(),
  };
  return {
    title: `SELECT 1, ${flight(inFlight)}`,
    unit: 'statements',
    compared: ['rate', 'p50', 'cpu'],
    contenders: contenders(lockers, inFlight, (locker, name) => operations[name]?.(locker) ?? null),
  };
}

async function measureInFlight(context) {
  const { seconds, report, server } = context;
  const lockers = await openPostgresLockers(server.url);
  const results = [];
  const measure = async (scenario) => results.push(report(await play(scenario, seconds)));
  try {
    for (const inFlight of IN_FLIGHT) await measure(pairsInFlight(context, lockers, inFlight));
    for (const inFlight of IN_FLIGHT) {
      for (const [title, operation] of VALUES) {
        await measure(values(title, lockers, inFlight, ({ hf }) => operation(hf.kv), operation));
      }
      await measure(transactions(context, lockers, inFlight));
      await measure(statements(lockers, inFlight));
    }
  } finally {
    await closeLockers(lockers);
  }
  return results;
}

function handOvers(title, waiters, child) {
  return {
    title: `hand-over, ${title}`,
    unit: 'hand-overs',
    ours: 3,
    timed: true,
    contenders: Object.fromEntries(Object.entries(waiters).map(([name, locker]) => [
      name, (seconds) => handOverInTrips({ name, locker, child }, seconds),
    ])),
  };
}

async function measureHandOvers({ seconds, report, server }) {
  const waiters = await openPostgresWaiters(server.url);
  const child = startChild('postgres-child.js', [server.url]);
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

function aims(results) {
  const ratio = (inFlight, figure, peer, limit, most = false) => {
    const { ratios } = results[IN_FLIGHT.indexOf(inFlight)];
    return !(peer in ratios) ? [] : [{
      what: `${figure === 'rate' ? 'advisory locks per second' : figure} at ${flight(inFlight)}, ` +
        `against ${peer}`,
      aim: `at ${most ? 'most' : 'least'} ${limit} x`,
      measured: ratios[peer][figure].median,
      met: (value) => (most ? value <= limit : value >= limit),
    }];
  };
  return [
    ...ratio(100, 'rate', ADVISORY_LOCK, 40),
    ...ratio(100, 'rate', BY_HAND, 4),
    ...ratio(100, 'rate', PGBENCH, 1.5),
    ...ratio(1, 'p50', BY_HAND, 1, true),
  ];
}

async function run(context) {
  const server = await startPostgres();
  try {
    const whole = { ...context, server };
    const results = [...await measureInFlight(whole), ...await measureHandOvers(whole)];
    return { results, aims: aims(results) };
  } finally {
    await server.stop();
  }
}

module.exports = { about: 'locks, values and transactions on one PostgreSQL', run };
