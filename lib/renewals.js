'use strict';

// Who owns a lease that the keeper has renewed. The engine reports renewals only while somebody
// subscribes, and this index is kept only then.

const binding = require('./binding');
const slots = require('./slots');
const telemetry = require('./telemetry');

const listeners = new Map();
let on = false;

// 52 bits of the token: enough to tell the leases of one process apart.
function keyOf(token0, token1) {
  return token0 * 0x100000 + (token1 & 0xfffff);
}

/** `renewed()` will be called after each renewal of the lease with the token. */
function add(token0, token1, renewed) {
  if (on) listeners.set(keyOf(token0, token1), renewed);
}

function remove(token0, token1) {
  if (on) listeners.delete(keyOf(token0, token1));
}

/** To be called when an operation starts that may lead to renewals. */
function follow() {
  const wanted = telemetry.lock.hasSubscribers || telemetry.once.hasSubscribers;
  if (wanted === on) return;
  on = wanted;
  listeners.clear();
  if (on) {
    for (const owner of slots.live()) owner[slots.ENROL]?.();
  }
  binding.renewals(on);
}

function publish(result) {
  listeners.get(keyOf(result.token0, result.token1))?.();
}

module.exports = { add, remove, follow, publish };
