'use strict';

// Runs mocha once for each test file, a few at a time: most tests wait for time to pass, and a
// process of its own shows what a file leaves behind when it exits. Each log is printed whole when
// its file is done. Shows once more in the end what failed, then `N passed, N failed, N skipped`.
//
//   node script/mocha.js [--jobs N] [--without NAME,NAME...] [mocha's options]
//
// `--without cli,redlock` leaves out the files whose names begin so.

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const program = path.join(root, 'node_modules/mocha/bin/mocha.js');
const folders = ['test', 'bench'];

/** The test files, those with the most slow tests first: they must not be what is waited for. */
function testFiles() {
  const inside = (folder) => fs.readdirSync(path.join(root, folder), { recursive: true })
    .filter((name) => name.endsWith('.test.js')).map((name) => path.join(folder, name));
  const slow = (name) => fs.readFileSync(path.join(root, name), 'utf8').split('[slow]').length;
  return folders.flatMap(inside).map((name) => ({ name, slow: slow(name) }))
    .sort((a, b) => b.slow - a.slow || a.name.localeCompare(b.name)).map(({ name }) => name);
}

function runFile(name, options) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [program, ...options, name], {
      cwd: root, stdio: ['ignore', 'pipe', 'pipe'],
    });
    const chunks = [];
    child.stdout.on('data', (chunk) => chunks.push(chunk));
    child.stderr.on('data', (chunk) => chunks.push(chunk));
    child.on('close', (code, signal) => {
      const log = Buffer.concat(chunks).toString();
      const number = (word) => Number(new RegExp(`^ +(\\d+) ${word}`, 'm').exec(log)?.[1] ?? 0);
      const failed = number('failing');
      resolve({
        name,
        log,
        passed: number('passing'),
        skipped: number('pending'),
        // A process that ends badly without saying which test it was is one failure.
        failed: failed === 0 && code !== 0 ? 1 : failed,
        end: signal ?? code,
      });
    });
  });
}

/** Takes an option of ours and its value out of the arguments; gives the value, if it is there. */
function take(args, option) {
  const at = args.indexOf(option);
  return at < 0 ? undefined : args.splice(at, 2)[1];
}

async function main(options) {
  const jobs = Number(take(options, '--jobs') ?? 1);
  if (!(jobs >= 1)) throw new Error('--jobs takes a number from 1');
  const without = take(options, '--without')?.split(',') ?? [];
  const files = testFiles()
    .filter((file) => !without.some((name) => path.basename(file).startsWith(name)));
  const done = [];
  await Promise.all(Array.from({ length: jobs }, async () => {
    while (files.length > 0) {
      const result = await runFile(files.shift(), options);
      done.push(result);
      console.log(`${result.name}\n${result.log.trimEnd()}\n`);
    }
  }));
  const bad = done.filter(({ failed }) => failed > 0);
  for (const { name, end, log } of bad) {
    const summary = /^ +\d+ passing/m.exec(log)?.index;
    const lines = log.slice(summary ?? 0).split('\n');
    const shown = (summary === undefined ? lines.slice(-60) : lines).join('\n');
    console.log(`FAILED ${name}, ended with ${end}\n${shown.trim()}\n`);
  }
  const sum = (what) => done.reduce((total, result) => total + result[what], 0);
  console.log(`${sum('passed')} passed, ${sum('failed')} failed, ${sum('skipped')} skipped`);
  process.exitCode = bad.length > 0 ? 1 : 0;
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exitCode = 2;
});
