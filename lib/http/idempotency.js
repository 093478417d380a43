'use strict';

// What every adapter for a framework on node:http shares: from the request's key to its answer.

const { encodeAnswer, decodeAnswer, isKept, keptHeaders } = require('./answer');
const { fingerprint } = require('./fingerprint');
const { parseKey, recordKey } = require('./key');
const { problem, problemOfClaim, outcomeUnknown, outcomeNotStored, answerTooLarge } =
  require('./problem');
const { replay, sendProblem } = require('./replay');
const { ResponseRecorder, makeDictionary } = require('./response-recorder');
const { reserve } = require('../once');

// Thrown through hf.once, which then takes the claim back: the next request runs anew.
const NO_RECORD = Symbol('no record');

// Requests that a middleware already protects. Where two are mounted on one way, the first counts.
const protectedRequests = new WeakSet();

/**
 * Whether a request is one that the settings speak of: its method is, and no middleware before has
 * taken it in hand.
 */
function applies(settings, req) {
  return settings.methods.has(req.method) && !protectedRequests.has(req);
}

/**
 * Reads the key of a request.
 *
 * @param {object} settings from readOptions
 * @param {import('node:http').IncomingMessage} req
 * @returns {{ key: string | null, problem: import('./problem').Problem | null }} both null: a
 *   request without a key, which needs none
 */
function readKey(settings, req) {
  const values = valuesOf(req, settings.header.toLowerCase());
  if (values.length === 0) {
    if (!settings.required) return { key: null, problem: null };
    return { key: null, problem: problem('key-missing',
      `This request needs the header ${settings.header}.`) };
  }
  const parsed = values.length > 1
    ? { key: null, problem: `The header ${settings.header} came more than once.` }
    : parseKey(values[0]);
  if (parsed.problem === null) return { key: parsed.key, problem: null };
  return { key: null, problem: problem('key-malformed', parsed.problem) };
}

// All values of one header: req.headersDistinct would sort out those of all others, too.
function valuesOf({ rawHeaders }, name) {
  const values = [];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (rawHeaders[i].toLowerCase() === name) values.push(rawHeaders[i + 1]);
  }
  return values;
}

/**
 * Handles a request that has a key: runs its handler if it is the first, else answers it.
 *
 * @param {object} settings from readOptions
 * @param {object} exchange
 * @param {string} exchange.key from readKey
 * @param {import('node:http').IncomingMessage} exchange.req
 * @param {import('node:http').ServerResponse} exchange.res
 * @param {string} exchange.url path and query as the client sent them
 * @param {unknown} [exchange.body] parsed
 * @param {unknown} [exchange.rawBody]
 * @param {(run: import('../../types').Run) => void} proceed starts the handler
 * @returns {Promise<void>} resolves when the request is answered; rejects, with nothing answered
 *   and the handler not started, on an error of the program
 */
async function protect(settings, exchange, proceed) {
  const { req, res } = exchange;
  protectedRequests.add(req);
  const scope = settings.scope && await settings.scope(req);
  if (settings.scope && typeof scope !== 'string') {
    throw new TypeError('the scope function must return a string');
  }
  const record = recordKey(exchange.key, scope);
  const mark = await fingerprint(exchange, settings.fingerprint);
  const attempt = { settings, req, res, record, recorder: null };
  try {
    const running = settings.hf.once(record, onceOptions(settings, mark),
      (run) => {
        reserve(run); // for the whole answer
        return answerOf(attempt, () => proceed(run));
      });
    makeDictionary(res); // while the store works
    const done = await running;
    if (done.replayed) sendRecorded(res, decodeAnswer(done.value), record);
    else attempt.recorder.release();
  } catch (error) {
    sendFailure(attempt, error);
  }
}

function onceOptions({ lease, ttl, onCrash }, mark) {
  return { detail: true, wait: 0, lease, ttl, onCrash, fingerprint: mark };
}

/** Starts the handler; resolves with its answer as the record holds it. */
function answerOf(attempt, proceed) {
  const { settings, req, res } = attempt;
  return new Promise((resolve, reject) => {
    attempt.recorder = new ResponseRecorder(res, {
      method: req.method,
      maxBody: settings.maxBody,
      onAnswer(answer) {
        if (leavesRecord(settings, answer)) resolve(encode(answer));
        else reject(NO_RECORD);
      },
    });
    proceed();
  });
}

function leavesRecord({ onCrash }, answer) {
  return answer.kind === 'unanswered' ? onCrash === 'fail' : isKept(answer.status);
}

function encode(answer) {
  const headers = answer.headers && keptHeaders(answer.headers);
  return encodeAnswer({ ...answer, ...(headers && { headers }) });
}

function sendRecorded(res, answer, record) {
  if (answer.kind === 'answer') replay(res, answer);
  else if (answer.kind === 'oversize') sendProblem(res, answerTooLarge(answer.status));
  else sendProblem(res, outcomeUnknown(record, 'The first request with this key got no answer.'));
}

function sendFailure({ recorder, res, record }, error) {
  if (recorder !== null) {
    if (error === NO_RECORD) recorder.release();
    else recorder.fail(outcomeNotStored());
    return;
  }
  const refusal = problemOfClaim(error, record);
  if (refusal === null) throw error;
  sendProblem(res, refusal);
}

module.exports = { applies, readKey, protect };
