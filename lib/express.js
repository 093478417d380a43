'use strict';

const { AsyncResource } = require('node:async_hooks');
const { applies, readKey, protect } = require('./http/idempotency');
const { recordKey } = require('./http/key');
const { readOptions } = require('./http/options');
const { sendProblem } = require('./http/replay');

/**
 * Makes routes idempotent, for Express 4 and 5: of all requests that carry the same
 * `Idempotency-Key` the handler runs for one, and the others get its answer. See docs/express.md.
 *
 * The handler finds `req.idempotency`, the run: `key` (for `hf.record` and `hf.forget`), `attempt`,
 * `fence`, and a `signal` that aborts when the claim is lost.
 *
 * @param {import('../types').Holdfast} hf where requests are remembered
 * @param {object} [options]
 * @param {boolean} [options.required=false] refuse requests without a key, with 400
 * @param {string[]} [options.methods=['POST', 'PATCH', 'PUT', 'DELETE']] others pass
 * @param {string} [options.header='Idempotency-Key']
 * @param {number} [options.maxBody=1048576] bytes, at most 1 MiB; a larger answer passes, but is
 *   not kept, and duplicates get 409
 * @param {number | string} [options.ttl='24h'] how long an answer is kept; Infinity: for ever
 * @param {number | string} [options.lease='30s'] 50 ms to 24 h: how long after a crash its request
 *   still counts as running
 * @param {'fail' | 'retry'} [options.onCrash='fail'] whether a request whose process died is
 *   refused until `hf.forget`, or run again
 * @param {Function} [options.fingerprint] what must be equal, beside
 *   method and path, for a request to count as a repetition, as a string or Uint8Array; by default
 *   query and body
 * @param {(req: object) => string | Promise<string>} [options.scope] whose key it is, such as a
 *   tenant: equal keys of two scopes are two keys
 * @returns {(req: object, res: object, next: Function) => void} a middleware
 * @throws {TypeError} for a wrong type or an unknown option
 * @throws {RangeError} for a wrong value
 */
function idempotency(hf, options) {
  const settings = readOptions(hf, options);
  return function holdfastIdempotency(req, res, next) {
    if (!applies(settings, req)) {
      next();
      return;
    }
    const { key, problem } = readKey(settings, req);
    if (problem !== null) {
      sendProblem(res, problem);
    } else if (key === null) {
      next();
    } else {
      // The handler runs in the asynchronous context of its request, not of the store's answer.
      const scope = new AsyncResource('HoldfastRequest');
      const proceed = (run) => {
        req.idempotency = run;
        scope.runInAsyncScope(next);
      };
      protect(settings, exchangeOf(key, req, res), proceed).catch(next);
    }
  };
}

function exchangeOf(key, req, res) {
  return { key, req, res, url: req.originalUrl ?? req.url, body: req.body, rawBody: req.rawBody };
}

module.exports = { idempotency, recordKey };
