'use strict';

// How long after a release the next one has the lock: what a release costs those who wait.

const { endChild, nextMessage, startChild } = require('../child');
const { closeLockers } = require('../contenders');
const { startRedis } = require('../redis-server');
const { play } = require('../rounds');
const { handOver, openWaiters, LOCAL } = require('../waiters');

// A round must have more than a hundred hand-overs, each after some milliseconds of holding.
const LONGER = 5;

function scenario(title, waiters, names, child) {
  const contenders = Object.fromEntries(names.map((name) => [
    name, (seconds) => handOver({ name, locker: waiters[name], child }, seconds),
  ]));
  const ours = names.filter((name) => name.startsWith('Holdfast')).length;
  return { title, unit: 'hand-overs', contenders, ours, timed: true };
}

async function measure({ folder, seconds, report }, port) {
  const waiters = await openWaiters(folder, port);
  const child = startChild('handover-child.js', port === null ? [folder] : [folder, String(port)]);
  try {
    await nextMessage(child);
    const names = Object.keys(waiters);
    const shared = names.filter((name) => !LOCAL.includes(name));
    return [
      report(await play(scenario('two waiters of one process', waiters, names), LONGER * seconds)),
      report(await play(scenario('two processes', waiters, shared, child), LONGER * seconds)),
    ];
  } finally {
    await endChild(child);
    await closeLockers(waiters);
  }
}

async function run(context) {
  const redis = await startRedis(context.folder);
  if (redis === null) console.log('there is no redis-server: redis-semaphore is left out\n');
  try {
    return { results: await measure(context, redis === null ? null : redis.port), aims: [] };
  } finally {
    if (redis !== null) await redis.stop();
  }
}

module.exports = { about: 'from just before a release until the next one has the lock', run };
