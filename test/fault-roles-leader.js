'use strict';

// A candidate in an election. What happens while it leads it writes down, see fault-notes.js.

const { setTimeout: sleep } = require('node:timers/promises');
const { open } = require('../lib');
const { Notes } = require('./fault-notes');

const SAMPLE_MS = 10;

/** Stands for election until it is told to stop, and then ends; or is killed. */
async function candidate({ url, name, options, history }, { say, now, serve }) {
  const hf = await open(url);
  const notes = new Notes(history, now);
  const lead = async (lock) => {
    const { token } = lock;
    if (!notes.taken(lock, { key: name, worker: process.pid })) return;
    say('leads', { token });
    while (!lock.signal.aborted) {
      notes.holding(lock);
      await sleep(SAMPLE_MS);
    }
    // Told to stop, it has the lock until this returns; after a loss it has not.
    notes.holding(lock);
    notes.releasing(lock);
  };
  const leader = hf.leader(name, lead, options);
  serve({
    stop: async () => {
      await leader.stop();
      await leader.done;
      await hf.close();
      process.stdin.destroy();
    },
    leading: () => leader.leading,
  });
  say('ready');
}

module.exports = { candidate };
