'use strict';

// What each node of a quorum said to an operation, and how it stands.

const { constants } = require('./binding');

const VOTES = {
  [constants.VOTE_FOR]: 'for',
  [constants.VOTE_AGAINST]: 'against',
  [constants.VOTE_DOWN]: 'down',
  [constants.VOTE_QUARANTINED]: 'quarantined',
};
const STATES = {
  [constants.NODE_DOWN]: 'down',
  [constants.NODE_QUARANTINED]: 'quarantined',
  [constants.NODE_VOTING]: 'voting',
};
const REASONS = {
  [constants.NODE_RESTARTED]: 'restarted',
  [constants.NODE_EMPTIED]: 'emptied',
  [constants.NODE_CLOCK]: 'clock',
};

// Of locks and errors: what they came of. They do not show it to everybody.
const known = new WeakMap();

/**
 * Votes as the addon tells of them, [node, vote, error]... A node that was not waited for is
 * 'open'.
 */
function readVotes(raw, fromNative) {
  return raw.map(([node, vote, error]) => ({
    node,
    vote: VOTES[vote] ?? 'open',
    error: error === null ? null : fromNative(error),
  }));
}

// Those Holdfasts whose locks are asked how the nodes voted, which costs each a little.
const wanting = new WeakSet();

/** From now on votesOf() knows of locks and lock errors of `holdfast`, not only of QuorumErrors. */
function wantVotes(holdfast) {
  wanting.add(holdfast);
}

function wantsVotes(holdfast) {
  return wanting.has(holdfast);
}

/** Notes what `it`, a lock or an error, came of: the votes, or a function that gives them. */
function noteVotes(it, votes) {
  known.set(it, votes);
}

/**
 * The votes of the last operation of a lock, or of what an error reports, in order of the URLs. See
 * wantVotes().
 *
 * @returns {{ node: string, vote: string, error: Error | null }[] | null} null if the store is no
 *   quorum
 */
function votesOf(it) {
  const votes = known.get(it) ?? null;
  return typeof votes === 'function' ? votes() : votes;
}

/** A node as the addon tells of it, [name, state, reason, left]. */
function nodeInfo([node, state, reason, left]) {
  return {
    node,
    state: STATES[state] ?? 'unknown',
    reason: REASONS[reason] ?? null,
    until: state === constants.NODE_QUARANTINED ? new Date(Date.now() + left) : null,
  };
}

module.exports = { nodeInfo, noteVotes, readVotes, votesOf, wantVotes, wantsVotes };
