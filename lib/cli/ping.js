'use strict';

const { EXIT } = require('./exit');
const { DEFAULT_URL, shown, urlOf, withStore } = require('./store');

const help = `Usage: holdfast ping [url] [options]

Asks the store for an answer and says how long it took. Exits 0 if it answered.

Arguments
  url           the store; else HOLDFAST_URL, else ${DEFAULT_URL}

Options
  --url URL     the same as the argument
  --json        print { "store", "ms" }
  -h, --help    show this

Examples
  holdfast ping
  holdfast ping sqlite:/var/lib/shop/holdfast.db
  HOLDFAST_URL=sqlite:./holdfast.db holdfast ping --json`;

async function run(given, { stdout, env }) {
  const url = urlOf(given, env) ?? DEFAULT_URL;
  const ms = await withStore(url, async (hf) => {
    await hf.ping(); // connects
    return Math.round(1000 * await hf.ping()) / 1000;
  });
  const store = shown(url);
  stdout.write(given.json ? `${JSON.stringify({ store, ms })}\n` :
    `${store} answered in ${ms.toFixed(1)} ms\n`);
  return EXIT.OK;
}

module.exports = {
  summary: 'ask the store for an answer',
  help,
  options: {},
  positionals: ['url'],
  run,
};
