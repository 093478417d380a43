'use strict';

const { clearHeaders } = require('./head');

/**
 * Sends an answer that a record holds. Headers that stand on the response already give way, apart
 * from cookies, which belong to this exchange.
 *
 * @param {import('node:http').ServerResponse} res
 * @param {import('./answer').Answer} answer
 */
function replay(res, answer) {
  clearHeaders(res, ['set-cookie']);
  res.statusCode = answer.status;
  res.statusMessage = answer.message;
  for (const [name, value] of answer.headers) res.setHeader(name, value);
  res.setHeader('Idempotent-Replayed', 'true');
  if (answer.early) res.writeHead(res.statusCode);
  if (answer.trailers) res.addTrailers(answer.trailers);
  if (answer.text) endAsText(res, answer);
  else res.end(answer.body);
}

// What began as text begins as text again, so that Node encodes the head as it did then. Where more
// follows, the headers announce the length, so that a write() leaves them as they are.
function endAsText(res, { text, body }) {
  const first = body.toString('utf8', 0, text);
  if (text === body.length) {
    res.end(first);
    return;
  }
  res.write(first);
  res.end(body.subarray(text));
}

/**
 * Sends a problem.
 *
 * @param {import('node:http').ServerResponse} res
 * @param {import('./problem').Problem} problem
 */
function sendProblem(res, problem) {
  res.statusCode = problem.status;
  for (const [name, value] of problem.headers) res.setHeader(name, value);
  res.end(problem.body);
}

module.exports = { replay, sendProblem };
