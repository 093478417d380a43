'use strict';

// Processes that work on one store while everything that may fail does, and a judgement of what
// they wrote down. Ends with exit code 1 if a guarantee broke.
//
//   node test/soak.js [--seconds 60 | --minutes N] [--store sqlite] [--seed N] [--history FILE]

const fs = require('node:fs');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { parseArgs } = require('node:util');
const { endAll, seeded } = require('./fault-harness');
const { stopAll } = require('./redis-servers');
const { sites, soak } = require('./soak-run');

const SHOWN = 20; // violations

function countErrors(history) {
  const counts = new Map();
  for (const { type, code } of history) {
    if (type === 'error') counts.set(code, (counts.get(code) ?? 0) + 1);
  }
  return [...counts].map(([code, n]) => `${n} x ${code}`).join(', ');
}

function readArguments() {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string' },
      minutes: { type: 'string' },
      store: { type: 'string', default: 'sqlite' },
      seed: { type: 'string' },
      history: { type: 'string' },
    },
  });
  const { minutes, store, seed } = values;
  const seconds = Number(values.seconds ?? (minutes === undefined ? 60 : minutes * 60));
  if (!(seconds > 0)) throw new RangeError('--seconds and --minutes must be numbers above 0');
  if (!Object.hasOwn(sites, store)) {
    throw new RangeError(`--store is one of ${Object.keys(sites).join(', ')}`);
  }
  const random = seed === undefined ? seeded() : seeded(Number(seed));
  return { seconds, store, random, file: values.history };
}

/** The servers that a machine may lack. */
function prepare(store) {
  if (store === 'sqlite') return;
  const cwd = path.join(__dirname, '..');
  const { status } = spawnSync('bash', ['script/servers'], { cwd, stdio: 'inherit' });
  if (status !== 0) throw new Error('the servers are missing');
}

async function main() {
  const { seconds, store, random, file } = readArguments();
  prepare(store);
  console.log(`soak: ${store}, ${seconds} s, --seed ${random.seed}`);
  const { history, violations, summary } = await soak(store, seconds, random);
  if (file !== undefined) {
    fs.writeFileSync(file, history.map((event) => `${JSON.stringify(event)}\n`).join(''));
  }
  console.log(`soak: ${summary}`);
  const errors = countErrors(history);
  if (errors !== '') console.log(`soak: errors that the work met: ${errors}`);
  for (const violation of violations.slice(0, SHOWN)) console.error(`VIOLATION: ${violation}`);
  console.log(`soak: ${violations.length} violations, seed ${random.seed}`);
  process.exitCode = violations.length > 0 ? 1 : 0;
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 2;
}).finally(() => Promise.all([endAll(), stopAll()]));
