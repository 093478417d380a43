'use strict';

const assert = require('node:assert/strict');

const { describe, it } = require('mocha');

const { Samples, quantile, ratios, summary } = require('./stats');

describe('statistics of the benchmarks', () => {
  it('a quantile lies between two values, in proportion', () => {
    assert.equal(quantile([1, 2, 3, 4], 0.5), 2.5);
    assert.equal(quantile([1, 2, 3, 4, 5], 0.25), 2);
    assert.equal(quantile([10, 20], 0.99), 19.9);
    assert.equal(quantile([7], 0.5), 7);
  });

  it('refuses a quantile of nothing, and parts that are none', () => {
    assert.throws(() => quantile([], 0.5), RangeError);
    for (const part of [-0.1, 1.1, NaN]) assert.throws(() => quantile([1], part), RangeError);
  });

  it('sums up in order of size, not of digits, whatever the order they came in', () => {
    assert.deepEqual(summary([10, 9, 100, 1, 50]), {
      median: 10, q1: 9, q3: 50, min: 1, max: 100, n: 5,
    });
  });

  it('compares within a round', () => {
    // The second round was slow for both: that says nothing about which is faster.
    assert.deepEqual(ratios([10, 1, 8], [5, 0.5, 4]), {
      median: 2, q1: 2, q3: 2, min: 2, max: 2, n: 3,
    });
    assert.throws(() => ratios([1], [1, 2]), RangeError);
  });

  it('keeps more samples than it first had room for', () => {
    const samples = new Samples();
    for (let i = 10000; i >= 0; i--) samples.add(i);
    assert.equal(samples.length, 10001);
    assert.equal(samples.quantile(0.5), 5000);
    samples.addAll([20000, 20000]);
    assert.equal(samples.quantile(1), 20000);
    assert.equal(samples.length, 10003);
  });
});
