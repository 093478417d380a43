'use strict';

// One process of a trial. It opens the store, says that it is ready, and then performs the acts
// it is asked for, one message each. The code it runs, naive and Holdfast's, is in the file of
// its trial.
//
// The URL comes by message, not as an argument: a process list must not show a password.

const { open } = require('..');
const { Sink } = require('./sink');

let hf;
let opponent;
let acts;

/** Sends, and waits until it is sent: what comes next may block this process. */
function send(message) {
  return new Promise((resolve) => {
    process.send(message, () => resolve());
  });
}

async function prepare(_id, { trial, url, options, rival: { name, modules } }) {
  ({ acts } = require(`./trials/${trial}`));
  hf = await open(url, options);
  if (modules) opponent = require(`./rivals/${name}`).open(modules, url);
}

/**
 * Runs an act of the trial. It gets the store, the rival that is played against, the sink, a way
 * to report, and its director's wishes.
 */
function perform(id, { act, sink, ...wishes }) {
  const notify = (name, value) => send({ id, event: { name, value } });
  return acts[act]({ hf, rival: opponent, notify, sink: new Sink(sink), ...wishes });
}

async function leave() {
  await hf.close();
  await opponent?.close();
}

const verbs = { prepare, perform, leave };

// The director is gone, or has let this process go.
process.on('disconnect', () => process.exit());

process.on('message', async ({ id, verb, spec }) => {
  try {
    await send({ id, value: await verbs[verb](id, spec) });
  } catch (error) {
    await send({ id, error: { code: error.code, message: error.message } });
  }
  if (verb === 'leave') process.disconnect();
});
