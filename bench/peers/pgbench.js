'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

/**
 * A contender that is pgbench with a script, prepared: `(seconds) => measure`.
 *
 * @param {string} program
 * @param {{ url: string, folder: string, name: string, clients: number, script: string }} how
 */
function pgbench(program, { url, folder, name, clients, script }) {
  const file = path.join(folder, `${name}.sql`);
  fs.writeFileSync(file, script);
  // It takes whole seconds: what is measured for less is counted for one.
  return async (seconds) => {
    const args = ['-n', '-M', 'prepared', '-f', file, '-c', String(clients), '-j', '1',
      '-T', String(Math.max(1, Math.round(seconds))), url];
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => { said += text; });
    }
    await new Promise((resolve, reject) => {
      child.on('close', resolve);
      child.on('error', reject);
    });
    const rate = Number(/^tps = ([\d.]+)/m.exec(said)?.[1]);
    const p50 = Number(/^latency average = ([\d.]+) ms/m.exec(said)?.[1]);
    if (!(rate > 0)) throw new Error(`pgbench did not work:\n${said}`);
    return { rate, average: p50 };
  };
}

module.exports = { pgbench };
