'use strict';

const assert = require('node:assert/strict');

const { describe, it } = require('mocha');

const { scenarioText, times } = require('./report');
const { sumUp } = require('./rounds');

describe('reports of the benchmarks', () => {
  it('writes a ratio with two digits that count', () => {
    const written = [1234, 12, 9.51, 1, 0.336, 0.0999, 0.000062, 0].map(times);
    assert.deepEqual(written, [
      '1,234 x', '12 x', '9.5 x', '1.0 x', '0.34 x', '0.10 x', '0.000062 x', '0.00 x',
    ]);
  });

  it('compares each of ours to each peer, in what both measured', () => {
    const rounds = {
      memory: [{ p50: 1, p99: 2 }, { p50: 1, p99: 2 }],
      sqlite: [{ p50: 2, p99: 4 }, { p50: 2, p99: 4 }],
      quick: [{ p50: 4, p99: 8 }, { p50: 4, p99: 16 }],
      slow: [{ p50: 1000 }, { p50: 1000 }],
    };
    const result = sumUp('waiting', 'hand-overs', rounds, { ours: 2, timed: true });
    assert.deepEqual(Object.keys(result.ratios), ['quick', 'slow']);
    assert.deepEqual(Object.keys(result.more), ['sqlite']);
    assert.equal(result.ratios.quick.p99.median, (2 / 8 + 2 / 16) / 2);
    assert.equal(result.more.sqlite.quick.p50.median, 0.5);
    assert.deepEqual(Object.keys(result.more.sqlite.slow), ['p50']);
    const text = scenarioText(result);
    for (const line of [
      '  memory / slow: p50 0.0010 x (0.0010 to 0.0010)',
      '  sqlite / quick: p50 0.50 x (0.50 to 0.50), p99 0.38 x (0.31 to 0.44)',
    ]) assert.ok(text.split('\n').includes(line), text);
  });
});
