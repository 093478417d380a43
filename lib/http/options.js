'use strict';

const { METHODS } = require('node:http');
const { duration } = require('../duration');
const validate = require('../validate');
const { BODY_MAX } = require('./answer');

const DEFAULTS = {
  required: false,
  methods: ['POST', 'PATCH', 'PUT', 'DELETE'],
  header: 'Idempotency-Key',
  maxBody: BODY_MAX,
  ttl: '24h',
  lease: '30s',
  onCrash: 'fail',
  fingerprint: undefined,
  scope: undefined,
};

const NAMES = new Set(Object.keys(DEFAULTS));
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const LEASE = { min: 50, max: 24 * 3600 * 1000 };

/**
 * Checks what an adapter was given and fills in the defaults.
 *
 * @param {unknown} hf
 * @param {unknown} options
 * @returns {object} the settings of one middleware
 * @throws {TypeError} for a wrong type or an unknown option
 * @throws {RangeError} for a wrong value
 */
function readOptions(hf, options) {
  if (typeof hf?.once !== 'function') throw new TypeError('hf must be a Holdfast');
  validate.checkOptions(options, NAMES);
  const given = Object.entries(options ?? {}).filter(([, value]) => value !== undefined);
  const settings = { ...DEFAULTS, ...Object.fromEntries(given) };
  validate.checkBoolean(settings.required, 'options.required');
  validate.checkInteger(settings.maxBody, 'options.maxBody', 0, BODY_MAX);
  validate.checkChoice(settings.onCrash, 'options.onCrash', ['fail', 'retry']);
  if (settings.scope !== undefined) validate.checkFunction(settings.scope, 'options.scope');
  if (settings.fingerprint !== undefined) {
    validate.checkFunction(settings.fingerprint, 'options.fingerprint');
  }
  return {
    ...settings,
    hf,
    header: readHeader(settings.header),
    methods: readMethods(settings.methods),
    lease: duration(settings.lease, 'options.lease', LEASE),
    ttl: duration(settings.ttl, 'options.ttl', { min: LEASE.min, infinite: true }),
  };
}

function readHeader(header) {
  if (typeof header !== 'string') throw new TypeError('options.header must be a string');
  if (!TOKEN.test(header)) throw new RangeError('options.header must be the name of a header');
  return header;
}

function readMethods(methods) {
  if (!Array.isArray(methods) || methods.some((method) => typeof method !== 'string')) {
    throw new TypeError('options.methods must be an array of strings');
  }
  const known = methods.map((method) => method.toUpperCase());
  for (const method of known) {
    if (!METHODS.includes(method)) {
      throw new RangeError(`options.methods: ${JSON.stringify(method.slice(0, 64))} is no method`);
    }
  }
  if (known.length === 0) throw new RangeError('options.methods must not be empty');
  return new Set(known);
}

module.exports = { readOptions };
