'use strict';

// What Holdfast may leave on a Redis server of a key: its fence, for a day, and the tombstone of a
// value. The names are those of csrc/store/redis-names.h. They are told one by one, because looking
// for them would go through all keys of a server that may have many.

const LETTERS = 'szhiwvVrR';

/**
 * The names of all that there may be of a key on a Redis server, its lease first.
 *
 * @param {string} prefix the store's; a brace in it is part of a hash tag
 * @param {string} key without braces
 * @returns {string[]}
 */
function namesOf(prefix, key) {
  const lease = prefix + key;
  const tag = /\{([^}]+)\}/.exec(prefix)?.[1];
  const base = tag === undefined ? `${prefix}{${lease}}\0` : `${prefix}{${tag}}${key}\0`;
  return [lease, ...Array.from(LETTERS, (letter) => base + letter)];
}

module.exports = { namesOf };
