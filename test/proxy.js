'use strict';

// A network that fails on request: stands between clients and one server, in the process of the
// test. It knows where replies begin and end, so that one can be lost or come twice.

const net = require('node:net');
const { once } = require('node:events');
const { setTimeout: sleep } = require('node:timers/promises');
const { Push, Reader } = require('./resp');
const { freePort } = require('./server-process');
const { random: seededRandom } = require('./helpers');

const MESSAGES = new Set(['message', 'pmessage', 'smessage']);
const PIECE = 1400; // bytes at most in a piece, where pieces are random

/** Bytes on their way in one direction of a connection: in order, however slow. */
class Flow {
  #queue = [];
  #busy = false;

  constructor(link, target, slowness) {
    this.link = link;
    this.target = target;
    this.slowness = slowness;
  }

  send(bytes, extraMs = 0) {
    const due = performance.now() + extraMs + this.#delay();
    this.#queue.push({ due, bytes });
    this.#pump();
  }

  /** Ends the direction once all that came before has gone. */
  end() {
    this.#queue.push({ due: 0, end: true });
    this.#pump();
  }

  #delay() {
    const [least, most] = this.link.proxy.slow[this.slowness];
    return least + this.link.proxy.random() * (most - least);
  }

  async #pump() {
    if (this.#busy) return;
    this.#busy = true;
    while (this.#queue.length > 0) {
      const { due, bytes, end } = this.#queue.shift();
      const wait = due - performance.now();
      if (wait > 0) await sleep(wait);
      await this.link.proxy.moving;
      if (this.link.mute || this.target.destroyed) continue;
      if (end) this.target.end();
      else await this.#write(bytes);
    }
    this.#busy = false;
  }

  async #write(bytes) {
    const { drip, pieces, random } = this.link.proxy;
    if (drip === null && !pieces) {
      this.target.write(bytes);
      return;
    }
    for (let at = 0; at < bytes.length && !this.link.mute && !this.target.destroyed;) {
      const size = drip?.bytes ?? 1 + Math.floor(random() ** 3 * PIECE);
      this.target.write(bytes.subarray(at, at + size));
      at += size;
      // Each piece leaves in a packet of its own: Nagle's algorithm is off.
      await (drip === null ? new Promise(setImmediate) : sleep(drip.ms));
      await this.link.proxy.moving;
    }
  }
}

/** A client's connection and the one to the server that belongs to it. */
class Link {
  #commands = new Reader();
  #replies = new Reader();
  #asked = [];
  #opaque;
  #closed = 0;

  constructor(proxy, client) {
    this.proxy = proxy;
    this.client = client;
    this.mute = false;
    this.#opaque = proxy.opaque;
    this.server = net.connect({ ...proxy.target, noDelay: true });
    this.up = new Flow(this, this.server, 'toServer');
    this.down = new Flow(this, client, 'toClient');
    client.on('data', (bytes) => this.#fromClient(bytes));
    this.server.on('data', (bytes) => this.#fromServer(bytes));
    this.#join(client, this.up);
    this.#join(this.server, this.down);
  }

  // What ends on one side ends on the other, unless nothing gets through any more.
  #join(socket, flow) {
    socket.on('error', () => {});
    socket.on('close', (failed) => {
      this.#closed += 1;
      if (this.#closed === 2) {
        this.proxy.links.delete(this);
        this.proxy.unlinked();
      }
      if (this.mute) return;
      if (failed) flow.target.destroy();
      else flow.end();
    });
  }

  #fromClient(bytes) {
    if (this.mute) return;
    if (!this.#opaque) {
      for (const { value } of this.#parse(this.#commands, bytes)) this.#asked.push(value);
    }
    this.up.send(bytes);
  }

  #fromServer(bytes) {
    if (this.mute) return;
    if (this.#opaque) {
      this.down.send(bytes);
      return;
    }
    for (const reply of this.#parse(this.#replies, bytes)) this.#pass(reply);
  }

  /** What is no RESP ends the connection. */
  #parse(reader, bytes) {
    try {
      return reader.read(bytes);
    } catch (error) {
      this.proxy.trouble = error;
      this.cut();
      return [];
    }
  }

  #pass({ value, bytes }) {
    const isMessage = value instanceof Push || (Array.isArray(value) && MESSAGES.has(value[0]));
    const command = isMessage ? null : this.#asked.shift() ?? null;
    const fate = this.proxy.fate?.({ command, reply: value }) ?? 'pass';
    if (fate === 'drop') return;
    if (fate === 'cut') {
      this.cut();
      return;
    }
    if (fate.tear !== undefined) {
      this.client.write(bytes.subarray(0, fate.tear), () => this.cut());
      this.mute = true;
      return;
    }
    this.down.send(bytes, fate.delay);
    if (fate === 'repeat') this.down.send(bytes);
  }

  cut() {
    for (const socket of [this.client, this.server]) {
      // A client sees a reset where the other end is not there any more, an end where it closes.
      // Node.js resets only what has nothing left to write, and has not been ended.
      const resettable = socket.writable && socket.writableLength === 0;
      if (resettable && this.proxy.random() < 0.5) socket.resetAndDestroy();
      else socket.destroy();
    }
  }
}

/**
 * All that is between the clients and one server. Nothing happens to the bytes until it is told to
 * do so; what it does from then on it does to connections that are there and to those that come.
 */
class Proxy {
  #listener = null;
  #move = null;
  #mutes = false;
  #stopped = false;

  /**
   * @param {{ host?: string, port?: number, path?: string }} target of its connections
   * @param {object} [options]
   * @param {() => number} [options.random] from 0 to 1
   * @param {boolean} [options.opaque] the bytes are no RESP, as with TLS
   */
  constructor(target, { random = seededRandom(1), opaque = false } = {}) {
    this.target = target;
    this.random = random;
    this.opaque = opaque;
    this.links = new Set();
    this.port = 0;
    this.connections = 0; // so far
    this.unlinked = () => {};
    /** The error of bytes that were no RESP; their connection was cut. */
    this.trouble = null;
    this.calm();
  }

  static async start(target, options) {
    const proxy = new Proxy(target, options);
    proxy.port = await freePort();
    await proxy.allow();
    return proxy;
  }

  get address() {
    return `127.0.0.1:${this.port}`;
  }

  /** Nothing is done to the bytes from now on; what is under way comes as it was to come. */
  calm() {
    /** Milliseconds, least and most, by which bytes are late. */
    this.slow = { toServer: [0, 0], toClient: [0, 0] };
    /** `{ bytes, ms }`: so many bytes at a time, with a pause between. */
    this.drip = null;
    /** Bytes come in pieces, which end anywhere. */
    this.pieces = false;
    /**
     * What becomes of a reply: called with `{ command, reply }`, `command` the words that asked for
     * it, or null if it is a message. Returns 'pass', 'drop', 'repeat', 'cut' (the connection, in
     * place of it), `{ delay: ms }`, or `{ tear: n }`, which cuts after its first `n` bytes.
     */
    this.fate = null;
    this.resume();
  }

  /** All bytes stand still, as on a path that fails and comes back; later they get through. */
  hold() {
    if (this.#move !== null) return;
    this.moving = new Promise((resolve) => { this.#move = resolve; });
  }

  resume() {
    this.#move?.();
    this.#move = null;
    this.moving = undefined;
  }

  /**
   * Nothing gets through any more, and nobody is told: neither on the connections that are there,
   * which stay so for good, nor on those that come before `heal`.
   */
  blackhole() {
    this.#mutes = true;
    for (const link of this.links) link.mute = true;
  }

  heal() {
    this.#mutes = false;
  }

  /** Ends all connections that are there. */
  cut() {
    for (const link of this.links) link.cut();
  }

  /** Ends them, and refuses new ones until `allow`. */
  async refuse() {
    const listener = this.#listener;
    this.#listener = null;
    listener?.close();
    this.cut();
    if (listener !== null) await once(listener, 'close');
  }

  async allow() {
    if (this.#listener !== null || this.#stopped) return;
    this.#listener = net.createServer({ noDelay: true }, (client) => this.#accept(client));
    this.#listener.listen(this.port, '127.0.0.1');
    await once(this.#listener, 'listening');
  }

  #accept(client) {
    this.connections += 1;
    const link = new Link(this, client);
    link.mute = this.#mutes;
    this.links.add(link);
  }

  async stop() {
    this.#stopped = true;
    this.calm();
    await this.refuse();
    while (this.links.size > 0) await new Promise((resolve) => { this.unlinked = resolve; });
  }
}

module.exports = { Proxy };
