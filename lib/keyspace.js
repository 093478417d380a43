'use strict';

// How keys come in and go out. A namespace is a prefix of keys, and only this file knows that there
// are any: what a caller names goes through `enter`, what a caller is told goes through `leave`.
// Between the two, as in errors and telemetry, a key is the whole one, as the store has it.

const { KEY_MAX } = require('./binding').constants;
const { checkKey, checkPrefix, lockKeys } = require('./validate');

class Keyspace {
  #prefix;
  #bytes;

  constructor(prefix) {
    this.#prefix = prefix;
    this.#bytes = Buffer.byteLength(prefix);
  }

  get isRoot() {
    return this.#prefix === '';
  }

  /** The names that lead to it, as 'a:b'; '' for that of the store. */
  get name() {
    return this.#prefix.slice(0, -1);
  }

  /** The keyspace `name` within this one: a RangeError if there is no room for a key in it. */
  within(name) {
    checkKey(name, 'name');
    if (name.includes(':')) {
      throw new RangeError(
        'name must not contain \':\', which ends it; for one in another call namespace() twice',
      );
    }
    const inner = new Keyspace(`${this.#prefix}${name}:`);
    if (inner.#bytes < KEY_MAX) return inner;
    throw new RangeError(
      `name must leave room for a key: with ':' it makes ${inner.#bytes} bytes of ${KEY_MAX}`,
    );
  }

  /** Checks a key that a caller names, and makes the whole one of it. */
  enter(key, name = 'key') {
    checkKey(key, name);
    return this.#prefix === '' ? key : this.#whole(key, name);
  }

  /** As `enter`, for the key of a lock, or an array of several. */
  enterLock(key) {
    const keys = lockKeys(key);
    if (this.#prefix === '') return keys;
    if (typeof keys === 'string') return this.#whole(keys, 'key');
    return Object.freeze(keys.map((each, i) => this.#whole(each, `key[${i}]`)));
  }

  /** As `enter`, for how keys begin. */
  enterPrefix(prefix, name) {
    checkPrefix(prefix, name);
    return this.#prefix === '' ? prefix : this.#whole(prefix, name);
  }

  /** The key of the whole one as callers here name it. */
  leave(whole) {
    return this.#prefix === '' ? whole : whole.slice(this.#prefix.length);
  }

  #whole(key, name) {
    const bytes = this.#bytes + Buffer.byteLength(key);
    if (bytes <= KEY_MAX) return this.#prefix + key;
    throw new RangeError(
      `${name} must be at most ${KEY_MAX} bytes of UTF-8 together with the namespace it is in; ` +
      `got ${bytes}, ${this.#bytes} of which are the namespace's`,
    );
  }
}

/** The keys as the store has them. */
const root = new Keyspace('');

module.exports = { Keyspace, root };
