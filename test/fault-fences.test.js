'use strict';

// A database file that is deleted, or put back from an older copy: fences and versions still grow.
// On another clock and another boot id, test/c/test-sqlite.c shows the same from within.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const { open } = require('../lib');
const { endAll, startAgent, temporaryPath } = require('./fault-harness');

const BOOT_ID = fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
const OTHER_BOOT_ID = '01234567-89ab-4cde-8f01-23456789abcd';

/** Writes into a closed database that it was last used in another boot of the machine. */
function rewriteBootId(file) {
  const bytes = fs.readFileSync(file);
  const at = bytes.indexOf(BOOT_ID, 0, 'latin1');
  assert.ok(at > 0, 'the file names the boot that it was used in');
  bytes.write(OTHER_BOOT_ID, at, 'latin1');
  assert.equal(bytes.indexOf(BOOT_ID, 0, 'latin1'), -1);
  fs.writeFileSync(file, bytes);
}

function deleteDatabase(file) {
  for (const end of ['', '-wal', '-shm']) fs.rmSync(file + end, { force: true });
}

describe('fences over a store that lost its memory', () => {
  afterEach(endAll);

  let file;
  let url;
  beforeEach(() => {
    file = temporaryPath();
    url = `sqlite:${file}`;
  });

  /** Takes the lock and writes a value `times` times; returns the last fence and version. */
  async function use(hf, times = 1) {
    let last;
    for (let i = 0; i < times; i++) {
      last = await hf.withLock('k', async ({ fence }) => {
        const version = await hf.kv.put('v', i);
        return { fence, version };
      });
    }
    return last;
  }

  async function useAlone(times) {
    const hf = await open(url);
    try {
      return await use(hf, times);
    } finally {
      await hf.close();
    }
  }

  function assertGrown(before, after) {
    assert.ok(after.fence > before.fence, `fence ${after.fence} after ${before.fence}`);
    assert.ok(after.version > before.version, `version ${after.version} after ${before.version}`);
  }

  it('the file deleted between two takes of different processes', async () => {
    const before = await useAlone(100);
    deleteDatabase(file);
    assertGrown(before, await useAlone(1));
  });

  it('the file deleted between two takes of a process that has it open', async () => {
    const hf = await open(url);
    const warnings = [];
    hf.on('error', (error) => warnings.push(error.code));
    const before = await use(hf, 100);
    deleteDatabase(file);
    const after = await use(hf);
    await hf.close();
    assertGrown(before, after);
    assert.ok(warnings.includes('HF_EMOVED'), `it is told: ${warnings}`);
  });

  it('the file deleted while a lock is held: its holder loses it', async () => {
    const holder = await startAgent(url);
    const held = await holder.call('lock', { key: 'k', options: { ttl: 500 } });
    const loss = holder.call('loss', { name: 'k' });
    deleteDatabase(file);
    const other = await startAgent(url);
    const taken = await other.call('lock', { key: 'k' });
    assert.ok(taken.fence > held.fence, `${taken.fence} after ${held.fence}`);
    assert.equal((await loss).name, 'LockLostError');
    assert.equal((await other.call('state', { name: 'k' })).held, true);
  });

  it('an older copy put back after a reboot', async () => {
    const old = await useAlone(1);
    fs.copyFileSync(file, `${file}.copy`);
    const before = await useAlone(100);
    assertGrown(old, before);
    rewriteBootId(`${file}.copy`);
    deleteDatabase(file);
    fs.renameSync(`${file}.copy`, file);
    assertGrown(before, await useAlone(1));
  });

  it('what was held at a reboot is free after it', async () => {
    const holder = await startAgent(url);
    const held = await holder.call('lock', { key: 'k', options: { ttl: '24h' } });
    await holder.kill();
    // The last to close writes the log back into the file.
    await useOther();
    rewriteBootId(file);
    const hf = await open(url);
    const lock = await hf.tryLock('k');
    assert.ok(lock.fence > held.fence, `${lock.fence} after ${held.fence}`);
    await hf.close({ timeout: 0 });
  });

  async function useOther() {
    const hf = await open(url);
    await hf.withLock('other', () => {});
    await hf.close();
  }
});
