'use strict';

const { EXIT } = require('./exit');
const { asUsage, urlOf } = require('./store');

const help = `Usage: holdfast prove [url] [options]

Plays five ways in which concurrent services corrupt shared state, with real processes: once with
the code that most people write, once with Holdfast, on the same store. Takes about 15 seconds.

  checkout   50 duplicates of one checkout, sent at once to two copies of a small HTTP shop
  stock      a stock of 5, bought by 20 processes
  nightly    a nightly job, started by 6 processes
  killed     a holder of a lock, killed with SIGKILL
  blocked    a holder whose event loop blocks for 5 s, with a TTL of 1 s

With --against redlock the library redlock, as it is installed in your project, takes the place of
naive code, on a Redis server of yours: in killed, in blocked, and in

  handover   a lock that passes between two processes, timed

It uses keys of its own, which begin with "holdfast-prove/", and removes them afterwards. Servers
listen on loopback only.

Arguments
  url           the store; else HOLDFAST_URL, else a new SQLite file in a temporary folder, removed
                afterwards. memory: is refused: its store is one process's own.

Options
  --url URL     the same as the argument
  --against redlock
                play it, and not naive code, beside Holdfast; redlock and ioredis are taken from the
                project in whose folder this is run, the server is that of a redis: or rediss: URL
  --only NAMES  play only these trials, separated by commas
  --json        print what happened as one JSON object
  -h, --help    show this

Exits 0 if Holdfast kept every guarantee and 1 if not. That the naive code breaks is expected; that
it gets lucky is no failure. What becomes of redlock does not matter to it either.

Examples
  npx holdfast prove
  holdfast prove sqlite:./holdfast.db
  holdfast prove redis://127.0.0.1:6379 --against redlock
  holdfast prove --json | jq '.trials[] | [.name, .naive.held, .holdfast.held]'`;

/** Whether a stream wants colour. */
function wantsColour(stdout, env) {
  return Boolean(stdout.isTTY) && !env.NO_COLOR && env.TERM !== 'dumb';
}

/**
 * Plays the trials and prints them, as they come or as JSON.
 *
 * @param {{ url?: string, against?: string, only?: string, json?: boolean }} given
 * @param {object} io see runCommand
 * @param {{ title?: string, shop?: string }} [o] head line, and another shop for the first trial
 * @returns {Promise<number>} the exit code
 */
async function play({ url, against, only, json }, { stdout, env, signal }, { title, shop } = {}) {
  const { prove } = require('../prove');
  const page = require('../prove/page');
  const style = { colour: wantsColour(stdout, env), title };
  const print = (text) => json || stdout.write(`${text}\n`);
  const result = await prove({
    url,
    against,
    only: only?.split(','),
    shop,
    signal,
    onStart: (info) => print(page.head(info, style)),
    onTrial: (played, nth) => print(page.trial(played, nth, style)),
  });
  print(page.verdict(result, style));
  if (json) stdout.write(`${JSON.stringify(result, null, 2)}\n`);
  return result.held ? EXIT.OK : EXIT.FAILED;
}

async function run(given, io) {
  try {
    return await play({ ...given, url: urlOf(given, io.env) }, io);
  } catch (error) {
    throw asUsage(error);
  }
}

module.exports = {
  summary: 'play the trials on your own store: naive code, or redlock, beside Holdfast',
  help,
  options: { against: { type: 'string' }, only: { type: 'string' } },
  positionals: ['url'],
  play,
  run,
};
