'use strict';

// The protocol of Redis as the tests need it: where a value ends, what it says, and a connection
// that sends commands and reads answers, with no more between than that.

const net = require('node:net');

const CRLF = Buffer.from('\r\n');
const MAX_DEPTH = 32;

/** What a server answered with a '-': the first word is its code. */
class ReplyError extends Error {
  get code() {
    return this.message.split(' ', 1)[0];
  }
}

/** An array that nobody asked for: a message, in RESP3. */
class Push extends Array {}

const sized = { $: true, '=': true, '!': true };
const counted = { '*': 1, '~': 1, '>': 1, '%': 2, '|': 2 };

const scalar = {
  '+': (text) => text,
  '-': (text) => new ReplyError(text),
  ':': Number,
  ',': Number,
  '(': BigInt,
  '#': (text) => text === 't',
  _: () => null,
};

function readItems(buffer, at, { type, count, depth }) {
  const items = type === '>' ? new Push() : [];
  for (let i = 0; i < count; i++) {
    const item = readReply(buffer, at, depth + 1);
    if (item === null) return null;
    items.push(item.value);
    at = item.end;
  }
  // An attribute only comes before the value that it is about.
  return type === '|' ? readReply(buffer, at, depth + 1) : { value: items, end: at };
}

/**
 * Reads the value that starts at `at`; maps and sets become arrays.
 *
 * @returns {{ value: any, end: number } | null} null if some of it has not come yet
 * @throws {Error} if that is no RESP
 */
function readReply(buffer, at = 0, depth = 0) {
  const line = buffer.indexOf(CRLF, at);
  if (line < 0) return null;
  const type = String.fromCharCode(buffer[at]);
  const text = buffer.toString('utf8', at + 1, line);
  const start = line + 2;
  if (Object.hasOwn(scalar, type)) return { value: scalar[type](text), end: start };
  const count = Number(text);
  if (!Number.isSafeInteger(count) || count < -1 || depth > MAX_DEPTH) {
    throw new Error(`no RESP: ${buffer.toString('latin1', at, Math.min(line, at + 80))}`);
  }
  if (count < 0) return { value: null, end: start };
  if (Object.hasOwn(counted, type)) {
    return readItems(buffer, start, { type, count: count * counted[type], depth });
  }
  if (!Object.hasOwn(sized, type)) throw new Error(`no RESP: a value begins with ${type}`);
  const end = start + count + 2;
  if (buffer.length < end) return null;
  const value = buffer.toString('utf8', start, end - 2);
  return { value: type === '!' ? new ReplyError(value) : value, end };
}

/** Cuts a stream into values, however its bytes come. */
class Reader {
  #rest = Buffer.alloc(0);

  /** @returns {{ value: any, bytes: Buffer }[]} the values that `chunk` completes */
  read(chunk) {
    let buffer = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk]) : chunk;
    const values = [];
    for (;;) {
      const found = buffer.length > 0 ? readReply(buffer) : null;
      if (found === null) break;
      values.push({ value: found.value, bytes: buffer.subarray(0, found.end) });
      buffer = buffer.subarray(found.end);
    }
    this.#rest = buffer;
    return values;
  }
}

function encode(words) {
  const parts = [`*${words.length}\r\n`];
  for (const word of words) parts.push(`$${Buffer.byteLength(`${word}`)}\r\n${word}\r\n`);
  return parts.join('');
}

/** One connection: `send(...words)` resolves with the answer, and rejects with a ReplyError. */
class Connection {
  #socket;
  #reader = new Reader();
  #waiting = [];
  #failure = null;

  /** @param {object} where as for net.connect, or a socket that is connected */
  constructor(where) {
    this.#socket = where instanceof net.Socket ? where : net.connect(where);
    /** What came without a command. */
    this.pushed = [];
    this.#socket.on('data', (chunk) => this.#read(chunk));
    this.#socket.on('error', (error) => this.#end(error));
    this.#socket.on('close', () => this.#end(new Error('the server closed the connection')));
  }

  send(...words) {
    return new Promise((resolve, reject) => {
      if (this.#failure !== null) {
        reject(this.#failure);
        return;
      }
      this.#waiting.push({ resolve, reject });
      this.#socket.write(encode(words));
    });
  }

  get broken() {
    return this.#failure !== null;
  }

  close() {
    this.#socket.destroy();
  }

  #read(chunk) {
    for (const { value } of this.#reader.read(chunk)) {
      const waiting = value instanceof Push ? undefined : this.#waiting.shift();
      if (waiting === undefined) this.pushed.push(value);
      else if (value instanceof ReplyError) waiting.reject(value);
      else waiting.resolve(value);
    }
  }

  #end(error) {
    this.#failure ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failure);
  }
}

module.exports = { Connection, Push, Reader, ReplyError, encode, readReply };
