'use strict';

// How those who cannot be told of a release wait for one: they look again after a short and then
// longer pause. Longer pauses waste less and wait longer; these favour the wait.

const PAUSE_MIN_MS = 1;
const PAUSE_MAX_MS = 8;

module.exports = { PAUSE_MIN_MS, PAUSE_MAX_MS };
