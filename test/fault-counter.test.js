'use strict';

// Many processes that read, add one and write, with nothing but a lock between them.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const { PATIENCE_MS, endAll, start, temporaryPath } = require('./fault-harness');

const PROCESSES = 8;
const ROUNDS = 500;

describe('a counter in a file', function () {
  this.timeout(3 * PATIENCE_MS);
  afterEach(endAll);

  it('8 processes x 500 read-modify-writes: none is lost, and fences grow [slow]', async () => {
    const url = `sqlite:${temporaryPath()}`;
    const file = temporaryPath('counter');
    const log = temporaryPath('fences');
    fs.writeFileSync(file, '0');
    const args = { url, file, log, rounds: ROUNDS };
    const processes = Array.from({ length: PROCESSES }, () => start('counter', args));
    for (const { ended } of processes) {
      assert.deepEqual(await ended, { code: 0, signal: null, stderr: '' });
    }
    assert.equal(fs.readFileSync(file, 'utf8'), String(PROCESSES * ROUNDS));
    const fences = fs.readFileSync(log, 'utf8').trim().split('\n').map(Number);
    assert.equal(fences.length, PROCESSES * ROUNDS);
    const backwards = fences.filter((fence, i) => i > 0 && fence <= fences[i - 1]);
    assert.deepEqual(backwards, []);
  });
});
