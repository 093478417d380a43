'use strict';

// The settings of redlock, and the arguments of its calls.

const { TTL_MAX, TTL_MIN, KEYS_MAX } = require('./binding').constants;
const { duration } = require('./duration');
const { checkKey, wrongType } = require('./validate');

const DEFAULTS = Object.freeze({
  driftFactor: 0.01,
  retryCount: 10,
  retryDelay: 200,
  retryJitter: 100,
  automaticExtensionThreshold: 500,
});
const MAX_TTL = 5 * 60 * 1000;
const TIMER_MAX = 2 ** 31 - 1;

const time = { fits: (value) => value >= 0 && value <= TIMER_MAX, words: `from 0 to ${TIMER_MAX}` };
const RULES = {
  driftFactor: { fits: (value) => value >= 0 && value < 1, words: 'from 0, and below 1' },
  retryCount: {
    fits: (value) => value === Infinity || (Number.isInteger(value) && value >= -1),
    words: 'a whole number from 0, or -1 for ever',
  },
  retryDelay: time,
  retryJitter: time,
  automaticExtensionThreshold: time,
};

/**
 * What the five settings of redlock are, where `given` says something else than `base`.
 *
 * @param {object | null | undefined} given may have other members, too
 * @param {object} base
 * @returns {Readonly<object>}
 * @throws {TypeError} if `given` is no object, or one of the five no number
 * @throws {RangeError} if one of them makes no sense
 */
function readSettings(given, base = DEFAULTS) {
  if (given === undefined || given === null) return base;
  if (typeof given !== 'object') throw wrongType('settings', 'an object', given);
  const settings = { ...base };
  for (const [name, { fits, words }] of Object.entries(RULES)) {
    const value = given[name];
    if (value === undefined || value === null) continue;
    if (typeof value !== 'number') throw wrongType(`settings.${name}`, 'a number', value);
    if (!fits(value)) {
      throw new RangeError(`settings.${name} must be ${words}; got ${value}`);
    }
    settings[name] = value;
  }
  return Object.freeze(settings);
}

/**
 * The longest duration: on a quorum `settings.maxTtl`, or 5 minutes; elsewhere 24 hours, unless
 * that is set.
 */
function readMaxTtl(settings, isQuorum) {
  const given = settings?.maxTtl;
  if (given === undefined || given === null) return isQuorum ? MAX_TTL : TTL_MAX;
  return duration(given, 'settings.maxTtl', { min: TTL_MIN, max: TTL_MAX });
}

/** Throws unless `value` is a duration, in milliseconds, that a lock may have. */
function checkDuration(value, maxTtl) {
  if (typeof value !== 'number') throw wrongType('duration', 'a number of milliseconds', value);
  if (!Number.isInteger(value)) {
    throw new RangeError(`Duration must be an integer value in milliseconds; got ${value}.`);
  }
  if (value < TTL_MIN) {
    throw new RangeError(`duration must be at least ${TTL_MIN} ms; got ${value}`);
  }
  if (value > TTL_MAX) {
    throw new RangeError(`duration must be at most 24 h, which is ${TTL_MAX} ms; got ${value}`);
  }
  if (value > maxTtl) {
    throw new RangeError(`duration must be at most the setting maxTtl, which is ${maxTtl} ms; ` +
      `got ${value}: give new Redlock(clients, { maxTtl: '24h' }) what you need`);
  }
}

/**
 * The names of what is to be locked, each once.
 *
 * @param {string | readonly string[]} resources
 * @returns {string[]} a copy
 */
function readResources(resources) {
  const list = typeof resources === 'string' ? [resources] : resources;
  if (!Array.isArray(list)) throw wrongType('resources', 'an array of strings', resources);
  const names = Array.from(list);
  for (const [i, each] of names.entries()) {
    checkKey(each, list === resources ? `resources[${i}]` : 'resource');
  }
  const distinct = [...new Set(names)];
  if (distinct.length < 1 || distinct.length > KEYS_MAX) {
    throw new RangeError(`resources must be 1 to ${KEYS_MAX}; got ${distinct.length}`);
  }
  return distinct;
}

module.exports = { DEFAULTS, readSettings, readMaxTtl, checkDuration, readResources };
