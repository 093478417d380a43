'use strict';

// Judges what processes wrote down of their locks and runs. Times are milliseconds of the clock
// that all processes of a machine share; they are noted so that no time in which a process held a
// lock looks longer than it was:
//
//   { type: 'take', key, token, fence, t }   had by then: t read before `held` was seen to be true
//   { type: 'until', token, t }              the holder was told that it has the lock until t
//   { type: 'held', token, t }               `held` was true at a moment not before t
//   { type: 'release', token, t }            t read before the release was asked for
//   { type: 'lost', token, t }               the holder has been told of the loss, at t
//   { type: 'write', key, fence, from, t }   a write guarded by the fence was accepted
//
// and of operations that are to run once:
//
//   { type: 'effect', op, run, worker }      the run took effect
//   { type: 'outcome', op, run, t }          somebody was given the result of that run, at t
//   { type: 'refused', op, from }            who asked at `from` was told that it is unknown
//   { type: 'lost-run', op, run }            the run was told that its claim was lost
//   { type: 'crash', worker }                the process was killed

/**
 * Puts the events of each holder together.
 *
 * @returns {{ holds: object[], problems: string[] }} holds in the order in which they were taken
 */
function readHolds(events) {
  const holds = new Map();
  const problems = [];
  const takes = events.filter(({ type }) => type === 'take');
  for (const { key, token, fence, t } of takes) {
    if (holds.has(token)) problems.push(`${name({ key, token })} was taken twice`);
    holds.set(token, { key, token, fence, from: t, end: t, released: Infinity, lost: Infinity });
  }
  for (const { type, token, t } of events) {
    const hold = holds.get(token);
    if (type === 'release' && hold) hold.released = Math.min(hold.released, t);
    if (type === 'lost' && hold) hold.lost = Math.min(hold.lost, t);
    if (['until', 'held', 'release', 'lost'].includes(type) && !hold) {
      problems.push(`'${type}' of ${token}, which took nothing`);
    }
  }
  for (const { type, token, t } of events) {
    const hold = holds.get(token);
    if (!hold) continue;
    if (type === 'held' && t > hold.lost) problems.push(`${name(hold)} was held after its loss`);
    if (type === 'held' || type === 'until') {
      hold.end = Math.max(hold.end, Math.min(t, hold.released));
    }
  }
  for (const hold of holds.values()) {
    if (hold.released < Infinity) hold.end = Math.max(hold.end, hold.released);
  }
  return { holds: [...holds.values()].sort((a, b) => a.from - b.from), problems };
}

function name({ key, token, fence }) {
  return `"${key}" by ${token}${fence === undefined ? '' : ` (fence ${fence})`}`;
}

/** No two holders at a time, and fences in the order of the takes. */
function checkHolds(holds) {
  const problems = [];
  const last = new Map(); // of each key, the hold that ends last
  for (const hold of holds) {
    const before = last.get(hold.key);
    if (before && hold.from < before.end) {
      const ms = (before.end - hold.from).toFixed(3);
      problems.push(`overlap of ${ms} ms: ${name(before)} and ${name(hold)}`);
    }
    if (before && hold.fence <= before.fence) {
      problems.push(`fences out of order: ${name(before)}, then ${name(hold)}`);
    }
    if (!before || hold.end > before.end) last.set(hold.key, hold);
  }
  return problems;
}

/** No write with an older fence is accepted after one with a newer fence was. */
function checkWrites(events) {
  const problems = [];
  const writes = events.filter(({ type }) => type === 'write');
  const newest = new Map(); // of each key, the newest fence among the writes that have ended
  const ended = [...writes].sort((a, b) => a.t - b.t);
  let next = 0;
  for (const write of [...writes].sort((a, b) => a.from - b.from)) {
    for (; next < ended.length && ended[next].t < write.from; next++) {
      const { key, fence } = ended[next];
      newest.set(key, Math.max(fence, newest.get(key) ?? 0));
    }
    const fence = newest.get(write.key);
    if (fence > write.fence) {
      problems.push(`stale write of "${write.key}": fence ${write.fence} after ${fence}`);
    }
  }
  return problems;
}

/**
 * Finds what must never be in a history of locks.
 *
 * @param {object[]} events in any order
 * @returns {string[]} the violations, as sentences; none is good
 */
function checkLocks(events) {
  const { holds, problems } = readHolds(events);
  return [...problems, ...checkHolds(holds), ...checkWrites(events)];
}

function groupByOp(events) {
  const ops = new Map();
  for (const event of events) {
    if (event.op === undefined) continue;
    if (!ops.has(event.op)) ops.set(event.op, { effects: [], outcomes: [], refusals: [] });
    const op = ops.get(event.op);
    if (event.type === 'effect') op.effects.push(event);
    if (event.type === 'outcome') op.outcomes.push(event);
    if (event.type === 'refused') op.refusals.push(event);
  }
  return ops;
}

function checkOp(op, { effects, outcomes, refusals }, policy, excused) {
  const problems = [];
  const runs = effects.map(({ run }) => run);
  const results = new Set(outcomes.map(({ run }) => run));
  if (results.size > 1) problems.push(`${op} has ${results.size} different outcomes`);
  if (new Set(runs).size < runs.length) problems.push(`a run of ${op} took effect twice`);
  for (const run of results) {
    if (!runs.includes(run)) problems.push(`${op} was acknowledged by a run without an effect`);
  }
  if (policy === 'fail' && runs.length > 1) {
    problems.push(`${op} took effect ${runs.length} times, though its policy is 'fail'`);
  }
  if (policy === 'retry' && refusals.length > 0) {
    problems.push(`${op} was refused, though it may be retried`);
  }
  const known = Math.min(...outcomes.map(({ t }) => t));
  if (refusals.some(({ from }) => from > known)) {
    problems.push(`${op} was acknowledged, and then said to be unknown`);
  }
  // Of all effects, one is the result's.
  const alive = effects.filter((effect) => !results.has(effect.run) && !excused(effect));
  if (alive.length > 0) {
    problems.push(`${op} took effect in a run that nobody killed, without giving its outcome`);
  }
  return problems;
}

/**
 * Finds what must never be in a history of operations that run once: each effect is that of the one
 * acknowledged run, or of a run that was killed between its effect and its end.
 *
 * @param {object[]} events in any order
 * @param {(op: string) => 'retry' | 'fail'} policyOf
 * @returns {string[]} the violations, as sentences; none is good
 */
function checkOnce(events, policyOf) {
  const crashed = new Set();
  const lost = new Set();
  for (const { type, worker, run } of events) {
    if (type === 'crash') crashed.add(worker);
    if (type === 'lost-run') lost.add(run);
  }
  const excused = ({ worker, run }) => crashed.has(worker) || lost.has(run);
  return [...groupByOp(events)].flatMap(([op, found]) =>
    checkOp(op, found, policyOf(op), excused));
}

module.exports = { checkLocks, checkOnce };
