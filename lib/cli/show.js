'use strict';

// How commands show what a store says.

/** Text from a store, safe for a terminal: a note must not move the cursor. */
function plain(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

function seconds(ms) {
  return `${(ms / 1000).toFixed(1)} s`;
}

/** A holder without its token, which is what proves to the store who it is. */
function holderOf({ fence, remaining, since, pid, host, note, mode, permits }) {
  return { fence, remaining, since, pid, host, note, mode, permits };
}

function whoOf({ pid, host }) {
  return `${pid === null ? '' : `process ${pid} on `}${plain(host)}`;
}

function modeOf({ mode, permits }) {
  return mode === 'exclusive' || permits === null ? mode : `one of ${permits}`;
}

module.exports = { holderOf, modeOf, plain, seconds, whoOf };
