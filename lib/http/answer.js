'use strict';

// What a record of a request holds, and its form in the store.

const VERSION = 1;
const PREAMBLE = 5; // bytes: the version, then the length of the head
const HEAD_MAX = 64 << 10; // bytes of the head: status, headers, trailers
const BODY_MAX = 1 << 20; // greatest body that a record can hold

// Statuses that tell the client to come back, or to come back as somebody else.
const NOT_KEPT = new Set([401, 403, 408, 425, 429, 503]);

// Headers of one message or one connection, not of the answer.
const NOT_REPLAYED = new Set(['set-cookie', 'date', 'connection', 'keep-alive', 'proxy-connection',
  'proxy-authenticate', 'te', 'transfer-encoding', 'upgrade', 'idempotent-replayed']);

/**
 * @typedef {object} Answer
 * @property {'answer' | 'oversize' | 'unanswered'} kind kept; too large to keep; or none, for the
 *   handler never gave one
 * @property {number} [status]
 * @property {string} [message] the reason phrase, where it was not the status's own
 * @property {Array<[string, string | string[]]>} [headers] in order, with the case they had
 * @property {boolean} [early] the head was written before the end, so Node added no length to it
 * @property {number} [text] bytes of a first chunk that was UTF-8 text: Node encodes the head alike
 * @property {Array<[string, string]>} [trailers]
 * @property {Buffer} [body]
 */

/** Whether an answer with this status leaves a record. */
function isKept(status) {
  return !NOT_KEPT.has(status);
}

/**
 * The headers that a record keeps.
 *
 * @param {Array<[string, string | string[]]>} headers
 * @returns {Array<[string, string | string[]]>}
 */
function keptHeaders(headers) {
  const named = new Set();
  for (const [name, value] of headers) {
    if (name.toLowerCase() !== 'connection') continue;
    for (const token of String(value).split(',')) named.add(token.trim().toLowerCase());
  }
  return headers.filter(([name]) => {
    const lower = name.toLowerCase();
    return !NOT_REPLAYED.has(lower) && !named.has(lower);
  });
}

/**
 * Writes an answer as bytes: version, length of the head, the head as JSON, the body.
 *
 * @param {Answer} answer one whose head is too large becomes an `oversize` one
 * @returns {Buffer}
 */
function encodeAnswer(answer) {
  const { body, ...rest } = answer;
  const head = JSON.stringify(rest);
  const size = Buffer.byteLength(head);
  if (size > HEAD_MAX - PREAMBLE) {
    return encodeAnswer({ kind: 'oversize', status: answer.status });
  }
  const bytes = Buffer.allocUnsafe(PREAMBLE + size + (body?.length ?? 0));
  bytes.writeUInt8(VERSION, 0);
  bytes.writeUInt32BE(size, 1);
  bytes.write(head, PREAMBLE);
  if (body) bytes.set(body, PREAMBLE + size);
  return bytes;
}

/**
 * Reads what encodeAnswer wrote.
 *
 * @param {unknown} value a record's value
 * @returns {Answer}
 * @throws {Error} when it is something else
 */
function decodeAnswer(value) {
  if (!(value instanceof Uint8Array) || value.length < PREAMBLE) throw notAnAnswer();
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.length);
  const end = PREAMBLE + bytes.readUInt32BE(1);
  if (bytes[0] !== VERSION || end > bytes.length) throw notAnAnswer();
  const head = JSON.parse(bytes.toString('utf8', PREAMBLE, end));
  return { ...head, body: bytes.subarray(end) };
}

function notAnAnswer() {
  return new Error('the record of this key does not hold an HTTP answer of this version');
}

module.exports = { isKept, keptHeaders, encodeAnswer, decodeAnswer, BODY_MAX };
