'use strict';

// The command `holdfast`: finds the subcommand, reads its arguments, and turns what comes of it
// into lines and an exit code. The subcommands themselves know neither process nor terminal.

const { parseArgs } = require('node:util');
const { version } = require('../../package.json');
const { EXIT, UsageError } = require('./exit');
const { redactText, report } = require('./report');

const COMMANDS = ['prove', 'inspect', 'locks', 'ping', 'schema'];

const SHARED_OPTIONS = {
  url: { type: 'string' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
};

/** A subcommand's module, loaded when it is needed: help must not wait for an addon. */
function command(name) {
  return require(`./${name}`);
}

function overview() {
  const width = Math.max(...COMMANDS.map((name) => name.length));
  return [
    'Usage: holdfast <command> [arguments]',
    '',
    'Locks that stay held, operations that run once, and writes that land only when their',
    'condition holds.',
    '',
    'Commands',
    ...COMMANDS.map((name) => `  ${name.padEnd(width)}   ${command(name).summary}`),
    '',
    'Options',
    '  -h, --help      show help, also after a command',
    '  -V, --version   show the version',
    '',
    'The store is named by the command\'s URL, else by HOLDFAST_URL, else it is the default of the',
    'command, which its help names.',
    '',
    'Exit codes',
    '  0   all is well',
    '  1   a guarantee broke, or the command failed',
    '  2   the command line is not understood',
    '',
    'Errors are one line; with DEBUG set they come with their stack.',
  ].join('\n');
}

/** The arguments of a subcommand, or a UsageError that says in one sentence what is wrong. */
function read(args, { options, positionals: names }) {
  let values;
  let positionals;
  try {
    ({ values, positionals } = parseArgs({
      args, options: { ...SHARED_OPTIONS, ...options }, allowPositionals: true,
    }));
  } catch (error) {
    if (!error.code?.startsWith('ERR_PARSE_ARGS')) throw error;
    const [sentence] = error.message.split(/\. |\n/);
    throw new UsageError(sentence.charAt(0).toLowerCase() + sentence.slice(1), { cause: error });
  }
  if (positionals.length > names.length) {
    throw new UsageError(`unexpected argument '${positionals[names.length]}'`);
  }
  const given = Object.fromEntries(positionals.map((text, i) => [names[i], text]));
  if (given.url !== undefined && values.url !== undefined) {
    throw new UsageError('the store is named twice: give a URL or --url, not both');
  }
  return { ...values, ...given };
}

function print(text, stdout) {
  stdout.write(`${text}\n`);
  return EXIT.OK;
}

async function run(name, args, io) {
  const found = command(name);
  const given = read(args, found);
  if (given.help) return print(found.help, io.stdout);
  try {
    return await found.run(given, io);
  } catch (error) {
    if (given.json && !(error instanceof UsageError) && !io.signal?.aborted) {
      const { code, message } = error;
      print(JSON.stringify({ error: { code, message: redactText(message) } }), io.stdout);
    }
    throw error;
  }
}

/**
 * Runs one command line. Never rejects.
 *
 * @param {string[]} argv what follows the command's own name
 * @param {object} io `stdout`, `stderr`, `env` as those of `process`; `signal` ends the command
 * @returns {Promise<number>} the exit code
 */
async function main(argv, io) {
  const [first, ...args] = argv;
  const wantsHelp = ['--help', '-h', 'help'].includes(first);
  let prefix = 'holdfast';
  try {
    if (first === '--version' || first === '-V') return print(version, io.stdout);
    if (first === undefined) throw new UsageError('which command?');
    const name = wantsHelp ? args[0] : first;
    if (name === undefined) return print(overview(), io.stdout);
    if (!COMMANDS.includes(name)) throw new UsageError(`there is no command '${name}'`);
    prefix = `holdfast ${name}`;
    return await run(name, wantsHelp ? ['--help'] : args, io);
  } catch (error) {
    if (io.signal?.aborted) return EXIT.FAILED;
    report(error, prefix, io);
    if (!(error instanceof UsageError)) return EXIT.FAILED;
    io.stderr.write(`Try '${prefix} --help'.\n`);
    return EXIT.USAGE;
  }
}

module.exports = { main };
