'use strict';

// Keeps a number of operations in flight for a while, and measures them.

const { monitorEventLoopDelay } = require('node:perf_hooks');
const { setTimeout: sleep } = require('node:timers/promises');

const { Samples } = require('./stats');

const LAG_RESOLUTION_MS = 1;
const LAG_SHARE = 1 / 3; // of the time that the operations themselves are measured

/**
 * What one contender did in one round.
 *
 * @typedef {object} Measure
 * @property {number} rate operations per second
 * @property {number} p50 ms
 * @property {number} p99 ms
 * @property {number} cpu microseconds of all threads of all processes that took part, per operation
 * @property {number} lag99 ms by which the event loop came late to a timer
 * @property {number} block ms, the greatest of these
 * @property {number} [least] operations of the lane that had the fewest, as a part of the mean: 1
 *   where all had as many; only with several lanes
 */

/** Resolves in the next turn of the event loop. */
function turn() {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

/**
 * Runs `operation(lane, n)` in `inFlight` lanes. Between two operations a lane lets the event loop
 * turn once, as the work of a real task would: otherwise a contender that blocks would never let go
 * of it at all. The clock starts before that turn, so that who blocks the loop pays for the time
 * that others stand behind it.
 *
 * @param {(lane: number, n: number) => unknown} operation
 * @param {{ inFlight: number, seconds: number }} how
 * @returns {Promise<{ count: number, lanes: number[], seconds: number, times: Samples,
 *   cpu: number, lag: object }>}
 */
async function load(operation, { inFlight, seconds }) {
  const times = new Samples();
  const usage = process.cpuUsage();
  const started = performance.now();
  const lanes = await drive(operation, new Array(inFlight).fill(0), seconds, times);
  const took = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(usage);
  const lag = await lagUnder(operation, lanes, seconds * LAG_SHARE);
  return { count: times.length, lanes, seconds: took, times, cpu: user + system, lag };
}

// Keeps one operation in flight in each lane, the first being number from[lane]; resolves with the
// number of the next in each.
function drive(operation, from, seconds, times) {
  const end = performance.now() + 1000 * seconds;
  async function lane(first, number) {
    for (let n = first; ; n++) {
      const asked = performance.now();
      if (asked >= end && n > first) return n;
      await turn();
      await operation(number, n);
      times.add(performance.now() - asked);
    }
  }
  return Promise.all(from.map(lane));
}

// In a stretch of its own: the monitor's timer wakes the loop every millisecond, and costs each
// operation alone in flight a quarter of its time or more.
async function lagUnder(operation, from, seconds) {
  const monitor = monitorEventLoopDelay({ resolution: LAG_RESOLUTION_MS });
  monitor.enable();
  await drive(operation, from, seconds, new Samples());
  // Where the loop never turned, the monitor's timer is due only now.
  await sleep(2 * LAG_RESOLUTION_MS);
  monitor.disable();
  return lagOf(monitor);
}

// The monitor counts from one of its timers to the next: what exceeds its resolution is lag.
function lagOf(monitor) {
  const late = (ns) => Math.max(0, ns / 1e6 - LAG_RESOLUTION_MS);
  return { p99: late(monitor.percentile(99)), max: late(monitor.max) };
}

/**
 * Makes one measure of what one or several processes did at the same time.
 *
 * @param {Array<Awaited<ReturnType<typeof load>>>} loads
 * @returns {Measure}
 */
function measureOf(loads) {
  const times = new Samples();
  let rate = 0;
  let cpu = 0;
  for (const one of loads) {
    times.addAll(one.times instanceof Samples ? one.times.sorted() : one.times);
    rate += one.count / one.seconds;
    cpu += one.cpu;
  }
  const lanes = loads.flatMap((one) => one.lanes);
  return {
    rate,
    p50: times.quantile(0.5),
    p99: times.quantile(0.99),
    cpu: cpu / times.length,
    lag99: Math.max(...loads.map(({ lag }) => lag.p99)),
    block: Math.max(...loads.map(({ lag }) => lag.max)),
    ...(lanes.length > 1 ? { least: Math.min(...lanes) / (times.length / lanes.length) } : {}),
  };
}

module.exports = { load, measureOf, turn };
