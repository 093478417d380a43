'use strict';

// How the nodes voted, told as redlock 5 does.

const { LockLostError, LockTimeoutError } = require('./errors');
const { ResourceLockedError } = require('./redlock-errors');
const { votesOf } = require('./votes');

function refused(keys) {
  return new ResourceLockedError(
    `The operation was applied to: 0 of the ${keys.length} requested resources.`);
}

// A store that is no quorum has one voice, and `error` is what it said.
function singleVote(error) {
  if (error === null) return { vote: 'for', error: null };
  const isRefusal = error instanceof LockTimeoutError || error instanceof LockLostError;
  return { vote: isRefusal ? 'against' : 'down', error };
}

function errorOf({ vote, error }, keys) {
  if (vote === 'against') return refused(keys);
  return error ?? new Error(`The node has no vote: it is ${vote}.`);
}

/**
 * The statistics of one attempt. A node whose answer was not waited for, since that of the others
 * decided, is on neither side.
 *
 * @param {readonly unknown[]} clients in the order of the nodes
 * @param {readonly string[]} keys
 * @param {object} told the Lock of Holdfast, or the error that the operation ended with
 * @param {Error | null} error the same error, or null
 * @returns {{ membershipSize: number, quorumSize: number, votesFor: Set<unknown>,
 *   votesAgainst: Map<unknown, Error> }}
 */
function statsOf(clients, keys, told, error) {
  const votes = votesOf(told);
  const stats = {
    membershipSize: clients.length,
    quorumSize: Math.floor(clients.length / 2) + 1,
    votesFor: new Set(),
    votesAgainst: new Map(),
  };
  for (const [i, client] of clients.entries()) {
    const each = votes?.[i] ?? singleVote(error);
    if (each.vote === 'for') stats.votesFor.add(client);
    else if (each.vote !== 'open') stats.votesAgainst.set(client, errorOf(each, keys));
  }
  return stats;
}

module.exports = { statsOf };
