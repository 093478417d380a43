'use strict';

// What a command has to do with the process: streams, signals, exit code.

const os = require('node:os');
const { EXIT } = require('./exit');
const { report } = require('./report');

/**
 * Runs a command to its end and sets the exit code. Ctrl-C, a polite kill, and a reader that went
 * away (`holdfast prove | head`) end it tidily; a second Ctrl-C does not wait for that.
 *
 * @param {string} name for the line of an error
 * @param {(io: object) => Promise<number>} command gets `stdout`, `stderr`, `env` and a `signal`
 */
async function runCommand(name, command) {
  const { stdout, stderr, env } = process;
  const controller = new AbortController();
  const interrupt = (signal) => {
    process.exitCode = 128 + os.constants.signals[signal];
    controller.abort();
  };
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, interrupt);
  stdout.on('error', (error) => {
    if (error.code !== 'EPIPE') throw error;
    interrupt('SIGPIPE');
  });
  const io = { stdout, stderr, env, signal: controller.signal };
  let code;
  try {
    code = await command(io);
  } catch (error) {
    if (!io.signal.aborted) report(error, name, io);
    code = EXIT.FAILED;
  }
  process.exitCode ??= code;
}

module.exports = { runCommand };
