'use strict';

// A Redis of the benchmark's own: on a free port of this machine, without persistence.

const { spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');

const TRIES = 5;
const READY = 'Ready to accept connections';
// Ctrl-C reaches the servers too, but not one that is frozen: it would stay behind.
const ENDING = ['SIGTERM', 'SIGINT'];

/** A port that was free a moment ago. */
async function freePort() {
  const server = net.createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

// Resolves with true when it is ready, with false if it ends before.
async function ready(server) {
  server.stdout.setEncoding('utf8');
  let said = '';
  for await (const words of server.stdout.iterator({ destroyOnReturn: false })) {
    said += words;
    if (said.includes(READY)) return true;
  }
  return false;
}

async function startAt(port, dir) {
  const settings = ['--port', port, '--bind', '127.0.0.1', '--save', '', '--dir', dir];
  const server = spawn('redis-server', settings, { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(server, 'spawn');
  const leave = () => server.kill('SIGKILL');
  const stopped = () => process.exit(1);
  process.once('exit', leave);
  for (const signal of ENDING) process.once(signal, stopped);
  const exit = once(server, 'exit').then(() => {
    process.off('exit', leave);
    for (const signal of ENDING) process.off(signal, stopped);
  });
  if (!await ready(server)) {
    await exit;
    return null;
  }
  server.stdout.resume(); // nobody reads on, and a full pipe would stop it
  return {
    port,
    /** The server stands still, and its connections stay open. */
    freeze: () => server.kill('SIGSTOP'),
    resume: () => server.kill('SIGCONT'),
    async stop() {
      server.kill('SIGTERM');
      server.kill('SIGCONT'); // one that is frozen would never hear of it
      await exit;
    },
  };
}

/**
 * Starts a redis-server that keeps its files in `folder`.
 *
 * @returns {Promise<{ port: number, freeze: () => void, resume: () => void,
 *   stop: () => Promise<void> } | null>} null where redis-server is not installed
 */
async function startRedis(folder) {
  const dir = path.join(folder, 'redis');
  fs.mkdirSync(dir);
  try {
    for (let i = 0; i < TRIES; i++) {
      const server = await startAt(await freePort(), dir); // another may have taken the port
      if (server !== null) return server;
    }
  } catch (error) {
    if (error.code === 'ENOENT') return null;
    throw error;
  }
  throw new Error(`redis-server ended ${TRIES} times before it was ready`);
}

module.exports = { startRedis };
