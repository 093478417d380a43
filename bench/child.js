'use strict';

// Processes that a suite starts, talks to and lets go.

const { fork } = require('node:child_process');
const { once } = require('node:events');
const path = require('node:path');

/** Starts a script of this folder. It ends by itself when it is disconnected. */
function startChild(script, args) {
  return fork(path.join(__dirname, script), args, { serialization: 'advanced' });
}

/** The next message of a child; rejects if it ends before. */
async function nextMessage(child) {
  const settled = new AbortController();
  const exit = once(child, 'exit', settled).then(([code, signal]) => {
    throw new Error(`a process of the benchmark ended with ${signal ?? code}`);
  });
  try {
    const [message] = await Promise.race([once(child, 'message', settled), exit]);
    return message;
  } finally {
    exit.catch(() => {}); // it is not waited for any more
    settled.abort();
  }
}

/** Sends a message and resolves with the answer. */
function ask(child, message) {
  const answer = nextMessage(child);
  child.send(message);
  return answer;
}

async function endChild(child) {
  if (!child.connected) return;
  const exit = once(child, 'exit');
  child.disconnect();
  await exit;
}

module.exports = { startChild, nextMessage, ask, endChild };
