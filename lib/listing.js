'use strict';

// Who holds what: one key, or all of them. Keys are whole, but for what is given back.

const binding = require('./binding');
const { HoldfastError } = require('./errors');
const { holderInfo, waiterInfo } = require('./holder');

const { OP_EXACT, OP_NEXT } = binding.constants;

// Holders in one page, unless one key has more; and as many waiters of a key are told of.
const LISTED_MAX = 1000;

// Resolves with [key, holder]... in order of key, those of a key together.
function list(client, key, after, flags) {
  return client.call(
    (handle, slot) => binding.list(handle, slot, key, after, LISTED_MAX, flags),
    ({ extra }) => extra,
  );
}

function infoOf(client, keyspace, key, holders) {
  const [waiting, ...waiters] = client.closed
    ? [0]
    : binding.waiters(client.slot, key, LISTED_MAX);
  return {
    key: keyspace.leave(key),
    holders: holders.map(holderInfo),
    waiting,
    waiters: waiters.map(waiterInfo),
  };
}

/** The lock of one key: @returns {Promise<object | null>} null when nobody holds it, nor waits */
async function inspectLock(client, keyspace, key) {
  const rows = await list(client, key, '', OP_EXACT);
  const info = infoOf(client, keyspace, key, rows.map(([, holder]) => holder));
  if (info.holders.length === 0 && info.waiting === 0) return null;
  return client.isQuorum ? { ...info, nodes: client.nodes() } : info;
}

// The next page begins after the last key of this one. Keys that are no UTF-8, as a program in C
// may have written, do not come back as they are: without this a list of them might never end.
function checkOrder(after, last) {
  if (Buffer.compare(Buffer.from(last), Buffer.from(after)) > 0) return;
  throw new HoldfastError('HF_EPROTO', 'the store has keys of locks that are no UTF-8');
}

/** All locks that are held whose key starts with `prefix`, in order of key. */
async function* listLocks(client, keyspace, prefix) {
  for (let after = ''; ;) {
    const rows = await list(client, prefix, after, after === '' ? 0 : OP_NEXT);
    if (rows.length === 0) return;
    const last = rows.at(-1)[0];
    checkOrder(after, last);
    for (let i = 0; i < rows.length;) {
      const [key] = rows[i];
      const holders = [];
      for (; i < rows.length && rows[i][0] === key; i++) holders.push(rows[i][1]);
      yield infoOf(client, keyspace, key, holders);
    }
    after = last;
  }
}

module.exports = { inspectLock, listLocks };
