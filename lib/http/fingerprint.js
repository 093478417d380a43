'use strict';

// What makes two requests "the same": a SHA-256 over method, path and payload.

const { hash } = require('node:crypto');
const { canonicalJson } = require('./canonical-json');
const { peekBody, hasBody } = require('./peek-body');

const BODY_BOUND = 1 << 20; // bytes of an unparsed body that count

/**
 * Computes the fingerprint of a request.
 *
 * @param {object} request
 * @param {import('node:http').IncomingMessage} request.req
 * @param {string} request.url path and query as the client sent them
 * @param {unknown} [request.rawBody] the body's bytes, if somebody kept them
 * @param {unknown} [request.body] the parsed body
 * @param {((req: object) => string | Uint8Array | Promise<string | Uint8Array>) | undefined} custom
 *   returns what counts instead of query and body
 * @returns {Promise<string>} 43 characters
 */
async function fingerprint(request, custom) {
  const { req, url } = request;
  const cut = url.indexOf('?');
  const path = cut < 0 ? url : url.slice(0, cut);
  const query = cut < 0 ? '' : url.slice(cut + 1);
  if (custom !== undefined) {
    return digest([req.method, path, 'custom', checkCustom(await custom(req))]);
  }
  return digest([req.method, path, query, ...readPayload(request) ?? await peekPayload(req)]);
}

function checkCustom(value) {
  if (typeof value === 'string' || value instanceof Uint8Array) return value;
  throw new TypeError('the fingerprint function must return a string or a Uint8Array');
}

// Each part is preceded by its length: no two lists of parts feed the hash the same bytes.
function digest(parts) {
  const text = parts.every((part) => typeof part === 'string');
  return hash('sha256', text ? joinText(parts) : joinBytes(parts), 'base64url');
}

function joinText(parts) {
  let text = '';
  for (const part of parts) text += `${Buffer.byteLength(part)}:${part}`;
  return text;
}

function joinBytes(parts) {
  const chunks = [];
  for (const part of parts) {
    const bytes = typeof part === 'string' ? Buffer.from(part) : part;
    chunks.push(Buffer.from(`${bytes.length}:`), bytes);
  }
  return Buffer.concat(chunks);
}

// What is known without waiting, or null: nobody has read the body, whatever req.body says, since
// Express 4's parsers leave `{}` there when a request is not of their type.
function readPayload({ req, rawBody, body }) {
  if (isBytes(rawBody)) return bytesPart(req, Buffer.from(rawBody));
  return wasRead(req) || !hasBody(req) ? parsedPart(req, body) : null;
}

async function peekPayload(req) {
  const { bytes, truncated } = await peekBody(req, BODY_BOUND);
  const parts = bytesPart(req, bytes);
  return truncated ? [...parts, `of ${req.headers['content-length'] ?? 'unknown'}`] : parts;
}

function parsedPart(req, body) {
  if (isBytes(body)) return bytesPart(req, Buffer.from(body));
  if (body !== undefined) return ['json', canonicalJson(body)];
  if (!hasBody(req) || (req.readableEnded && !req.readableDidRead)) {
    return bytesPart(req, Buffer.alloc(0));
  }
  throw new Error('the request body was read before the idempotency middleware, and neither '
    + 'req.rawBody nor req.body tells what it was: mount the middleware before the reader, or give '
    + 'a fingerprint function');
}

function isBytes(value) {
  return typeof value === 'string' || value instanceof Uint8Array;
}

function wasRead(req) {
  return req.readableDidRead || req.readableEnded;
}

// A client that builds a multipart form anew for a retry draws a new boundary: same form, other
// bytes. So the boundary does not count.
function bytesPart(req, bytes) {
  const type = req.headers['content-type'] ?? '';
  const match = /^multipart\/[^;]*;(?:.*;)?\s*boundary=(?:"([^"]+)"|([^\s;]+))/i.exec(type);
  const boundary = match && (match[1] ?? match[2]);
  return ['bytes', boundary ? without(bytes, Buffer.from(`--${boundary}`)) : bytes];
}

function without(bytes, mark) {
  const kept = [];
  let from = 0;
  for (;;) {
    const at = bytes.indexOf(mark, from);
    if (at < 0) break;
    kept.push(bytes.subarray(from, at), Buffer.from('--'));
    from = at + mark.length;
  }
  kept.push(bytes.subarray(from));
  return Buffer.concat(kept);
}

module.exports = { fingerprint, BODY_BOUND };
