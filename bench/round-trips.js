'use strict';

// How long a PING takes there and back, as the unit of what a hand-over takes.

const { Samples } = require('./stats');
const { handOver, hold } = require('./waiters');

const PINGS = 25; // before the hand-overs of a round, and again after them

// After the pauses that a hand-over has between its steps: a server and a client that have slept
// are slower than those who are at it.
async function ping(locker, times) {
  for (let i = 0; i < PINGS; i++) {
    await hold();
    const asked = performance.now();
    await locker.ping();
    times.add(performance.now() - asked);
  }
}

/** handOver() of who can ping(), with `trips`: its p50 in round trips. */
async function handOverInTrips(who, seconds) {
  const times = new Samples();
  await ping(who.locker, times);
  const figures = await handOver(who, seconds);
  await ping(who.locker, times);
  const trip = times.quantile(0.5);
  const trips99 = 'p99' in figures ? { trips99: figures.p99 / trip } : {};
  return { ...figures, trips: figures.p50 / trip, ...trips99 };
}

module.exports = { handOverInTrips };
