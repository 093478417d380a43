'use strict';

// One open store, as the other files see it: its slot in the addon, and how calls are made on it.

const binding = require('./binding');
const renewals = require('./renewals');
const slots = require('./slots');
const telemetry = require('./telemetry');
const { withAuthorities } = require('./authorities');
const { duration } = require('./duration');
const { closedError, fromNative } = require('./errors');
const { settingFailure } = require('./store-options');
const { checkOptions, typeName } = require('./validate');
const { nodeInfo } = require('./votes');

const {
  EVENT_NODE, EVENT_WARNING, EVENT_RENEWED, EVENT_PASSWORD, RECORD_FAILED,
} = binding.constants;

const CLOSE_OPTIONS = new Set(['timeout']);
const CLOSE_TIMEOUT_MS = 5000;

/** Reads the options of close(), and of whatever else lets others finish. */
function closeTimeout(options) {
  checkOptions(options, CLOSE_OPTIONS);
  const given = options?.timeout;
  if (given === undefined) return CLOSE_TIMEOUT_MS;
  return duration(given, 'options.timeout', { min: 0, infinite: true });
}

// Sixteen bytes, which came as four 32-bit words of this machine, as 32 hexadecimal digits.
function tokenText(word0, word1, word2, word3) {
  return Buffer.from(Int32Array.of(word0, word1, word2, word3).buffer).toString('hex');
}

/** An operation with one result: reads it, settles a promise, gives its slot back. */
class Call {
  constructor(resolve, reject, read) {
    this.resolve = resolve;
    this.reject = reject;
    this.read = read;
    this.slot = slots.take(this);
  }

  [slots.ON](event, result) {
    slots.give(this.slot);
    try {
      if ((result.flags & RECORD_FAILED) !== 0) throw fromNative(result.extra);
      this.resolve(this.read(result));
    } catch (error) {
      this.reject(error);
    }
  }
}

// Why there is no client.
function openFailure(settings, failure) {
  const [code, text] = failure;
  if (code !== 'HF_EINVAL') return fromNative(failure);
  return settingFailure(settings, text) ??
    new RangeError(`url: ${text.replace(/^the URL (is not valid: )?/, '')}`);
}

// What a function that failed has to say, in a line of a message.
function failureText(error) {
  try {
    return String(error?.message ?? error).replace(/[\p{Cc}\s]+/gu, ' ').toWellFormed().slice(0, 300);
  } catch {
    return 'it threw something that has no text';
  }
}

/** Asks the user's function, and tells the core: what it gave, or why it gave nothing. */
async function answerPassword(password, question) {
  try {
    const given = await password();
    if (typeof given !== 'string') throw new TypeError(`it gave ${typeName(given)}, not a string`);
    if (!given.isWellFormed()) throw new RangeError('it gave a string with lone surrogates');
    binding.givePassword(question, given, undefined);
  } catch (error) {
    binding.givePassword(question, undefined, failureText(error));
  }
}

const clients = new Set();

function onGeneral(event, result) {
  if (event !== EVENT_WARNING) return;
  const error = fromNative(result.extra);
  for (const client of clients) telemetry.warn(client.emitter, error);
}

/** Where a PostgreSQL store is: what a setting says, or the URL. */
function schemaOf(url, settings) {
  const i = settings.findIndex((each, at) => at % 2 === 0 && each === 'schema');
  if (i >= 0) return settings[i + 1];
  const query = /\?(.*)$/s.exec(url)?.[1] ?? '';
  return new URLSearchParams(query).get('schema') ?? 'holdfast';
}

class Client {
  #password;

  /**
   * @param {string} url of the store
   * @param {object} options
   * @param {number} options.handoffs
   * @param {number} options.handoffTime in milliseconds
   * @param {(string | Uint8Array)[]} options.settings the store's: names and values in turn. They
   *   may be secret, and are not kept here.
   * @param {(() => string | Promise<string>) | undefined} options.password gives the password
   * @param {import('node:events').EventEmitter} emitter who hears of problems
   */
  constructor(url, { handoffs, handoffTime, settings, password }, emitter) {
    this.emitter = emitter;
    // Those that are not over: close() stops them.
    this.leaders = new Set();
    this.closing = null;
    this.closed = false;
    this.slot = slots.take(this);
    this.#password = password;
    const failure = binding.openClient(
      this.slot, url, handoffs, handoffTime, withAuthorities(url, settings),
      password !== undefined);
    if (failure !== null) {
      slots.give(this.slot);
      throw openFailure(settings, failure);
    }
    if (clients.size === 0) {
      slots.setGeneral(onGeneral);
      process.on('exit', binding.exit);
    }
    clients.add(this);
    [this.store, , this.maxTtl] = binding.info(this.slot);
    this.isQuorum = this.store === 'quorum';
    this.schema = this.store === 'postgres' ? schemaOf(url, settings) : null;
    telemetry.publishStore({ event: 'open', store: this.store });
  }

  [slots.ON](event, result) {
    if (event === EVENT_WARNING) {
      telemetry.warn(this.emitter, fromNative(result.extra));
    } else if (event === EVENT_RENEWED) {
      renewals.publish(result);
    } else if (event === EVENT_NODE) {
      telemetry.node(this.emitter, nodeInfo(result.extra));
    } else if (event === EVENT_PASSWORD) {
      answerPassword(this.#password, result.first);
    }
  }

  /**
   * Starts an operation. `start(client, slot)` returns null, or why it could not start;
   * `read(result)` makes the promise's value, or throws.
   */
  call(start, read) {
    return new Promise((resolve, reject) => {
      if (this.closed) {
        reject(closedError());
        return;
      }
      const call = new Call(resolve, reject, read);
      const failure = start(this.slot, call.slot);
      if (failure === null) return;
      slots.give(call.slot);
      reject(fromNative(failure));
    });
  }

  /** The nodes of a quorum; empty where the store is none. */
  nodes() {
    return this.closed ? [] : binding.nodes(this.slot).map(nodeInfo);
  }

  connect() {
    return this.call(binding.connect, () => undefined);
  }

  /** Resolves when everything has ended. A later call may shorten the time. */
  close(timeout) {
    if (this.closing === null) {
      this.closing = this.call(
        (client, slot) => (binding.close(client, slot, timeout), null),
        () => this.#ended(),
      );
    } else if (!this.closed) {
      binding.close(this.slot, undefined, timeout);
    }
    return this.closing;
  }

  #ended() {
    this.closed = true;
    slots.give(this.slot);
    clients.delete(this);
    if (clients.size === 0) process.off('exit', binding.exit);
    telemetry.publishStore({ event: 'close', store: this.store });
  }
}

module.exports = { CLOSE_TIMEOUT_MS, Client, Call, closeTimeout, tokenText };
