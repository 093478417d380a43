'use strict';

// One connection to a Redis server, with as little around it as it takes: what is measured is the
// server and what is asked of it. It speaks RESP 2 and 3, the protocols of Redis, and knows of no
// errors but those of its benchmark.

const { once } = require('node:events');
const net = require('node:net');

const END = '\r\n';

class RespConnection {
  #socket;
  #asked = [];
  #outgoing = [];
  #received = '';
  #at = 0;
  #onPush;

  constructor(socket, onPush) {
    this.#socket = socket;
    this.#onPush = onPush;
    socket.setNoDelay(true);
    socket.setEncoding('latin1');
    socket.on('data', (data) => this.#read(data));
    socket.on('close', () => this.#asked.forEach(({ reject }) => (
      reject(new Error('the Redis server closed the connection'))
    )));
  }

  /**
   * @param {number} port on this machine
   * @param {(message: unknown[]) => void} [onPush] gets what comes without being asked for
   * @returns {Promise<RespConnection>}
   */
  static async open(port, onPush = () => undefined) {
    const socket = net.connect(port, '127.0.0.1');
    await once(socket, 'connect');
    return new RespConnection(socket, onPush);
  }

  /** Sends a command; resolves with its answer. All of one turn go out in one write. */
  ask(...words) {
    if (this.#outgoing.length === 0) process.nextTick(() => this.#flush());
    const bulk = (word) => `$${Buffer.byteLength(String(word), 'latin1')}${END}${word}${END}`;
    this.#outgoing.push(`*${words.length}${END}${words.map(bulk).join('')}`);
    return new Promise((resolve, reject) => {
      this.#asked.push({ resolve, reject });
    });
  }

  close() {
    this.#asked = [];
    this.#socket.destroy();
  }

  #flush() {
    this.#socket.write(this.#outgoing.join(''), 'latin1');
    this.#outgoing = [];
  }

  #read(data) {
    this.#received += data;
    for (;;) {
      this.#at = 0;
      const kind = this.#received[0];
      const answer = this.#next();
      if (answer === undefined) return;
      this.#received = this.#received.slice(this.#at);
      // In RESP 2, too, a message to a subscriber comes unasked.
      if (kind === '>' || (kind === '*' && this.#asked.length === 0)) this.#onPush(answer);
      else if (answer instanceof Error) this.#asked.shift().reject(answer);
      else this.#asked.shift().resolve(answer);
    }
  }

  // The value that begins at #at, which goes behind it; undefined where it is not complete.
  #next() {
    const end = this.#received.indexOf(END, this.#at);
    if (end < 0) return undefined;
    const kind = this.#received[this.#at];
    const line = this.#received.slice(this.#at + 1, end);
    this.#at = end + END.length;
    switch (kind) {
      case '+': return line;
      case '-': return new Error(line);
      case ':': return Number(line);
      case '_': return null;
      case '$': return this.#bulk(Number(line));
      case '%': return this.#array(2 * Number(line));
      case '*': case '>': return this.#array(Number(line));
      default: throw new Error(`the Redis server sent what begins with ${kind}`);
    }
  }

  #bulk(length) {
    if (length < 0) return null;
    const start = this.#at;
    this.#at += length + END.length;
    return this.#at > this.#received.length ? undefined
      : this.#received.slice(start, start + length);
  }

  #array(length) {
    if (length < 0) return null;
    const items = [];
    while (items.length < length) {
      const item = this.#next();
      if (item === undefined) return undefined;
      items.push(item);
    }
    return items;
  }
}

module.exports = { RespConnection };
