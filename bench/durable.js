'use strict';

// What the suites of durable operations share: how many operations share one sync of the disk.

const { openDisk } = require('./disk');
const { load, measureOf } = require('./load');
const { openDurableTable } = require('./peers/durable-table');
const { openHoldfast } = require('./peers/holdfast');
const { play } = require('./rounds');
const { summary } = require('./stats');

const SYNCS = 200;
const IN_FLIGHT = [1, 100];

function measured(operation, inFlight) {
  return async (seconds) => measureOf([await load(operation, { inFlight, seconds })]);
}

/**
 * Runs each operation at 1 and at 100 in flight.
 *
 * @param {object} context of the suite
 * @param {Array<{ title: string, ours: Function, theirs: Function }>} operations `ours(hf)` and
 *   `theirs(table)` make an operation for load()
 * @returns {Promise<object[]>} results
 */
async function runDurable({ folder, seconds, report }, operations) {
  const { hf, close } = await openHoldfast(folder);
  const table = openDurableTable(folder);
  const results = [];
  try {
    for (const { title, ours, theirs } of operations) {
      const pair = [];
      for (const inFlight of IN_FLIGHT) {
        const contenders = {
          Holdfast: measured(ours(hf), inFlight),
          'SQLite table': measured(theirs(table), inFlight),
        };
        const scenario = { title: `${title}, ${inFlight} in flight`, contenders };
        pair.push(report(await play(scenario, seconds)));
      }
      results.push(...pair);
      console.log(`${groupText(pair)}\n`);
    }
    return results;
  } finally {
    await close();
    table.close();
  }
}

function groupText([single, many]) {
  const rate = ({ figures }, name) => figures[name].rate.median;
  const gain = (name) => (rate(many, name) / rate(single, name)).toFixed(1);
  return `  100 in flight against 1: Holdfast ${gain('Holdfast')} x, `
    + `SQLite table ${gain('SQLite table')} x`;
}

/** How long one fdatasync takes on this disk: without sharing, no durable commit is faster. */
function printDisk(folder) {
  const disk = openDisk(folder);
  const { median, q1, q3 } = summary(Array.from({ length: SYNCS }, () => disk.sync()));
  disk.close();
  console.log(`one fdatasync: ${median.toFixed(3)} ms (${q1.toFixed(3)} to ${q3.toFixed(3)}), `
    + `at most ${Math.round(1000 / median)} per second in a row\n`);
}

module.exports = { runDurable, printDisk };
