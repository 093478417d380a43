'use strict';

// Records what a handler answers through Node's ServerResponse, and holds the end of it back until
// the record is stored.
//
// What the handler writes passes through at once, with Node's own return values, callbacks and
// back-pressure. Two things wait: the call of end(), and a write() that completes the announced
// Content-Length, for either would let the client see a whole answer. Most handlers answer in one
// end() (json and send do); then nothing at all has left, and a failure can still be told properly.
//
// Wrappers that other middleware puts around these methods stay in place on both sides: one mounted
// before sits between the recorder and the socket and is applied anew to every replay; one mounted
// after sits between the handler and the recorder, and what it made is recorded.

const { Writable, finished } = require('node:stream');
const { headersOf, setHeaders, clearHeaders, announcedLength } = require('./head');

// A handler whose connection has closed may go on for this long before it counts as hung.
const SILENT_MS = 15 * 60 * 1000; // when it had not begun to answer
const STARTED_MS = 30 * 1000; // when it had: what it streamed to is gone

const OPEN = 0; // the handler may still answer
const HELD = 1; // it has answered; the end waits
const SENT = 2; // all calls go straight to Node

const GUARDED = ['setHeader', 'setHeaders', 'appendHeader', 'removeHeader'];
const PASSING = Symbol('passing'); // see makeDictionary

class ResponseRecorder {
  #res;
  #bodyless; // the request's method has no body in its answer
  #maxBody;
  #onAnswer;
  #inner = {}; // the methods found on the response
  #before; // the headers found on it
  #state = OPEN;
  #head = null; // status, message, headers: fixed by writeHead
  #sealed = false; // Node has the head too, so it can no longer be replaced
  #asking = false; // writeHead shall fix the head without telling Node
  #chunks = []; // null once the body is too large
  #size = 0;
  #text = null; // bytes of the first chunk, if that was UTF-8 text: see isText
  #trailers = [];
  #tail = null; // the write held back
  #end = null; // the arguments of the end held back
  #late = null; // a call after the end, for Node to judge
  #failure = null;
  #closed = false;
  #hung = null;

  /**
   * Starts recording.
   *
   * @param {import('node:http').ServerResponse} res nothing has been written to it
   * @param {object} options
   * @param {string} options.method of the request
   * @param {number} options.maxBody bytes kept; a larger body passes but is not kept
   * @param {(answer: import('./answer').Answer) => void} options.onAnswer called once, when the
   *   handler has answered (then release() or fail() must follow) or is hung (`unanswered`)
   */
  constructor(res, { method, maxBody, onAnswer }) {
    this.#res = res;
    this.#bodyless = method === 'HEAD';
    this.#maxBody = maxBody;
    this.#onAnswer = onAnswer;
    this.#before = headersOf(res);
    const methods = {
      write: (...args) => this.#write(...args),
      end: (...args) => this.#endCalled(...args),
      writeHead: (...args) => this.#writeHead(...args),
      addTrailers: (...args) => this.#addTrailers(...args),
    };
    for (const name of Object.keys(methods)) {
      this.#inner[name] = res[name];
      res[name] = methods[name];
    }
    res.once('close', () => this.#onClose());
    res.on('unpipe', (source) => this.#onUnpipe(source));
  }

  /** Lets the held end go. */
  release() {
    if (this.#state !== HELD) return;
    this.#unguard();
    const { chunk, encoding, callback } = this.#end;
    if (this.#tail) this.#call('write', ...this.#tail);
    this.#call('end', chunk, encoding, callback);
    this.#finish();
  }

  /**
   * Answers with a problem instead of what the handler answered, or, where part of that has left,
   * breaks the connection, so that the client does not take the part for the whole. A handler that
   * has not answered yet is waited for.
   *
   * @param {import('./problem').Problem} problem
   */
  fail(problem) {
    if (this.#state === SENT) return;
    this.#failure = problem;
    if (this.#state === OPEN) return;
    this.#unguard();
    if (this.#sealed) {
      this.#finish();
      this.#res.destroy();
      return;
    }
    clearHeaders(this.#res);
    this.#res.statusCode = problem.status;
    this.#res.statusMessage = undefined;
    for (const [name, value] of [...this.#before, ...problem.headers]) {
      this.#res.setHeader(name, value);
    }
    this.#res.writeHead = this.#inner.writeHead;
    this.#call('end', problem.body, 'utf8', this.#end.callback);
    this.#finish();
  }

  #call(name, ...args) {
    return this.#inner[name].apply(this.#res, args);
  }

  #finish() {
    this.#state = SENT;
    const late = this.#late;
    this.#chunks = this.#tail = this.#end = this.#late = null;
    late?.();
  }

  // ---- the methods of the response

  #writeHead(status, ...rest) {
    if (this.#state === HELD) throw headersSentError('writeHead');
    if (this.#state === SENT || this.#sealed || !isStatus(status)) {
      return this.#call('writeHead', status, ...rest);
    }
    const message = typeof rest[0] === 'string' ? rest[0] : undefined;
    const headers = message === undefined ? rest[1] ?? rest[0] : rest[1];
    if (headers) setHeaders(this.#res, headers);
    const head = {
      status: Number(status),
      message: message ?? (this.#res.statusMessage || undefined),
      headers: headersOf(this.#res),
    };
    if (!this.#asking) {
      this.#call('writeHead', status, ...(message === undefined ? [] : [message]));
      this.#sealed = true;
    }
    this.#head = head;
    return this.#res;
  }

  #write(chunk, encoding, callback) {
    if (typeof encoding === 'function') return this.#write(chunk, undefined, encoding);
    if (this.#state === HELD) return this.#afterEnd('write', chunk, encoding, callback);
    if (this.#state === SENT || !isChunk(chunk)) {
      return this.#call('write', chunk, encoding, callback); // Node throws at what is no chunk
    }
    if (!this.#head) this.#res.writeHead(this.#res.statusCode);
    if (!this.#hasBody()) return this.#call('write', chunk, encoding, callback);
    this.#keep(chunk, encoding);
    if (this.#closed) return accept(callback);
    if (this.#isComplete()) return this.#holdTail(chunk, encoding, callback);
    return this.#call('write', chunk, encoding, callback);
  }

  #holdTail(chunk, encoding, callback) {
    if (this.#tail) this.#call('write', ...this.#tail);
    this.#tail = typeof chunk === 'string' ? [chunk, encoding] : [Buffer.from(chunk)];
    return accept(callback);
  }

  #endCalled(chunk, encoding, callback) {
    if (typeof chunk === 'function') return this.#endCalled(undefined, undefined, chunk);
    if (typeof encoding === 'function') return this.#endCalled(chunk, undefined, encoding);
    if (this.#state === HELD) return this.#afterEnd('end', chunk, encoding, callback);
    if (this.#state === SENT || !this.#mayEnd(chunk)) {
      return this.#call('end', chunk, encoding, callback); // Node throws at what it cannot send
    }
    if (!this.#head) this.#askForHead();
    this.#end = { chunk, encoding, callback };
    this.#state = HELD;
    clearTimeout(this.#hung);
    if (chunk && this.#hasBody()) this.#keep(chunk, encoding);
    this.#guard();
    if (this.#failure) this.fail(this.#failure);
    else this.#onAnswer(this.#answer());
    return this.#res;
  }

  // Runs the header hooks that other middleware has put around writeHead, once. Node gets the head
  // only when the end is released.
  #askForHead() {
    this.#asking = true;
    try {
      this.#res.writeHead(this.#res.statusCode);
    } finally {
      this.#asking = false;
    }
  }

  #mayEnd(chunk) {
    if (chunk && !isChunk(chunk)) return false;
    return this.#head !== null || (isStatus(this.#res.statusCode)
      && isReason(this.#res.statusMessage));
  }

  #addTrailers(trailers) {
    if (this.#state === OPEN) {
      for (const [name, value] of pairsOfTrailers(trailers)) {
        this.#trailers.push([name, String(value)]);
      }
    }
    return this.#call('addTrailers', trailers);
  }

  // Node has words of its own for a call after the end. They come once the answer has left.
  #afterEnd(name, chunk, encoding, callback) {
    this.#late ??= () => this.#call(name, chunk, encoding, callback);
    return name === 'end' ? this.#res : false;
  }

  // ---- the body

  #hasBody() {
    return !this.#bodyless && this.#head.status !== 204 && this.#head.status !== 304;
  }

  #keep(chunk, encoding) {
    const bytes = Buffer.from(chunk, encoding); // a copy: the handler may reuse its buffer
    this.#text ??= isText(chunk, encoding) ? bytes.length : 0;
    this.#size += bytes.length;
    if (this.#size > this.#maxBody) this.#chunks = null;
    else this.#chunks.push(bytes);
  }

  #isComplete() {
    const length = announcedLength(this.#head.headers);
    return length !== null && this.#size >= length;
  }

  #answer() {
    const { status, message, headers } = this.#head;
    if (this.#chunks === null) return { kind: 'oversize', status };
    const coded = headers.some(([name]) => name.toLowerCase() === 'transfer-encoding');
    return {
      kind: 'answer',
      status,
      ...(message === undefined ? {} : { message }),
      headers,
      ...(this.#sealed || coded ? { early: true } : {}),
      ...(this.#text ? { text: this.#text } : {}),
      ...(this.#trailers.length > 0 ? { trailers: this.#trailers } : {}),
      body: Buffer.concat(this.#chunks),
    };
  }

  // ---- while the end waits, the response looks as it would after end()

  #guard() {
    const res = this.#res;
    Object.defineProperty(res, 'writableEnded', { get: () => true, configurable: true });
    if (this.#sealed) return;
    Object.defineProperty(res, 'headersSent', { get: () => true, configurable: true });
    for (const name of GUARDED) {
      if (name in res) this.#inner[name] ??= ownOf(res, name);
      res[name] = () => { throw headersSentError(name); };
    }
    res.flushHeaders = () => {};
  }

  #unguard() {
    const res = this.#res;
    delete res.writableEnded;
    if (this.#sealed) return;
    delete res.headersSent;
    for (const name of [...GUARDED, 'flushHeaders']) {
      if (this.#inner[name]) res[name] = this.#inner[name];
      else delete res[name];
    }
    const { status, message } = this.#head;
    res.statusCode = status;
    res.statusMessage = message;
    // The hooks around writeHead have run.
    res.writeHead = () => this.#call('writeHead', status, ...(message ? [message] : []));
  }

  // ---- the connection closes before the handler has answered

  #onClose() {
    if (this.#state !== OPEN) return;
    this.#closed = true;
    const patience = this.#head ? STARTED_MS : SILENT_MS;
    this.#hung = setTimeout(() => this.#giveUp(), patience).unref();
    // Who waits for the connection to take more shall go on: the rest is only recorded.
    process.nextTick(() => this.#res.emit('drain'));
  }

  // A pipe ends with the connection. What flowed through it flows on, into the record alone.
  #onUnpipe(source) {
    if (!this.#closed || this.#state !== OPEN || source.readableEnded || source.destroyed) return;
    const res = this.#res;
    // The pipe itself listens to the source's 'end'. Where the handler does too, it is the one to
    // end the answer.
    const ends = source.listenerCount('end') <= 1;
    const sink = new Writable({
      write: (chunk, encoding, done) => { res.write(chunk, encoding); done(); },
      final: (done) => { if (ends) res.end(); done(); },
    });
    finished(source, { writable: false }, (error) => { if (error) sink.destroy(); });
    source.pipe(sink);
  }

  #giveUp() {
    if (this.#state !== OPEN) return;
    this.#state = SENT;
    this.#chunks = null;
    this.#onAnswer({ kind: 'unanswered' });
  }
}

// A method that stands on the response itself, put there by other middleware, not on its prototype.
function ownOf(res, name) {
  return Object.hasOwn(res, name) ? res[name] : undefined;
}

/**
 * Makes a response cheap to record. Express gives each one another prototype. After that V8 copies
 * its hidden class for every property set on it, at 3 us, and a recorder sets a dozen. As a
 * dictionary, which a `delete` makes of it, the response takes them at next to no cost.
 *
 * @param {import('node:http').ServerResponse} res
 */
function makeDictionary(res) {
  res[PASSING] = true;
  delete res[PASSING];
}

function headersSentError(name) {
  const verb = { removeHeader: 'remove', writeHead: 'write' }[name] ?? 'set';
  return Object.assign(new Error(`Cannot ${verb} headers after they are sent to the client`), {
    code: 'ERR_HTTP_HEADERS_SENT',
  });
}

function accept(callback) {
  if (typeof callback === 'function') process.nextTick(callback);
  return true;
}

function isChunk(chunk) {
  return typeof chunk === 'string' || chunk instanceof Uint8Array;
}

// Node sends the head together with the body where that begins with such text, and then writes the
// head as UTF-8 too, else as Latin-1. It shows in header values beyond ASCII.
function isText(chunk, encoding) {
  return typeof chunk === 'string' && (!encoding || encoding === 'utf8');
}

function isStatus(status) {
  return (status | 0) >= 100 && (status | 0) <= 999;
}

function isReason(message) {
  return !message || !/[^\t\x20-\x7e\x80-\xff]/.test(message);
}

function pairsOfTrailers(trailers) {
  return Array.isArray(trailers) ? trailers : Object.entries(trailers ?? {});
}

module.exports = { ResponseRecorder, makeDictionary };
