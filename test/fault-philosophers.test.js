'use strict';

// Philosophers at a round table, each of whom needs several forks at once.

const assert = require('node:assert/strict');
const path = require('node:path');
const {
  NEVER_MS, PATIENCE_MS, endAll, seeded, start, startAgent, temporaryPath,
} = require('./fault-harness');
const { readNotes } = require('./fault-notes');
const { checkLocks, readHolds } = require('./history');

const FORKS = 64;
const PHILOSOPHERS = 200;
const MEALS = 5;

/** The most that ate at a time, and the longest that one waited, by what was written down. */
function summary(holds) {
  const steps = holds
    .flatMap(({ from, end }) => [{ t: from, step: 1 }, { t: end, step: -1 }])
    .sort((a, b) => a.t - b.t || a.step - b.step);
  let eating = 0;
  let most = 0;
  for (const { step } of steps) most = Math.max(most, eating += step);
  const waits = holds.map(({ asked, from }) => from - asked).sort((a, b) => a - b);
  const ms = (share) => waits[Math.floor((waits.length - 1) * share)].toFixed(0);
  const seconds = ((Math.max(...holds.map(({ end }) => end)) -
    Math.min(...holds.map(({ asked }) => asked))) / 1000).toFixed(1);
  return { most, line: `${holds.length} meals in ${seconds} s, up to ${most} at a time; waited ` +
    `${ms(0.5)} ms in the median, ${ms(0.99)} ms at the 99th percentile, ${ms(1)} ms at most` };
}

describe('dining philosophers', function () {
  this.timeout(5 * PATIENCE_MS);
  afterEach(endAll);

  /** Seats all of them, spread over so many processes, and judges their dinner. */
  async function dine(url, processes) {
    const { seed } = seeded();
    const folder = path.dirname(temporaryPath());
    const tables = Array.from({ length: processes }, (_, at) => start('diners', {
      url,
      forks: FORKS,
      names: Array.from({ length: PHILOSOPHERS }, (__, who) => who)
        .filter((who) => who % processes === at),
      meals: MEALS,
      ttl: '10s',
      history: path.join(folder, `history-${at}`),
      seed,
    }));
    // A deadlock, or one who starves, ends in a LockTimeoutError of that process.
    for (const { ended } of tables) {
      assert.deepEqual(await ended, { code: 0, signal: null, stderr: '' });
    }
    const history = readNotes(folder);
    const { holds } = readHolds(history);
    const { most, line } = summary(holds);
    console.log(`      ${line}`);
    assert.deepEqual(checkLocks(history), []);
    const meals = Array.from({ length: PHILOSOPHERS }, () => 0);
    for (const { type, who } of history) if (type === 'take') meals[who] += 1;
    assert.deepEqual(meals, meals.map(() => MEALS));
    assert.ok(most > 1, 'no two ate at a time');
  }

  it('200 with 64 forks in 4 processes: each is served [slow]', () =>
    dine(`sqlite:${temporaryPath()}`, 4));

  it('200 with 64 forks in one process, in memory: each is served [slow]', () =>
    dine('memory:', 1));

  it('one who waits for two forks hears of both', async () => {
    const url = `sqlite:${temporaryPath()}`;
    const [other, hungry] = await Promise.all([startAgent(url), startAgent(url)]);
    const options = { ttl: NEVER_MS };
    await other.call('lock', { key: 'right', options });
    const meal = hungry.call('lock', {
      name: 'both', key: ['left', 'right'], options: { wait: PATIENCE_MS / 2 },
    });
    // Whatever is written makes those who wait look at their keys: the left one is free.
    for (let i = 0; i < 20; i++) {
      await other.call('put', { key: 'bread', value: i });
      await hungry.call('put', { key: 'wine', value: i });
    }
    await other.call('lock', { key: 'left', options });
    await other.call('release', { name: 'right' });
    for (let i = 0; i < 20; i++) await hungry.call('put', { key: 'wine', value: i });
    const { t } = await other.call('release', { name: 'left' });
    assert.ok((await meal).t >= t, 'it had both before they were free');
  });
});
