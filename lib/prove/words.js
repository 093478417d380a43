'use strict';

// Numbers as the page says them.

/** 0 -> 'never', 1 -> 'once', 2 -> 'twice', 50 -> '50 times' */
function times(n) {
  return ['never', 'once', 'twice'][n] ?? `${n} times`;
}

/** 1234 -> '1.2 s' */
function seconds(ms) {
  return `${(ms / 1000).toFixed(1)} s`;
}

/** 0.123 -> '0.12 ms', 12.34 -> '12 ms' */
function milliseconds(ms) {
  return `${ms < 10 ? ms.toPrecision(2) : Math.round(ms)} ms`;
}

/** (1, 'receipt') -> '1 receipt', (3, 'receipt') -> '3 receipts' */
function count(n, noun) {
  return `${n} ${noun}${n === 1 ? '' : 's'}`;
}

module.exports = { times, seconds, milliseconds, count };
