'use strict';

const { once } = require('node:events');
const { EXIT } = require('./exit');
const { holderOf, modeOf, plain, seconds, whoOf } = require('./show');
const { DEFAULT_URL, asUsage, sharedUrlOf, shown, withStore } = require('./store');

// Lines are printed as they come, so columns cannot be as wide as the widest of all.
const WIDTHS = [32, 28, 11, 13];

const help = `Usage: holdfast locks [options]

Lists the locks that are held, in order of key, one line for each holder: key, who holds it, how
(exclusive, shared, or one of so many permits), the time left unless it is renewed, and its note.
However many there are, it begins to print at once.

Options
  --prefix TEXT only keys that begin with it
  --url URL     the store; else HOLDFAST_URL, else ${DEFAULT_URL}
  --json        print one JSON object for each holder, one on a line
  -h, --help    show this

Exits 0 also when nothing is held.

Examples
  holdfast locks
  holdfast locks --prefix invoices/ --url sqlite:/var/lib/shop/holdfast.db
  holdfast locks --json | jq -r 'select(.remaining < 1000) | .key'`;

function lineOf(key, holder) {
  const columns = [plain(key), whoOf(holder), modeOf(holder), `${seconds(holder.remaining)} left`];
  const line = columns.map((text, i) => text.padEnd(WIDTHS[i])).join('  ');
  return `${line}  ${plain(holder.note)}`.trimEnd();
}

function jsonOf(key, holder) {
  return JSON.stringify({ key, ...holderOf(holder) });
}

/** Writes a line, and waits where its reader is slower than the store. */
async function print(line, { stdout, signal }) {
  if (!stdout.write(`${line}\n`)) await once(stdout, 'drain', { signal });
}

async function run({ prefix, url: given, json }, io) {
  const url = sharedUrlOf({ url: given }, io.env);
  const show = json ? jsonOf : lineOf;
  let holders = 0;
  await withStore(url, async (hf) => {
    for await (const info of hf.locks({ prefix })) {
      for (const holder of info.holders) {
        await print(show(info.key, holder), io);
        holders++;
      }
      if (io.signal?.aborted) return;
    }
  }).catch((error) => {
    throw asUsage(error); // such as a prefix with which no key can begin
  });
  if (holders === 0 && !json) await print(`no lock is held on ${shown(url)}`, io);
  return EXIT.OK;
}

module.exports = {
  summary: 'list the locks that are held',
  help,
  options: { prefix: { type: 'string' } },
  positionals: [],
  run,
};
