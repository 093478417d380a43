'use strict';

// The statistics of the benchmarks: medians and quartiles, which one slow round does not move.

const INITIAL = 4096;

/**
 * The value below which a part of a sorted series lies, between two values in proportion.
 *
 * @param {ArrayLike<number>} sorted ascending, at least one value
 * @param {number} part 0 to 1
 * @returns {number}
 */
function quantile(sorted, part) {
  if (sorted.length === 0) throw new RangeError('there is no quantile of nothing');
  if (!(part >= 0 && part <= 1)) throw new RangeError(`part must be from 0 to 1; got ${part}`);
  const at = (sorted.length - 1) * part;
  const low = Math.floor(at);
  const high = Math.ceil(at);
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
}

/**
 * Sums up one figure over rounds.
 *
 * @param {Iterable<number>} values at least one
 * @returns {{ median: number, q1: number, q3: number, min: number, max: number, n: number }}
 */
function summary(values) {
  const sorted = Float64Array.from(values).sort();
  return {
    median: quantile(sorted, 0.5),
    q1: quantile(sorted, 0.25),
    q3: quantile(sorted, 0.75),
    min: quantile(sorted, 0),
    max: quantile(sorted, 1),
    n: sorted.length,
  };
}

/** The sum-up of `a[i] / b[i]`: what was measured in one round is compared within that round. */
function ratios(a, b) {
  if (a.length !== b.length) throw new RangeError('two series of different length');
  return summary(a.map((value, i) => value / b[i]));
}

/** Many measured values, kept as they come at next to no cost. */
class Samples {
  #values = new Float64Array(INITIAL);
  #sorted = null;

  length = 0;

  add(value) {
    if (this.length === this.#values.length) {
      const larger = new Float64Array(2 * this.length);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values[this.length++] = value;
    this.#sorted = null;
  }

  addAll(values) {
    for (const value of values) this.add(value);
  }

  /** As a copy, in the order of their size. */
  sorted() {
    this.#sorted ??= this.#values.slice(0, this.length).sort();
    return this.#sorted;
  }

  quantile(part) {
    return quantile(this.sorted(), part);
  }
}

module.exports = { quantile, summary, ratios, Samples };
