'use strict';

// Judges what processes wrote down of their locks and runs. Times are milliseconds of the clock
// that all processes of a machine share; they are noted so that no time in which a process held a
// lock looks longer than it was:
//
//   { type: 'take', key, token, fence, t }   had by then: t read before `held` was seen to be true
//   { type: 'until', token, t }              the holder was told that it has the lock until t
//   { type: 'held', token, t }               `held` was true at a moment not before t
//   { type: 'release', token, t }            t read before the release was asked for
//   { type: 'released', token, t }           t read after the release was answered
//   { type: 'lost', token, t }               the holder has been told of the loss, at t
//   { type: 'barred', key, from, t }         one who would share it was refused in between
//   { type: 'write', key, fence, from, t }   a write guarded by the fence was accepted
//
// A take may have `keys` instead of `key`, `mode: 'shared'` or `permits` as they were asked for,
// and `asked`: read before it was.
//
// and of operations that are to run once:
//
//   { type: 'effect', op, run, worker }      the run took effect
//   { type: 'outcome', op, run, t }          somebody was given the result of that run, at t
//   { type: 'refused', op, from }            who asked at `from` was told that it is unknown
//   { type: 'lost-run', op, run }            the run was told that its claim was lost
//   { type: 'crash', worker }                the process was killed

/** How many may hold it at a time, if it is for this one to say. */
function limitOf({ mode, permits }) {
  return mode === 'shared' ? Infinity : permits ?? 1;
}

function holdOf(take) {
  const { token, fence, asked, t } = take;
  const keys = take.keys ?? [take.key];
  const ends = { end: t, released: Infinity, gone: Infinity, lost: Infinity };
  return { keys, token, fence, limit: limitOf(take), asked, from: t, ...ends };
}

/**
 * Puts the events of each holder together.
 *
 * @returns {{ holds: object[], problems: string[] }} holds in the order in which they were taken
 */
function readHolds(events) {
  const holds = new Map();
  const problems = [];
  for (const take of events.filter(({ type }) => type === 'take')) {
    const hold = holdOf(take);
    if (holds.has(hold.token)) problems.push(`${name(hold)} was taken twice`);
    holds.set(hold.token, hold);
  }
  for (const { type, token, t } of events) {
    const hold = holds.get(token);
    if (type === 'release' && hold) hold.released = Math.min(hold.released, t);
    if (type === 'released' && hold) hold.gone = Math.min(hold.gone, t);
    if (type === 'lost' && hold) hold.lost = Math.min(hold.lost, t);
    if (['until', 'held', 'release', 'released', 'lost'].includes(type) && !hold) {
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

function name({ keys, token, fence }, key = keys.join('", "')) {
  return `"${key}" by ${token}${fence === undefined ? '' : ` (fence ${fence})`}`;
}

/** @returns {Map<string, object[]>} the holds of each key, in the order given */
function byKey(holds) {
  const keys = new Map();
  for (const hold of holds) {
    for (const key of hold.keys) {
      if (!keys.has(key)) keys.set(key, []);
      keys.get(key).push(hold);
    }
  }
  return keys;
}

function newer(a, b) {
  return a === null || b.fence > a.fence ? b : a;
}

/**
 * Calls `look(live)` at each take of a key, with those that hold it at that instant, the taker
 * last. Between takes holders only become fewer.
 */
function atEachTake(holds, look) {
  let live = [];
  for (const hold of holds) {
    live = live.filter(({ end }) => hold.from < end);
    live.push(hold);
    look(live);
  }
}

/** At any instant no more holders of a key than the least of their limits. */
function checkLimits(key, holds) {
  const problems = [];
  atEachTake(holds, (live) => {
    const limit = Math.min(...live.map((hold) => hold.limit));
    if (live.length <= limit) return;
    const names = live.map((hold) => name(hold, key));
    if (live.length === 2) {
      const ms = (live[0].end - live[1].from).toFixed(3);
      problems.push(`overlap of ${ms} ms: ${names.join(' and ')}`);
    } else {
      problems.push(`${live.length} holders where at most ${limit} may be: ${names.join(', ')}`);
    }
  });
  return problems;
}

/**
 * Fences grow with every take. Holders that exclude each other took in the order in which they
 * held. Of those that may hold together, one is known to come later only if it asked when the
 * other had it.
 */
function checkFences(key, holds) {
  const problems = [];
  let newest = null;
  let newestAlone = null; // of those that hold alone
  for (const hold of holds) {
    const before = hold.limit === 1 ? newest : newestAlone;
    if (before !== null && hold.fence <= before.fence) {
      problems.push(outOfOrder(key, before, hold));
    }
    newest = newer(newest, hold);
    if (hold.limit === 1) newestAlone = newer(newestAlone, hold);
  }
  return [...problems, ...checkKnownOrder(key, holds.filter(({ limit }) => limit > 1))];
}

/** Who asked when another is known to have had it, has a greater fence than that one. */
function checkKnownOrder(key, holds) {
  const problems = [];
  let known = null;
  let next = 0;
  for (const hold of holds.filter(({ asked }) => asked !== undefined).sort(byAsked)) {
    for (; next < holds.length && holds[next].from < hold.asked; next++) {
      known = newer(known, holds[next]);
    }
    if (known !== null && hold.fence <= known.fence) problems.push(outOfOrder(key, known, hold));
  }
  return problems;
}

function outOfOrder(key, before, hold) {
  return `fences out of order: ${name(before, key)}, then ${name(hold, key)}`;
}

function byAsked(a, b) {
  return a.asked - b.asked;
}

function checkHolds(holds) {
  return [...byKey(holds)].flatMap(([key, ofKey]) =>
    [...checkLimits(key, ofKey), ...checkFences(key, ofKey)]);
}

/**
 * From when to when readers were barred, as far as anybody saw it: once one was, until the next
 * turn of a writer.
 *
 * Who was refused while no writer had it was refused for a writer that waited. If that one, or
 * another, had it by then and had only not written it down yet, its turn is the next: then no
 * reader can come between either.
 *
 * @returns {Map<object | undefined, number>} of each such turn, when the first was seen before it
 */
function barredBefore(key, holds, barred) {
  const writers = holds.filter(({ limit }) => limit === 1);
  const had = ({ from, t }) =>
    writers.some((writer) => writer.from <= t && Math.max(writer.end, writer.gone) >= from);
  const earliest = new Map();
  for (const refusal of barred.filter((event) => event.key === key && !had(event))) {
    const turn = writers.find(({ from }) => from > refusal.t);
    earliest.set(turn, Math.min(refusal.t, earliest.get(turn) ?? Infinity));
  }
  return earliest;
}

/** No reader that asked when readers were barred has it before a writer had its turn. */
function checkBarred(key, holds, barred) {
  const problems = [];
  const readers = holds.filter(({ limit }) => limit > 1);
  for (const [turn, since] of barredBefore(key, holds, barred)) {
    const until = turn?.from ?? Infinity;
    for (const reader of readers) {
      if (!(reader.asked > since && reader.from < until)) continue;
      const late = (reader.asked - since).toFixed(3);
      const next = turn === undefined ? 'no writer came' : `next came ${name(turn, key)}`;
      problems.push(`${name(reader, key)} was let in, asked for ${late} ms after one was barred: ` +
        next);
    }
  }
  return problems;
}

/**
 * Finds readers that were let in though a writer that waited had barred them.
 *
 * @param {object[]} events in any order, each take with `asked`
 * @returns {string[]} the violations, as sentences; none is good
 */
function checkOvertaking(events) {
  const { holds } = readHolds(events);
  const barred = events.filter(({ type }) => type === 'barred');
  return [...byKey(holds)].flatMap(([key, ofKey]) => checkBarred(key, ofKey, barred));
}

/** @returns {number} for how many turns of writers checkOvertaking can tell anything */
function countBarred(events) {
  const { holds } = readHolds(events);
  const barred = events.filter(({ type }) => type === 'barred');
  return [...byKey(holds)].reduce((sum, [key, ofKey]) =>
    sum + barredBefore(key, ofKey, barred).size, 0);
}

/**
 * Counts, for each turn of each writer, who asked after it and had the key before it.
 *
 * @param {object[]} events in any order, each take with `asked`
 * @returns {{ readers: number, writers: number }[]}
 */
function countOvertaking(events) {
  const { holds } = readHolds(events);
  return [...byKey(holds).values()].flatMap((ofKey) => {
    const writers = ofKey.filter(({ limit }) => limit === 1);
    return writers.map((writer) => {
      const before = ofKey.filter(({ asked, from }) => asked > writer.asked && from < writer.from);
      const alone = before.filter(({ limit }) => limit === 1).length;
      return { readers: before.length - alone, writers: alone };
    });
  });
}

/** @returns {number} the most holders that any key had at an instant, by what was written down */
function mostHolders(events) {
  let most = 0;
  for (const holds of byKey(readHolds(events).holds).values()) {
    atEachTake(holds, (live) => { most = Math.max(most, live.length); });
  }
  return most;
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

/**
 * Finds what must never be in a history of locks that have no fences.
 *
 * @param {object[]} events in any order
 * @returns {string[]} the violations, as sentences; none is good
 */
function checkLimitsOf(events) {
  const { holds, problems } = readHolds(events);
  return [...problems, ...[...byKey(holds)].flatMap(([key, ofKey]) => checkLimits(key, ofKey))];
}

/**
 * Finds what must not be in a history even where the store forgot leases, so that holders overlap:
 * fences grow all the same.
 *
 * @param {object[]} events in any order, each take with `asked`
 * @returns {string[]} the violations, as sentences; none is good
 */
function checkGrowth(events) {
  const { holds, problems } = readHolds(events);
  const unordered = [...byKey(holds)].flatMap(([key, ofKey]) => checkKnownOrder(key, ofKey));
  return [...problems, ...unordered];
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

module.exports = {
  checkLimitsOf,
  checkGrowth, checkLocks, checkOnce, checkOvertaking, countBarred, countOvertaking, mostHolders,
  readHolds,
};
