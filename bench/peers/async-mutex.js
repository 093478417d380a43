'use strict';

const { Mutex } = require('async-mutex');

/** async-mutex: a queue in this process. It has no lease, and nothing outside knows of it. */
function openAsyncMutex() {
  const mutexes = new Map();
  return {
    acquire(key) {
      if (!mutexes.has(key)) mutexes.set(key, new Mutex());
      return mutexes.get(key).acquire();
    },
    release: (release) => release(),
    close: () => undefined,
  };
}

module.exports = { openAsyncMutex };
