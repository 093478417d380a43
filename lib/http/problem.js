'use strict';

// Answers of the middleware itself, as RFC 9457 problem documents. The type URIs are part of the
// public contract (docs/express.md): clients branch on them.

const TYPE_PREFIX = 'urn:holdfast:idempotency:';
const STORE_RETRY_S = 5; // when to come back to a store that does not answer
const RUNNING_RETRY_S = 2; // and to a request that is being processed

const PROBLEMS = {
  'key-missing': [400, 'Idempotency key missing'],
  'key-malformed': [400, 'Idempotency key malformed'],
  'key-reused': [422, 'Idempotency key used for another request'],
  'in-progress': [409, 'Request still in progress'],
  'outcome-unknown': [409, 'Outcome unknown'],
  'answer-too-large': [409, 'Answer not kept'],
  'store-unavailable': [503, 'Idempotency store unavailable'],
  'outcome-not-stored': [503, 'Outcome not stored'],
};

/**
 * @typedef {object} Problem
 * @property {number} status
 * @property {Array<[string, string]>} headers
 * @property {string} body JSON
 */

/**
 * Makes a problem answer.
 *
 * @param {keyof PROBLEMS} name
 * @param {string} detail a sentence or two for the reader
 * @param {{ retryAfter?: number, members?: object }} [more] `Retry-After` in seconds; more members
 * @returns {Problem}
 */
function problem(name, detail, { retryAfter, members } = {}) {
  const [status, title] = PROBLEMS[name];
  const headers = [
    ['Content-Type', 'application/problem+json'],
    ['Cache-Control', 'no-store'],
  ];
  if (retryAfter !== undefined) headers.push(['Retry-After', String(retryAfter)]);
  const body = JSON.stringify({ type: `${TYPE_PREFIX}${name}`, title, status, detail, ...members });
  return { status, headers, body };
}

/**
 * The answer to a request whose key could not be claimed, or null where the error is not one of the
 * store or of the record but of the program.
 *
 * @param {unknown} error what `hf.once` rejected with
 * @param {string} record the record's name
 * @returns {Problem | null}
 */
function problemOfClaim(error, record) {
  switch (error?.code) {
    case 'HF_EINPROGRESS':
      return problem('in-progress', 'A request with this key is being processed. '
        + 'Repeat this one later to get its answer.', { retryAfter: seconds(error.retryAfter) });
    case 'HF_EMISMATCH':
      return problem('key-reused', 'This key came with another method, path, query or body before. '
        + 'A new request needs a new key.');
    case 'HF_ECRASHED':
      return outcomeUnknown(record, 'The first request with this key was interrupted.');
    case 'HF_EINVAL':
    case 'HF_ENOTSUP':
      return null;
    default:
      if (!String(error?.code).startsWith('HF_')) return null;
      return problem('store-unavailable', 'The request was not processed, because the store that '
        + 'remembers requests is not available. Repeat it later with the same key.',
      { retryAfter: STORE_RETRY_S });
  }
}

// The lease says when a dead run will be known as one, not when a live one will answer: soon.
function seconds(leaseLeft) {
  return Math.min(RUNNING_RETRY_S, Math.max(1, Math.ceil((leaseLeft ?? 0) / 1000)));
}

/**
 * The answer when nobody can say whether the operation took effect.
 *
 * @param {string} record the record's name
 * @param {string} why
 * @returns {Problem}
 */
function outcomeUnknown(record, why) {
  return problem('outcome-unknown', `${why} Whether it took effect is unknown. Requests with this `
    + 'key are refused until the service has settled that and forgotten the record.',
  { members: { record } });
}

/**
 * The answer when the handler ran, but what it answered could not be stored.
 *
 * @returns {Problem}
 */
function outcomeNotStored() {
  return problem('outcome-not-stored', 'The request was processed, but its answer could not be '
    + 'stored, so it is not given. Repeat the request with the same key to learn what is known.',
  { retryAfter: STORE_RETRY_S });
}

/**
 * The answer to a duplicate of a request whose answer was too large to keep.
 *
 * @param {number} status of that answer
 * @returns {Problem}
 */
function answerTooLarge(status) {
  return problem('answer-too-large', `The first request with this key was answered with status ${
    status}, but that answer was too large to be kept.`, { members: { originalStatus: status } });
}

module.exports = { problem, problemOfClaim, outcomeUnknown, outcomeNotStored, answerTooLarge };
