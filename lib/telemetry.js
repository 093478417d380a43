'use strict';

// What Holdfast tells about itself: diagnostics channels, which cost nothing while nobody
// subscribes, and problems that no call can report.

const diagnostics = require('node:diagnostics_channel');

const lock = diagnostics.channel('holdfast:lock');
const once = diagnostics.channel('holdfast:once');
const kv = diagnostics.channel('holdfast:kv');
const store = diagnostics.channel('holdfast:store');
const quorum = diagnostics.channel('holdfast:quorum');
const advisory = diagnostics.channel('holdfast:advisory');

const warned = new Set();

// A listener that throws is its owner's affair, not that of the operation that had the problem.
function emit(emitter, event, value) {
  try {
    emitter.emit(event, value);
  } catch (thrown) {
    process.nextTick(() => {
      throw thrown;
    });
  }
}

/**
 * Tells of a problem that no caller waits to hear of: 'error' where someone listens, else one
 * warning of the process for each code.
 */
function warn(emitter, error) {
  publishStore({ event: 'warning', error });
  if (emitter.listenerCount('error') > 0) {
    emit(emitter, 'error', error);
  } else if (!warned.has(error.code)) {
    warned.add(error.code);
    process.emitWarning(error.message, { type: 'HoldfastWarning', code: error.code });
  }
}

/** Tells of a node of a quorum that is in another state. */
function node(emitter, info) {
  if (quorum.hasSubscribers) quorum.publish({ event: 'node', ...info });
  emit(emitter, 'node', info);
}

/** Publishes what happens to a store as a whole. */
function publishStore(message) {
  if (store.hasSubscribers) store.publish(message);
}

module.exports = { advisory, lock, once, kv, node, warn, publishStore };
