'use strict';

// One keep-alive connection, one request at a time. It reads just enough of HTTP to know where an
// answer ends, so that what is measured is the server and not its client.

const { once } = require('node:events');
const net = require('node:net');

class HttpConnection {
  #socket;
  #resolve = null;
  #reject = null;
  #received = '';

  constructor(socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.setEncoding('latin1');
    socket.on('data', (data) => this.#onData(data));
    socket.on('error', (error) => this.#reject?.(error));
    socket.on('close', () => this.#reject?.(new Error('the server closed the connection')));
  }

  /** @returns {Promise<HttpConnection>} */
  static async open(port) {
    const socket = net.connect(port, '127.0.0.1');
    await once(socket, 'connect');
    return new HttpConnection(socket);
  }

  /** Sends a POST of JSON; resolves with { status, head, body }. */
  post(target, headers, body) {
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    this.#received = '';
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
      this.#socket.write(`POST ${target} HTTP/1.1\r\nHost: localhost\r\n${lines.join('')}`
        + `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    });
  }

  close() {
    this.#reject = null;
    this.#socket.destroy();
  }

  #onData(data) {
    this.#received += data;
    const end = this.#received.indexOf('\r\n\r\n');
    if (end < 0) return;
    const head = this.#received.slice(0, end);
    const length = /\r\ncontent-length: (\d+)/i.exec(head);
    if (length === null) {
      this.#reject(new Error('an answer without a Content-Length'));
      return;
    }
    const body = this.#received.slice(end + 4);
    if (body.length < Number(length[1])) return;
    this.#reject = null;
    this.#resolve({ status: Number(head.slice(9, 12)), head, body });
  }
}

module.exports = { HttpConnection };
