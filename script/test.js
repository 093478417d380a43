'use strict';

// Runs every check of the project, stage by stage, and sums up. Goes on after a stage that failed,
// shows what failed in it, and ends with `N passed, N failed`. A stage that finds nothing to do has
// failed: a check that went missing must not look like one that passed.
//
//   node script/test.js                 makes the machine ready, then all stages in order
//   node script/test.js lint c          only these groups, on a machine that is ready
//   node script/test.js --list          their names

const { execFileSync, spawn, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { libraries, program } = require('../test/server-process');

const root = path.join(__dirname, '..');
const logs = path.join(root, '.test-logs');
const minute = 60_000;
const shownLines = 120;

/** A command that passes or fails as a whole: one check. */
function countWhole(log, code) {
  return code === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };
}

/** Makes a stage that ran nothing, or that failed without saying which check did, one failure. */
function orFailed(total, code) {
  if (total.failed > 0) return total;
  if (code !== 0) return { ...total, failed: 1, report: `ended with code ${code}` };
  return total.passed > 0 ? total : { ...total, failed: 1, report: 'no check ran' };
}

/** Sums the lines `N passed, N failed` of every program that ran. */
function countLines(log, code) {
  const total = { passed: 0, failed: 0 };
  for (const [, passed, failed] of log.matchAll(/^(\d+) passed, (\d+) failed$/gm)) {
    total.passed += Number(passed);
    total.failed += Number(failed);
  }
  return orFailed(total, code);
}

function countMocha(log, code) {
  const sums = /^(\d+) passed, (\d+) failed, (\d+) skipped$/m.exec(log)?.slice(1).map(Number);
  const [passed, failed, skipped] = sums ?? [0, 0, 0];
  return orFailed({ passed, failed, skipped }, code);
}

/** What of a log is worth showing: mocha's failures, else all but the tests that passed. */
function excerpt(log) {
  const failures = /^FAILED test|^FAILED bench/m.exec(log);
  const text = failures ? log.slice(failures.index) : log;
  const lines = text.split('\n').filter((line) => !/^ {2}ok {6}|^ {2}cc /.test(line));
  const left = Math.max(0, lines.length - shownLines);
  return [...(left > 0 ? [`(${left} lines left out)`] : []), ...lines.slice(left)].join('\n');
}

/** The reports of the sanitizers that concern our code. Node itself frees little when it exits. */
function sanitizerReports(folder) {
  const ours = /csrc\/|holdfast\.node|libsqlite3/;
  return fs.readdirSync(folder).flatMap((name) => {
    const report = fs.readFileSync(path.join(folder, name), 'utf8');
    if (!report.includes('LeakSanitizer')) return report.trim() === '' ? [] : [report];
    // What V8 allocates for itself is its own, though it may be our callback that ran it.
    return report.split(/\n\n+/).filter((block) => / leak of /.test(block)
      && ours.test(block.split(/\n.*(?:Builtins_|v8::internal::)/)[0]));
  });
}

/** mocha once more with the addon under ASan and UBSan; a report is a failure of its own. */
function sanitizedMocha() {
  const reports = path.join(logs, 'sanitizer');
  const library = (name) => execFileSync('gcc', [`-print-file-name=${name}`], { encoding: 'utf8' });
  return {
    prepare() {
      fs.rmSync(reports, { recursive: true, force: true });
      fs.mkdirSync(reports, { recursive: true });
      // exitcode=0: what Node leaves behind must not change how a child process of a test ends.
      const options = `log_path=${path.join(reports, 'report')}:exitcode=0:abort_on_error=1`;
      return {
        LD_PRELOAD: `${library('libasan.so').trim()} ${library('libubsan.so').trim()}`,
        HOLDFAST_ADDON: path.join(root, 'build-asan/build/Release/holdfast.node'),
        ASAN_OPTIONS: `${options}:detect_leaks=1`,
        UBSAN_OPTIONS: 'print_stacktrace=1',
      };
    },
    count(log, code) {
      const total = countMocha(log, code);
      const found = sanitizerReports(reports);
      total.failed += found.length;
      total.report = [total.report, ...found].filter(Boolean).join('\n\n');
      return total;
    },
  };
}

/** The C tests of Redis once more, on the Valkey that script/servers has found or unpacked. */
const onValkey = {
  prepare() {
    return { HF_REDIS_SERVER: program('valkey-server'), LD_LIBRARY_PATH: libraries() };
  },
};

const node = process.execPath;
const bin = (name) => path.join(root, 'node_modules', name);
const make = ['make', '--silent', '-C', 'test/c', '-j2', '--output-sync=target'];
const makeC = (...args) => [...make, ...args];
const layers = [node, 'script/check-layers.js'];
const mocha = [node, 'script/mocha.js', '--jobs', '2'];
const tsc = bin('typescript/bin/tsc');
// What is JavaScript above calls of the addon that others make too: it shows a sanitizer nothing.
const scripted = ['cli', 'docs', 'express', 'history', 'prove', 'proxy', 'redlock', 'report',
  'stats'];

const stages = [
  { group: 'layers', title: 'layers, the rules', command: [...layers, '--self-test'] },
  { group: 'layers', title: 'layers, the includes', command: layers },
  { group: 'lint', title: 'clang-format', command: ['bash', 'script/lint-c', 'format'] },
  { group: 'lint', title: 'clang-tidy', command: ['bash', 'script/lint-c', 'tidy'] },
  { group: 'lint', title: 'eslint', command: [node, bin('eslint/bin/eslint.js'), '.'] },
  { group: 'lint', title: 'scripts', command: [node, 'script/embed.js', '--check'] },
  { group: 'c', title: 'C examples build', command: makeC('MODE=plain', 'examples') },
  {
    group: 'c', title: 'C tests, ASan and UBSan', command: makeC('-k', 'MODE=asan', 'run'),
    count: countLines, limit: 8 * minute,
  },
  {
    group: 'c', title: 'C tests, TSan', command: makeC('-k', 'MODE=tsan', 'run'),
    count: countLines, limit: 8 * minute,
  },
  {
    group: 'c', title: 'C tests of Redis, on Valkey',
    command: makeC('MODE=asan', ...['store', 'conformance', 'sentinel-conformance',
      'cluster-conformance', 'cluster'].map((name) => `run-redis-${name}`), 'run-model'),
    count: countLines, ...onValkey,
  },
  { group: 'mocha', title: 'mocha', command: mocha, count: countMocha, limit: 25 * minute },
  {
    group: 'asan', title: 'addon builds under ASan',
    command: ['bash', 'script/build', '--sanitize'],
  },
  {
    group: 'asan', title: 'mocha, addon under ASan',
    command: [...mocha, '--without', scripted.join(','),
      '--grep', '\\[slow\\]', '--invert', '--timeout', '120000'],
    limit: 20 * minute, ...sanitizedMocha(),
  },
  { group: 'types', title: 'types', command: [node, tsc, '-p', 'test/types'] },
  {
    group: 'fuzz', title: 'fuzz, a slice',
    command: ['bash', 'script/fuzz', '--seconds', '5'], count: countLines,
  },
  { group: 'soak', title: 'soak, a slice', command: [node, 'test/soak.js', '--seconds', '15'] },
  { group: 'package', title: 'package', command: [node, 'test/packaging.js'], count: countLines },
];

let running = null;

/** Runs one command with its output in a file; ends its whole process group at the limit. */
function run(stage, file) {
  return new Promise((resolve) => {
    const output = fs.openSync(file, 'w');
    const child = spawn(stage.command[0], stage.command.slice(1), {
      cwd: root,
      detached: true,
      env: { ...process.env, ...stage.prepare?.() },
      stdio: ['ignore', output, output],
    });
    const limit = stage.limit ?? 5 * minute;
    const timer = setTimeout(() => {
      fs.writeSync(output, `\ntook longer than ${limit / minute} minutes and was ended\n`);
      process.kill(-child.pid, 'SIGKILL');
    }, limit);
    const done = (code) => {
      clearTimeout(timer);
      fs.closeSync(output);
      running = null;
      resolve(code);
    };
    running = child;
    child.on('error', (error) => {
      fs.writeSync(output, `${error.message}\n`);
      done(1);
    });
    child.on('close', (code) => done(code ?? 1));
  });
}

/** Runs a stage, prints its line and, if it failed, what failed; returns its counts. */
async function runStage(stage) {
  const file = path.join(logs, `${stage.title.replaceAll(/[^\w]+/g, '-')}.log`);
  process.stdout.write(`${stage.title} ... `);
  const start = performance.now();
  const code = await run(stage, file);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const log = fs.readFileSync(file, 'utf8');
  const total = (stage.count ?? countWhole)(log, code);
  const skipped = total.skipped ? `, ${total.skipped} skipped` : '';
  console.log(`${total.passed} passed, ${total.failed} failed${skipped} (${seconds} s)`);
  if (total.failed > 0) {
    const text = [excerpt(log).trim(), total.report].filter(Boolean).join('\n\n');
    console.log(text.replaceAll(/^/gm, '    '));
    console.log(`    the whole log: ${path.relative(process.cwd(), file)}`);
  }
  return total;
}

/** Packages, the addon, servers: without them no stage means anything. To the terminal. */
function bootstrap() {
  const command = ['script/bootstrap', 'tests'];
  const { status } = spawnSync('bash', command, { cwd: root, stdio: 'inherit' });
  return status === 0;
}

async function main(groups) {
  const known = [...new Set(stages.map(({ group }) => group))];
  if (groups[0] === '--list') return console.log(known.join('\n'));
  const unknown = groups.filter((group) => !known.includes(group));
  if (unknown.length > 0) throw new Error(`no such group: ${unknown.join(', ')}; see --list`);

  const sum = { passed: 0, failed: 0 };
  if (groups.length === 0 && !bootstrap()) {
    process.exitCode = 1;
    return console.log('0 passed, 1 failed');
  }
  fs.mkdirSync(logs, { recursive: true });
  for (const stage of stages) {
    if (groups.length > 0 && !groups.includes(stage.group)) continue;
    const total = await runStage(stage);
    sum.passed += total.passed;
    sum.failed += total.failed;
  }
  process.exitCode = sum.failed > 0 ? 1 : 0;
  return console.log(`${sum.passed} passed, ${sum.failed} failed`);
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.once(signal, () => {
    if (running) process.kill(-running.pid, 'SIGKILL');
    process.kill(process.pid, signal);
  });
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exitCode = 2;
});
