'use strict';

// From a command's arguments to an open store.

const fs = require('node:fs');
const { redact } = require('../prove/redact');
const { UsageError } = require('./exit');

const DEFAULT_URL = 'sqlite:./holdfast.db';

/** The URL that the arguments or the environment name; undefined if neither does. */
function urlOf(given, env) {
  const url = given.url ?? (env.HOLDFAST_URL || undefined);
  if (given.url === '') throw new UsageError('the URL is empty');
  return url;
}

/** The URL of a store that others look into, as arguments, environment or default name it. */
function sharedUrlOf(given, env) {
  const url = urlOf(given, env) ?? DEFAULT_URL;
  if (!/^memory:/i.test(url)) return url;
  throw new UsageError('memory: is the store of one process; nobody else can look into it');
}

/** What is shown of the store's URL. */
function shown(url) {
  return redact(url);
}

/** Looking into a store must not make one: a SQLite file has to be there. */
function mustExist(url) {
  const file = /^sqlite:(?:\/\/)?([^?]*)/i.exec(url)?.[1];
  if (!file) return;
  let decoded;
  try {
    decoded = decodeURIComponent(file);
  } catch {
    return; // the library says what is wrong with it
  }
  if (!fs.existsSync(decoded)) throw new Error(`there is no database at ${decoded}`);
}

/** What the library says to a wrong URL or key, as a mistake of the command line. */
function asUsage(error) {
  const wrong = error instanceof TypeError || error instanceof RangeError ||
    error.code === 'HF_EINVAL' || error.code === 'HF_ENOTSUP';
  return wrong ? Object.assign(new UsageError(error.message), { cause: error }) : error;
}

/**
 * Opens a store that is there, calls `fn` with it, and closes it again, whatever happens.
 *
 * @param {string} url
 * @param {(hf: Holdfast) => Promise<T>} fn
 * @returns {Promise<T>}
 * @template T
 */
async function withStore(url, fn) {
  const { Holdfast, open } = require('..');
  try {
    await new Holdfast(url).close({ timeout: 0 });
  } catch (error) {
    throw asUsage(error);
  }
  mustExist(url);
  // Who looks wants to know at once that nothing is there.
  const hf = await open(url);
  // What is worth saying comes as the error of the call; the store's warnings are not for here.
  hf.on('error', () => {});
  try {
    return await fn(hf);
  } finally {
    await hf.close({ timeout: 0 });
  }
}

module.exports = { DEFAULT_URL, asUsage, sharedUrlOf, shown, urlOf, withStore };
