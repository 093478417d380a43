'use strict';

// The judge of histories: what is sound passes, and every planted violation is found.

const assert = require('node:assert/strict');
const {
  checkGrowth, checkLocks, checkOnce, checkOvertaking, countBarred, countOvertaking, mostHolders,
} = require('./history');

const take = (token, fence, t, key = 'k') => ({ type: 'take', key, token, fence, t });
const at = (type, token, t) => ({ type, token, t });
const shared = (...args) => ({ ...take(...args), mode: 'shared' });
const permit = (permits, ...args) => ({ ...take(...args), permits });
const ask = (asked, event) => ({ ...event, asked });
const barred = (from, t, key = 'k') => ({ type: 'barred', key, from, t });
const write = (fence, from, t, key = 'v') => ({ type: 'write', key, fence, from, t });

/** The one violation in the history; it must be found in any order of the events. */
function assertFound(events, pattern, check = checkLocks) {
  for (const order of [events, [...events].reverse()]) {
    const problems = check(order);
    assert.equal(problems.length, 1, problems.join('\n') || 'nothing was found');
    assert.match(problems[0], pattern);
  }
}

describe('a history of locks', () => {
  it('is sound when each holder comes after the last', () => {
    assert.deepEqual(checkLocks([]), []);
    assert.deepEqual(checkLocks([
      take('a', 1, 10), at('until', 'a', 30), at('held', 'a', 12), at('release', 'a', 20),
      take('b', 2, 20.5), at('until', 'b', 40), at('lost', 'b', 45),
      take('c', 5, 41), at('held', 'c', 50), at('release', 'c', 51),
      take('d', 1, 15, 'another key'), at('until', 'd', 100),
    ]), []);
  });

  it('two holders overlap', () => {
    const overlap = /^overlap of 5\.000 ms: "k" by a \(fence 1\) and "k" by b \(fence 2\)$/;
    assertFound([take('a', 1, 10), at('release', 'a', 20), take('b', 2, 15)], overlap);
    assertFound([take('a', 1, 10), at('until', 'a', 20), take('b', 2, 15)], overlap);
    assertFound([take('a', 1, 10), at('held', 'a', 20), take('b', 2, 15)], overlap);
  });

  it('a holder outlasts one that came and went meanwhile', () => {
    assertFound([
      take('a', 1, 10), at('until', 'a', 100),
      take('b', 2, 120), at('release', 'b', 200), at('held', 'b', 130),
      take('c', 3, 150),
    ], /overlap of 50\.000 ms.*fence 2.*fence 3/);
    const nested = [
      take('a', 1, 10), at('until', 'a', 100),
      take('b', 2, 20), at('release', 'b', 30), take('c', 3, 40),
    ];
    assert.equal(checkLocks(nested).length, 2);
  });

  it('where leases may be forgotten: holders may overlap, fences may not go back', () => {
    const overlapping = [
      ask(1, take('a', 1, 10)), at('until', 'a', 100), ask(12, take('b', 7, 20)),
      at('held', 'a', 30), ask(21, shared('c', 9, 25)), ask(22, take('d', 8, 24)),
    ];
    assert.deepEqual(checkGrowth(overlapping), []);
    assert.ok(checkLocks(overlapping).length > 0);
    // Who asked before the other had it may have come first.
    assert.deepEqual(checkGrowth([ask(1, take('a', 9, 10)), ask(5, take('b', 8, 20))]), []);
    assertFound([ask(1, take('a', 9, 10)), ask(11, take('b', 8, 20))],
      /^fences out of order: "k" by a \(fence 9\), then "k" by b \(fence 8\)$/, checkGrowth);
    assertFound([ask(1, take('a', 9, 10)), at('lost', 'a', 20), at('held', 'a', 21)],
      /held after its loss/, checkGrowth);
  });

  it('a release ends what a deadline had promised', () => {
    assert.deepEqual(checkLocks([
      take('a', 1, 10), at('until', 'a', 100), at('release', 'a', 20), take('b', 2, 21),
    ]), []);
  });

  it('fences do not grow', () => {
    const wrong = /^fences out of order/;
    assertFound([take('a', 2, 10), take('b', 1, 20)], wrong);
    assertFound([take('a', 2, 10), take('b', 2, 20)], wrong);
  });

  it('a lock is held after its loss', () => {
    assertFound([take('a', 1, 10), at('lost', 'a', 20), at('held', 'a', 21)], /after its loss/);
  });

  it('a token takes twice, or comes from nowhere', () => {
    assertFound([take('a', 1, 10), take('a', 1, 10)], /taken twice/);
    assertFound([at('release', 'a', 10)], /took nothing/);
  });

  it('many share it, and exclude who would have it alone', () => {
    const readers = [
      shared('a', 1, 10), at('held', 'a', 50), shared('b', 2, 20), at('release', 'b', 30),
      shared('c', 3, 30), at('until', 'c', 60),
    ];
    assert.deepEqual(checkLocks(readers), []);
    assert.equal(mostHolders(readers), 2);
    assert.deepEqual(checkLocks([...readers, take('w', 4, 60), at('until', 'w', 70)]), []);
    assertFound([...readers, take('w', 4, 55)], /^overlap of 5\.000 ms: "k" by c .* "k" by w/);
    assertFound([...readers, take('w', 4, 45)], /^3 holders where at most 1 may be: .* by w/);
    assertFound([take('w', 1, 5), at('held', 'w', 15), ...readers.map((event) => ({
      ...event, ...(event.fence && { fence: event.fence + 1 }),
    }))], /^overlap of 5\.000 ms: "k" by w .* "k" by a/);
  });

  it('more hold it than the least of their limits', () => {
    const two = [
      permit(2, 'a', 1, 10), at('until', 'a', 40), permit(2, 'b', 2, 10), at('until', 'b', 30),
    ];
    assert.deepEqual(checkLocks(two), []);
    assert.deepEqual(checkLocks([...two, permit(2, 'c', 3, 30)]), []);
    assertFound([...two, permit(2, 'c', 3, 29)], /^3 holders where at most 2 may be/);
    assertFound([...two, permit(5, 'c', 3, 29)], /^3 holders where at most 2 may be/);
    assertFound([...two, shared('c', 3, 29)], /^3 holders where at most 2 may be/);
    // Of the two, one is gone: but two and one that allows one are too many.
    assertFound([...two, permit(1, 'c', 3, 35)], /^overlap of 5\.000 ms: "k" by a/);
    assertFound([
      permit(5, 'a', 1, 10), at('held', 'a', 20), permit(1, 'b', 2, 15),
    ], /^overlap of 5\.000 ms/);
    // A release that was never asked for does not end what a deadline had promised.
    assertFound([...two, at('lost', 'b', 20), permit(2, 'c', 3, 29)], /^3 holders/);
    assert.deepEqual(checkLocks([...two, at('release', 'b', 20), permit(2, 'c', 3, 21)]), []);
  });

  it('fences of those that share it do not grow', () => {
    // Which of them the store let in first only shows where one asked when the other had it.
    assert.deepEqual(checkLocks([ask(5, shared('a', 2, 10)), ask(6, shared('b', 1, 11))]), []);
    assert.deepEqual(checkLocks([ask(5, shared('a', 1, 10)), ask(11, shared('b', 2, 12))]), []);
    const wrong = /^fences out of order: "k" by a \(fence 2\), then "k" by b \(fence 1\)$/;
    assertFound([ask(5, shared('a', 2, 10)), ask(11, shared('b', 1, 12))], wrong);
    assertFound([ask(5, shared('a', 2, 10)), ask(5, take('b', 1, 12))], wrong);
    assertFound([ask(5, take('a', 2, 10)), ask(5, shared('b', 1, 12))], wrong);
  });

  it('several keys are taken together', () => {
    const both = { type: 'take', keys: ['k', 'l'], token: 'a', fence: 5, t: 10 };
    assert.deepEqual(checkLocks([
      both, at('until', 'a', 20), take('b', 6, 20, 'k'), take('c', 6, 20, 'l'),
      take('d', 1, 10, 'm'), at('until', 'd', 20),
    ]), []);
    assertFound([both, at('until', 'a', 20), take('c', 6, 19, 'l')],
      /^overlap of 1\.000 ms: "l" by a \(fence 5\) and "l" by c/);
    assertFound([take('b', 6, 5, 'l'), both], /^fences out of order: "l" by b .* "l" by a/);
    assertFound([both, both], /^"k", "l" by a \(fence 5\) was taken twice/);
  });

  it('a reader gets in though it was barred', () => {
    const waits = [ask(0, shared('a', 1, 5)), at('held', 'a', 40), barred(12, 15)];
    const writer = [ask(10, take('w', 3, 50)), at('release', 'w', 60), at('released', 'w', 62)];
    const inTime = ask(14, shared('b', 2, 20));
    const late = ask(16, shared('b', 2, 20));
    const after = ask(16, shared('c', 4, 61));
    assert.deepEqual(checkOvertaking([...waits, ...writer, inTime, after]), []);
    assert.equal(countBarred([...waits, ...writer, inTime, after]), 1);
    assertFound([...waits, ...writer, late, after],
      /^"k" by b \(fence 2\) was let in, .* 1\.000 ms after .*: next came "k" by w/,
      checkOvertaking);
    assertFound([...waits, late], /no writer came/, checkOvertaking);
    assert.deepEqual(checkOvertaking([...waits, ...writer, { ...late, key: 'l' }]), []);
    // Barred by a writer that had it, or may not have let go of it yet.
    const had = ask(70, shared('d', 5, 75));
    for (const refusal of [barred(45, 50), barred(55, 58), barred(61, 63)]) {
      assert.deepEqual(checkOvertaking([refusal, ...writer, had]), []);
      assert.equal(countBarred([refusal, ...writer, had]), 0);
    }
    assertFound([barred(63, 64), ...writer, had], /no writer came/, checkOvertaking);
    // The next turn, of whichever writer, ends what is known.
    const another = [ask(11, take('x', 2, 42)), at('released', 'x', 44)];
    assert.deepEqual(checkOvertaking([
      ...waits, ...writer, ...another, ask(43, shared('e', 3, 46)),
    ]), []);
  });

  it('counts who overtakes a writer', () => {
    assert.deepEqual(countOvertaking([
      ask(0, shared('a', 1, 5)), ask(9, shared('b', 2, 20)), ask(11, shared('c', 3, 20)),
      ask(11, shared('d', 6, 70)), ask(12, take('v', 4, 30)), ask(10, take('w', 5, 50)),
    ]), [{ readers: 1, writers: 0 }, { readers: 1, writers: 1 }].map((count, i) =>
      (i === 0 ? { ...count, readers: 0 } : count)));
  });

  it('a stale write is accepted', () => {
    assert.deepEqual(checkLocks([write(1, 10, 12), write(2, 11, 13), write(2, 14, 15)]), []);
    // At the same time: any of the two may have come first.
    assert.deepEqual(checkLocks([write(2, 10, 20), write(1, 15, 25)]), []);
    assertFound([write(2, 10, 20), write(1, 21, 25)], /stale write of "v": fence 1 after 2/);
    assert.deepEqual(checkLocks([write(2, 10, 20), write(1, 21, 25, 'another')]), []);
  });
});

describe('a history of operations that run once', () => {
  const effect = (run, worker, op = 'o') => ({ type: 'effect', op, run, worker });
  const outcome = (run, op = 'o') => ({ type: 'outcome', op, run, t: 10 });
  const refused = { type: 'refused', op: 'o', from: 11 };
  const crash = (worker) => ({ type: 'crash', worker });
  const withPolicy = (policy) => (events) => checkOnce(events, () => policy);
  const retry = withPolicy('retry');
  const fail = withPolicy('fail');

  it('is sound with one effect for each outcome', () => {
    const events = [effect('r', 1), outcome('r'), outcome('r'), effect('q', 1, 'p'),
      outcome('q', 'p')];
    assert.deepEqual(retry(events), []);
    assert.deepEqual(fail(events), []);
  });

  it('a duplicate needs a process that was killed', () => {
    const events = [effect('r', 1), effect('s', 2), outcome('s')];
    assertFound(events, /nobody killed/, retry);
    assert.deepEqual(retry([...events, crash(1)]), []);
    assert.deepEqual(retry([...events, { type: 'lost-run', op: 'o', run: 'r' }]), []);
    assertFound([...events, crash(2)], /nobody killed/, retry);
    assertFound([...events, crash(1)], /2 times, though its policy is 'fail'/, fail);
  });

  it('an unknown outcome needs one as well', () => {
    assert.deepEqual(fail([effect('r', 1), refused, crash(1)]), []);
    assertFound([effect('r', 1), refused], /nobody killed/, fail);
    assertFound([effect('r', 1), outcome('r'), refused], /then said to be unknown/, fail);
    // Its outcome was unknown while the process that had it stood still.
    assert.deepEqual(fail([effect('r', 1), outcome('r'), { ...refused, from: 9 }]), []);
    assertFound([refused], /may be retried/, retry);
  });

  it('a run takes effect twice', () => {
    assertFound([effect('r', 1), effect('r', 1), outcome('r')], /took effect twice/, retry);
  });

  it('two outcomes, or one without an effect', () => {
    assertFound([effect('r', 1), effect('s', 1), outcome('r'), outcome('s')],
      /2 different outcomes/, retry);
    assertFound([outcome('r')], /without an effect/, retry);
  });
});
