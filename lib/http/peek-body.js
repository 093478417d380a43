'use strict';

/**
 * Reads the start of a request's body and puts it back, so that whoever reads the request next
 * sees it whole. Reads `bound` bytes and what came with them, at most; what it returns does not
 * depend on how the body was cut into packets.
 *
 * @param {import('node:http').IncomingMessage} req a request whose body nobody has read
 * @param {number} bound bytes
 * @returns {Promise<{ bytes: Buffer, truncated: boolean }>} the first `bound` bytes; `truncated`
 *   when there are more
 * @throws {Error} `status` 400 when the connection ends before the body does
 */
async function peekBody(req, bound) {
  if (!hasBody(req) || !await hasBytes(req)) return { bytes: Buffer.alloc(0), truncated: false };
  const chunks = await readChunks(req, bound);
  const bytes = Buffer.concat(chunks);
  return { bytes: bytes.subarray(0, bound), truncated: bytes.length > bound };
}

/**
 * Whether a request announces a body.
 *
 * @param {import('node:http').IncomingMessage} req
 * @returns {boolean}
 */
function hasBody(req) {
  if (req.headers['transfer-encoding'] !== undefined) return true;
  return Number(req.headers['content-length'] ?? 0) > 0;
}

// Waits for the first bytes or the end. Listening to 'readable' on a body that turns out empty
// would end the stream at once, and a handler that listens to 'end' afterwards would wait for ever.
// So this looks at what is pushed instead, and leaves an empty body untouched.
function hasBytes(req) {
  if (req.readableLength > 0) return true;
  if (req.complete) return false;
  return untilClosed(req, (resolve) => {
    req.push = (chunk, encoding) => {
      resolve(chunk !== null); // which takes this away again
      return req.push(chunk, encoding);
    };
    return () => { delete req.push; };
  });
}

function readChunks(req, bound) {
  return untilClosed(req, (resolve) => {
    const chunks = [];
    let size = 0;
    function onReadable() {
      while (size <= bound && req.readableLength > 0) {
        const chunk = toBuffer(req.read(), req.readableEncoding);
        chunks.push(chunk);
        size += chunk.length;
      }
      if (size <= bound && !req.complete) return;
      // In the same tick as the last read: 'end' follows an empty buffer one tick later.
      for (let i = chunks.length - 1; i >= 0; i--) req.unshift(chunks[i]);
      resolve(chunks);
    }
    req.on('readable', onReadable);
    return () => { req.off('readable', onReadable); };
  });
}

/** A promise that rejects when the request closes. `start(resolve)` returns what undoes it. */
function untilClosed(req, start) {
  return new Promise((resolve, reject) => {
    if (req.destroyed) {
      reject(aborted());
      return;
    }
    const undo = start(settle);
    req.on('close', onClose);

    function settle(value) {
      req.off('close', onClose);
      undo();
      resolve(value);
    }

    function onClose() {
      req.off('close', onClose);
      undo();
      reject(aborted());
    }
  });
}

function toBuffer(chunk, encoding) {
  return typeof chunk === 'string' ? Buffer.from(chunk, encoding ?? 'utf8') : chunk;
}

function aborted() {
  return Object.assign(new Error('the client went away before it had sent the whole request'), {
    code: 'ECONNRESET', status: 400, expose: true,
  });
}

module.exports = { peekBody, hasBody };
