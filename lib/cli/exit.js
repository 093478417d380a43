'use strict';

/** Exit codes of the command line; they are documented, so they stay. */
const EXIT = Object.freeze({ OK: 0, FAILED: 1, USAGE: 2 });

/** The command line is wrong, not the store. */
class UsageError extends Error {}

module.exports = { EXIT, UsageError };
