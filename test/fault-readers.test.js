'use strict';

// Readers and writers in different processes. A writer that waits must not be starved by readers
// that come and go so that one of them is always there.
//
// What bounds its wait. Its first attempt that readers refuse is followed by one that leaves an
// intent mark; the mark refuses every reader that asks later, and each further attempt renews it in
// the transaction that takes the old one away. So three kinds of readers can still be ahead of it:
// those that have it by then, those whose take was on its way when the mark came, and, where other
// writers wait too, those that slip in after the turn of one of these: a writer that waits for a
// writer marks nothing, and there is no order between the waiters of different processes. Each of
// them gives up what it has in its own time, and nobody can join them, so:
//
//   From when a reader was seen to be refused for a mark until the next turn of a writer, no reader
//   that asks gets in. The bound on their number is 0, and depends on no time at all.
//
// When the mark came nobody tells; but a reader that is refused while no writer has it (test
// history.js, `barred`) has met one. Two processes ask all the time and write down when they are.
// How many readers and writers overtook each turn in all, counted from when it was asked for, is
// printed and not judged: it has the readers in it that came before the mark, and those that came
// after another writer's turn. So many of these there are as readers wait by then.

const assert = require('node:assert/strict');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const {
  PATIENCE_MS, SELFISH, endAll, now, seeded, start, startAgent, temporaryPath, until,
} = require('./fault-harness');
const { readNotes } = require('./fault-notes');
const {
  checkLocks, checkOvertaking, countBarred, countOvertaking, mostHolders, readHolds,
} = require('./history');

const KEY = 'shelf';
const WRITERS = 3;
const READERS = ['reader', 'reader', 'reader', 'prober', 'prober'];
const LANES = 4;
const TURNS = 30; // of each writer
const MARK_MS = 2000; // how long a mark lives that nobody renews
const SHARED = { mode: 'shared', ttl: '1h' };

/** Of numbers, how often each of them came. */
function distribution(numbers) {
  const counts = new Map();
  for (const n of [...numbers].sort((a, b) => a - b)) counts.set(n, (counts.get(n) ?? 0) + 1);
  return [...counts].map(([n, times]) => `${n}: ${times}x`).join(', ');
}

/** Of each stretch between two turns through which a writer waited: how many readers got in. */
function readersBetween(history) {
  const { holds } = readHolds(history);
  const writers = holds.filter(({ limit }) => limit === 1);
  const counts = [];
  for (let i = 1; i < writers.length; i++) {
    const [last, next] = [writers[i - 1], writers[i]];
    if (!writers.slice(i).some(({ asked }) => asked < last.from)) continue;
    counts.push(holds.filter(({ limit, from }) =>
      limit > 1 && from > last.end && from < next.from).length);
  }
  return counts;
}

class Library {
  constructor(random) {
    this.random = random;
    this.url = `sqlite:${temporaryPath()}`;
    this.folder = path.dirname(temporaryPath());
    this.readers = new Set();
    this.problems = [];
    this.started = 0;
    this.kills = 0;
  }

  async hire(role, more) {
    const worker = start(role, {
      url: this.url,
      key: KEY,
      history: path.join(this.folder, `history-${this.started++}`),
      seed: this.random.between(0, 2 ** 31),
      ...more,
    });
    worker.gone = worker.ended.then(({ code, signal, stderr }) => {
      const wanted = worker.killed ? signal === 'SIGKILL' : code === 0;
      if (!wanted) this.problems.push(`${role} ended with ${signal ?? code}:\n${stderr}`);
    });
    await worker.next('ready');
    return worker;
  }

  hireWriter() {
    return this.hire('writer', { ttl: '10s', turns: TURNS, low: 5, high: 20 });
  }

  async hireReader(role) {
    // Reading takes longer than coming back to it: there is hardly a moment without a reader.
    this.readers.add(await this.hire(role, { ttl: 1000, lanes: LANES, low: 30, high: 120 }));
  }

  async killReader() {
    const reader = this.random.pick([...this.readers]);
    this.readers.delete(reader);
    this.kills += 1;
    reader.killed = true;
    reader.signal('SIGKILL');
    await reader.gone;
    await this.hireReader(reader.role);
  }

  async run() {
    await Promise.all(READERS.map((role) => this.hireReader(role)));
    const writers = await Promise.all(Array.from({ length: WRITERS }, () => this.hireWriter()));
    const done = Promise.all(writers.map(({ gone }) => gone));
    for (;;) {
      const pause = sleep(this.random.between(500, 2500), 'pause');
      if (await Promise.race([done, pause]) !== 'pause') break;
      await this.killReader();
    }
    for (const reader of this.readers) reader.tell('stop');
    await Promise.all([...this.readers].map(({ gone }) => gone));
  }
}

describe('readers and writers', function () {
  this.timeout(5 * PATIENCE_MS);
  afterEach(endAll);

  it('8 processes: no reader gets past a writer whose mark was seen [slow]', async () => {
    const library = new Library(seeded());
    await library.run();
    assert.deepEqual(library.problems, []);
    const history = readNotes(library.folder);
    const counts = countOvertaking(history);
    const takes = history.filter(({ type }) => type === 'take').length;
    const barred = countBarred(history);
    console.log(`      ${takes} takes, ${counts.length} by writers, before ${barred} of which ` +
      `readers were seen to be barred; ${library.kills} readers killed`);
    console.log('      turns by readers that overtook:',
      distribution(counts.map(({ readers }) => readers)));
    console.log('      turns by writers that overtook:',
      distribution(counts.map(({ writers }) => writers)));
    console.log('      turns after another, with a writer waiting all along, by readers between:',
      distribution(readersBetween(history)));
    assert.deepEqual(checkLocks(history), []);
    assert.deepEqual(checkOvertaking(history), []);
    assert.equal(counts.length, WRITERS * TURNS, 'every writer had all its turns');
    // What is said about it must have happened.
    assert.ok(mostHolders(history) > 1, 'no two readers read at a time');
    assert.ok(barred > 0, 'no reader was ever refused for a writer that waited');
  });

  /** A reader that has it, a writer that waits for it, and a third that sees the writer's mark. */
  async function setUp() {
    const url = `sqlite:${temporaryPath()}`;
    const agents = await Promise.all(Array.from({ length: 5 }, () => startAgent(url, SELFISH)));
    const [reader, writer, probe, ...late] = agents;
    const first = await reader.call('lock', { key: KEY, options: SHARED });
    const turn = writer.call('lock', { key: KEY, options: { ttl: '1h', wait: PATIENCE_MS } });
    await until(async () => {
      const lock = await probe.call('tryLock', { key: KEY, options: SHARED });
      if (lock !== null) await probe.call('release', { name: KEY });
      return lock === null;
    }, 'the mark of the writer');
    return { reader, writer, probe, late, first, turn };
  }

  it('a writer bars readers for as long as it waits [slow]', async () => {
    const { reader, writer, late, turn } = await setUp();
    const from = now();
    const seen = late.map((agent) => agent.call('contend', { key: KEY, options: SHARED }));
    // Longer than any mark lives that is not renewed, and nothing happens to the lock meanwhile.
    await until(() => now() - from >= 2.5 * MARK_MS, 'the time');
    await reader.call('release', { name: KEY });
    // Nobody gives it back before it is told to: whoever is heard of first was the first.
    const { who, t } = await Promise.race([
      turn.then((taken) => ({ who: 'the writer', ...taken })),
      ...seen.map((each) => each.then((taken) => ({ who: 'a reader', ...taken }))),
    ]);
    assert.equal(who, 'the writer', `it came ${(t - from).toFixed(1)} ms after the mark was seen`);
    await writer.call('release', { name: KEY });
    await Promise.all(seen);
  });

  it('the mark of a writer that was killed goes by itself', async () => {
    const { writer, probe, turn, first } = await setUp();
    await writer.kill();
    await assert.rejects(turn, /ended: SIGKILL/);
    const { fence } = await probe.call('contend', { key: KEY, options: SHARED });
    assert.ok(fence > first.fence, `${fence} after ${first.fence}`);
  });
});
