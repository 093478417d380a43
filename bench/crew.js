'use strict';

// Several processes that lock keys of the same files at the same time.

const { ask, endChild, nextMessage, startChild } = require('./child');
const { measureOf } = require('./load');

/** Starts `size` processes and resolves when each has opened its stores in `folder`. */
async function openCrew(size, folder) {
  const children = Array.from({ length: size }, (_, id) => (
    startChild('crew-child.js', [folder, String(id)])
  ));
  await Promise.all(children.map(nextMessage));
  return {
    /** Lets all run the same; resolves with one Measure of them together. */
    async run(how) {
      return measureOf(await Promise.all(children.map((child) => ask(child, how))));
    },
    close: () => Promise.all(children.map(endChild)),
  };
}

module.exports = { openCrew };
