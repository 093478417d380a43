'use strict';

// How results come back from the addon. Whoever starts an operation takes a slot, a small number
// that names it on both sides; the addon writes what happened as records into memory that both see,
// and calls `deliver` once for a whole series of them.

const binding = require('./binding');

const { RECORD_SIZE } = binding.constants;
const RECORDS = 256;
const WORDS = RECORD_SIZE / 4;

const memory = new ArrayBuffer(RECORDS * RECORD_SIZE);
const words = new Int32Array(memory);
const doubles = new Float64Array(memory);

// Names of what an owner has for us and its users need not see: [ON](event, result) gets its
// records; [ENROL](), if there is one, tells lib/renewals.js of a lease that it holds.
const ON = Symbol('on');
const ENROL = Symbol('enrol');

const owners = [];
const free = [];
// Who hears of what concerns no slot.
let onGeneral = null;

/** One record, as its owner reads it. There is only one of these: copy what must last. */
const result = {
  flags: 0,
  first: 0,
  second: 0,
  token0: 0,
  token1: 0,
  token2: 0,
  token3: 0,
  extra: undefined,
};

/** Takes a slot for `owner`, whose `[ON](event, result)` will get its records. */
function take(owner) {
  const slot = free.length > 0 ? free.pop() : owners.length;
  owners[slot] = owner;
  return slot;
}

/** Gives a slot back, after the last record for it. */
function give(slot) {
  owners[slot] = undefined;
  free.push(slot);
}

function read(i, extras) {
  const at = i * WORDS;
  const extra = words[at + 3];
  result.flags = words[at + 2];
  result.extra = extra < 0 ? undefined : extras[extra];
  result.token0 = words[at + 4];
  result.token1 = words[at + 5];
  result.token2 = words[at + 6];
  result.token3 = words[at + 7];
  result.first = doubles[at / 2 + 4];
  result.second = doubles[at / 2 + 5];
}

function throwLater(error) {
  process.nextTick(() => {
    throw error;
  });
}

function deliver(count, extras) {
  for (let i = 0; i < count; i++) {
    read(i, extras);
    const slot = words[i * WORDS];
    const event = words[i * WORDS + 1];
    try {
      if (slot >= 0) {
        const owner = owners[slot];
        if (owner !== undefined) owner[ON](event, result);
      } else if (onGeneral !== null) {
        onGeneral(event, result);
      }
    } catch (error) {
      // A listener of the user's threw. The other results of the series must still arrive.
      throwLater(error);
    }
  }
}

/** All owners there are. */
function* live() {
  for (const owner of owners) {
    if (owner !== undefined) yield owner;
  }
}

binding.listen(deliver, memory);

module.exports = {
  ON,
  ENROL,
  take,
  give,
  live,
  setGeneral(listener) {
    onGeneral = listener;
  },
};
