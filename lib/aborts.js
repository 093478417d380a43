'use strict';

// One listener per AbortSignal, however many operations it may abort: a signal warns of a leak when
// it gets more than a few.

const waiting = new WeakMap();

function abortAll(signal, listeners) {
  waiting.delete(signal);
  for (const listener of listeners) listener();
}

/** Calls `listener` when `signal` aborts, unless `unlisten` is called before. */
function listen(signal, listener) {
  let entry = waiting.get(signal);
  if (entry === undefined) {
    const listeners = new Set();
    entry = { listeners, onAbort: () => abortAll(signal, listeners) };
    waiting.set(signal, entry);
    signal.addEventListener('abort', entry.onAbort, { once: true });
  }
  entry.listeners.add(listener);
}

function unlisten(signal, listener) {
  const entry = waiting.get(signal);
  if (entry === undefined) return;
  entry.listeners.delete(listener);
  if (entry.listeners.size > 0) return;
  waiting.delete(signal);
  signal.removeEventListener('abort', entry.onAbort);
}

module.exports = { listen, unlisten };
