'use strict';

// The judge of histories: what is sound passes, and every planted violation is found.

const assert = require('node:assert/strict');
const { checkLocks, checkOnce } = require('./history');

const take = (token, fence, t, key = 'k') => ({ type: 'take', key, token, fence, t });
const at = (type, token, t) => ({ type, token, t });
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
