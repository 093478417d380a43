'use strict';

// The benchmarks. They compare and never fail for a figure; see docs/benchmarks.md.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');

const { chart } = require('./chart');
const { aimsText, scenarioText } = require('./report');

const OUT = path.join(__dirname, 'out');
const SUITES = ['sqlite', 'express', 'once', 'kv', 'handover', 'redis', 'postgres', 'quorum',
  'wake', 'scale'];
// `scale` has no peer to compare with, and takes more than a minute whatever --seconds says; `wake`
// is what a decision rests on, and measures nothing of Holdfast; the others take some minutes.
const ONLY_ASKED = ['postgres', 'quorum', 'wake', 'scale'];
const UNASKED = SUITES.filter((name) => !ONLY_ASKED.includes(name));
const SECONDS = 1.5;
const HELP = `usage: node bench/index.js [suite...] [--seconds N] [--json FILE]

suites: ${SUITES.join(', ')}; by default all but ${ONLY_ASKED.join(', ')}
  --seconds N   how long each contender of each scenario is measured, ${SECONDS} by default
  --json FILE   where the figures go, bench/out/latest.json by default; a chart goes beside it
`;

function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      seconds: { type: 'string', default: String(SECONDS) },
      json: { type: 'string', default: path.join(OUT, 'latest.json') },
      help: { type: 'boolean', default: false },
    },
  });
  const seconds = Number(values.seconds);
  if (!(seconds >= 0.1 && seconds <= 600)) throw new RangeError('--seconds is from 0.1 to 600');
  const unknown = positionals.find((name) => !SUITES.includes(name));
  if (unknown !== undefined) throw new RangeError(`there is no suite ${unknown}`);
  const names = positionals.length > 0 ? positionals : UNASKED;
  return { help: values.help, json: values.json, seconds, names };
}

function machine() {
  const cpus = os.cpus();
  return {
    cores: os.availableParallelism(),
    cpu: cpus.length > 0 ? cpus[0].model : 'unknown',
    kernel: `${os.type()} ${os.release()}`,
    node: process.version,
    load: os.loadavg()[0],
  };
}

function report(result) {
  console.log(scenarioText(result));
  return result;
}

async function runSuite(name, seconds) {
  const suite = require(`./suites/${name}`);
  // On the disk of the project: the folder for temporary files may be memory.
  const folder = fs.mkdtempSync(path.join(OUT, 'files-'));
  console.log(`== ${name}: ${suite.about}\n`);
  try {
    const { results, aims } = await suite.run({ folder, seconds, report });
    return {
      results,
      aims: aims.map((aim) => ({ ...aim, met: aim.met(aim.measured) })),
    };
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

async function main() {
  const { help, json, seconds, names } = readArguments();
  if (help) {
    console.log(HELP);
    return;
  }
  fs.mkdirSync(OUT, { recursive: true });
  const outcome = { date: new Date().toISOString(), machine: machine(), seconds, suites: {} };
  for (const name of names) outcome.suites[name] = await runSuite(name, seconds);
  const all = Object.values(outcome.suites);
  const { cores, node } = outcome.machine;
  const drawing = `${json.replace(/\.json$/, '')}.svg`;
  fs.writeFileSync(json, `${JSON.stringify(outcome, null, 1)}\n`);
  fs.writeFileSync(drawing, chart(
    all.flatMap(({ results }) => results),
    `medians, and quartiles as lines; ${cores} cores, Node ${node}, ${outcome.date.slice(0, 10)}`,
  ));
  const aims = all.flatMap((suite) => suite.aims);
  if (aims.length > 0) console.log(`${aimsText(aims)}\n`);
  console.log(`${json}\n${drawing}`);
}

main().catch((error) => {
  console.error(error instanceof RangeError || error.code?.startsWith('ERR_PARSE_ARGS')
    ? `${error.message}\n\n${HELP}` : error);
  process.exitCode = 1;
});
