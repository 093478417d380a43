'use strict';

// The process that fault tests kill, freeze and block. Its role and their arguments come on the
// command line, commands as lines of JSON on standard input; it speaks in lines of JSON, each of
// which has left before the next statement runs.

const fs = require('node:fs');
const { createInterface } = require('node:readline');
const { isMainThread, workerData } = require('node:worker_threads');

/** Says something that outlives this process, however it ends in the next instant. */
function say(event, details) {
  fs.writeSync(1, `${JSON.stringify({ event, ...details })}\n`);
}

/** Milliseconds of the clock that all processes of this machine share. */
function now() {
  return Number(process.hrtime.bigint()) / 1e6;
}

function plain(error) {
  const { name, code, message, result } = error;
  return { name, code, message, result };
}

/** Answers each line of the input with what the command of that name returns or throws. */
function serve(commands) {
  const lines = createInterface(process.stdin);
  lines.on('line', async (line) => {
    const { command, args, id } = JSON.parse(line);
    let answer;
    try {
      answer = { value: await commands[command](args) };
    } catch (error) {
      answer = { error: plain(error) };
    }
    if (id !== 0) say('answer', { id, ...answer });
  });
}

const roles = {
  ...require('./fault-roles'),
  ...require('./fault-roles-advisory'),
  ...require('./fault-roles-leader'),
  ...require('./fault-roles-modes'),
  ...require('./fault-roles-once'),
  ...require('./fault-roles-postgres'),
  ...require('./fault-roles-scale'),
  ...require('./fault-roles-soak'),
};

const [role, args] = isMainThread
  ? [process.argv[2], JSON.parse(process.argv[3])]
  : [workerData.role, workerData.args];

roles[role](args, { say, now, serve, plain });
