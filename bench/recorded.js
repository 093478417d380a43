'use strict';

// The commands by which Holdfast takes and releases a lock on Redis, to be sent by others: read off
// the wire, so that they are what Holdfast sends, whatever becomes of its scripts.

const { once } = require('node:events');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');

const { open } = require('holdfast');

/** The key and, of the same length as any other, the token that stand in what is recorded. */
const KEY = 'recorded-000000';
const END = '\r\n';

/** Passes on what comes and goes between a client and the server at `port`, and writes it down. */
async function listenIn(port) {
  const wires = [];
  const proxy = net.createServer((client) => {
    const server = net.connect(port, '127.0.0.1');
    const end = () => [client, server].forEach((socket) => socket.destroy());
    const wire = { sent: '', received: '', end };
    wires.push(wire);
    client.on('data', (data) => {
      wire.sent += data.toString('latin1');
      server.write(data);
    });
    server.on('data', (data) => {
      wire.received += data.toString('latin1');
      client.write(data);
    });
    for (const socket of [client, server]) socket.on('error', wire.end).on('close', wire.end);
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  return {
    port: proxy.address().port,
    /** What is sent while `work` runs, and received, on the one wire that has to do with it. */
    async during(work) {
      for (const wire of wires) Object.assign(wire, { sent: '', received: '' });
      const result = await work();
      const about = wires.filter(({ sent }) => sent.includes(KEY));
      if (about.length !== 1) throw new Error(`a lock was asked for on ${about.length} wires`);
      const [{ sent, received }] = about;
      return { sent, received, result };
    },
    close() {
      for (const wire of wires) wire.end();
      proxy.close();
    },
  };
}

/** The words of a command on the wire. */
function wordsOf(sent) {
  const words = [];
  const head = /^\*(\d+)\r\n/.exec(sent);
  let at = head[0].length;
  while (at < sent.length) {
    const end = sent.indexOf(END, at);
    const start = end + END.length;
    const length = Number(sent.slice(at + 1, end));
    words.push(sent.slice(start, start + length));
    at = start + length + END.length;
  }
  if (words.length !== Number(head[1])) throw new Error('a take or release is not one command');
  return words;
}

// A function from key and token to the words of the command for them.
function template(sent, token) {
  const parts = wordsOf(sent).map((word) => word.split(new RegExp(`(${KEY}|${token})`)));
  const fill = (part, key, own) => {
    if (part === KEY) return key;
    return part === token ? own : part;
  };
  return (key, own) => parts.map((split) => (split.length === 1 ? split[0]
    : split.map((part) => fill(part, key, own)).join('')));
}

// An answer to the command of another key and token is as good as the recorded one if it has as
// many parts, and for a release, says the same.
function command({ sent, received }, token, exact) {
  const items = Number(/^\*(\d+)\r\n/.exec(received)[1]);
  const numbers = [...received.matchAll(/^:(-?\d+)\r$/gm)].map(([, digits]) => Number(digits));
  const succeeded = (answer) => Array.isArray(answer) && answer.length === items
    && (!exact || answer.every((item, i) => item === numbers[i]));
  return Object.assign(template(sent, token), { succeeded });
}

/**
 * Locks and releases a key with Holdfast, and records what it sends.
 *
 * @param {number} port of a Redis server on this machine
 * @param {string} folder gets what was sent and received, as it was: take, drop, take.reply,
 *   drop.reply
 * @returns {Promise<{ key: string, token: string, folder: string, take: Function,
 *   drop: Function }>} `take(key, token)` and `drop(key, token)` are the words of a command,
 *   `take.succeeded(answer)` whether it did what it should
 */
async function record(port, folder) {
  const wire = await listenIn(port);
  const hf = await open(`redis://127.0.0.1:${wire.port}`);
  try {
    await (await hf.lock('loads the scripts')).release();
    const taken = await wire.during(() => hf.lock(KEY));
    const { token } = taken.result;
    const dropped = await wire.during(() => taken.result.release());
    for (const [name, { sent, received }] of Object.entries({ take: taken, drop: dropped })) {
      if (!sent.includes(token)) throw new Error(`the ${name} of a lock does not tell its token`);
      fs.writeFileSync(path.join(folder, name), sent, 'latin1');
      fs.writeFileSync(path.join(folder, `${name}.reply`), received, 'latin1');
    }
    return {
      key: KEY,
      token,
      folder,
      take: command(taken, token, false),
      drop: command(dropped, token, true),
    };
  } finally {
    await hf.close();
    wire.close();
  }
}

module.exports = { record };
