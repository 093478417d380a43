'use strict';

/**
 * A holder as the addon tells of it, [token, fence, left, since, limit, who, note], as an object.
 */
function holderInfo([token, fence, remaining, sinceUs, , who, note]) {
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
  };
}

module.exports = { holderInfo };
