'use strict';

const { SHARED } = require('./binding').constants;

/** How a lock is shared: `permits` is how many may hold it at a time, null where any number may. */
function modeOf(limit) {
  const permits = limit === SHARED ? null : limit;
  return { mode: limit === 1 ? 'exclusive' : 'shared', permits };
}

/**
 * A holder as the addon tells of it, [token, fence, left, since, limit, who, note], as an object.
 */
function holderInfo([token, fence, remaining, sinceUs, limit, who, note]) {
  // "pid@host" unless the host program named itself otherwise.
  const at = who.indexOf('@');
  const pid = at > 0 ? Number(who.slice(0, at)) : NaN;
  return {
    token,
    fence: fence === 0 ? null : fence,
    remaining,
    since: new Date(sinceUs / 1000),
    pid: Number.isSafeInteger(pid) ? pid : null,
    host: at >= 0 ? who.slice(at + 1) : who,
    note,
    ...modeOf(limit),
  };
}

/** A caller of this process that waits, as the addon tells of it, [waited, limit, note]. */
function waiterInfo([waited, limit, note]) {
  return { waited, note, ...modeOf(limit) };
}

module.exports = { holderInfo, modeOf, waiterInfo };
