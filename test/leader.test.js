'use strict';

// One process leads; when it stops, fails, dies or stands still, another does.

const assert = require('node:assert');
const path = require('node:path');
const { once } = require('node:events');
const { inspect } = require('node:util');
const { open, HoldfastError, LockLostError } = require('..');
const binding = require('../lib/binding');
const { block, deferred, endChildren, start, until, useFolder } = require('./helpers');

/** Resolves when a signal has aborted. */
async function aborted(signal) {
  if (!signal.aborted) await once(signal, 'abort');
}

const leads = (leader) => until(() => leader.leading, 'it leads');
const untilAborted = (lock) => aborted(lock.signal);

/** The errors that a Holdfast emits. */
function errorsOf(hf) {
  const errors = [];
  hf.on('error', (error) => errors.push(error));
  return errors;
}

function stopTests(scope) {
  it('runs fn with a lock that it holds', async () => {
    const { hf, name } = scope;
    const seen = deferred();
    const leader = hf.leader(name, async (lock) => {
      seen.resolve(lock);
      await untilAborted(lock);
    }, { ttl: '20s', note: 'a note' });
    const { name: named, leading, lock: none } = leader;
    assert.deepStrictEqual([named, leading, none], [name, false, null]);
    const lock = await seen.promise;
    assert.deepStrictEqual([leader.leading, leader.lock, lock.held], [true, lock, true]);
    assert.deepStrictEqual(lock.keys, [name]);
    assert.ok(lock.remaining() <= 20000);
    const [holder] = (await hf.inspect(name)).holders;
    assert.deepStrictEqual([holder.note, holder.mode], ['a note', 'exclusive']);
    assert.strictEqual(inspect(leader), `Leader { name: '${name}', leading: true }`);
    await leader.stop();
    assert.deepStrictEqual([leader.leading, leader.lock, lock.held], [false, null, false]);
    assert.strictEqual(await hf.inspect(name), null);
  });

  it('holds the lock until fn has ended after a stop', async () => {
    const { hf, name } = scope;
    const ending = deferred();
    const leader = hf.leader(name, async (lock) => {
      await untilAborted(lock);
      await ending.promise;
    });
    await leads(leader);
    const { lock } = leader;
    let stopped = false;
    const stopping = leader.stop({ timeout: Infinity }).then(() => { stopped = true; });
    assert.strictEqual(lock.signal.aborted, true, 'at once');
    const { reason } = lock.signal;
    assert.ok(reason instanceof DOMException);
    assert.deepStrictEqual([reason.name, reason.message],
      ['AbortError', `the leader "${name}" was stopped`]);
    assert.deepStrictEqual([lock.held, leader.leading], [true, true]);
    assert.strictEqual(await hf.tryLock(name), null);
    assert.strictEqual(stopped, false);
    const next = hf.lock(name, { wait: Infinity });
    ending.resolve();
    await Promise.all([stopping, leader.done]);
    assert.strictEqual(lock.held, false);
    await (await next).release();
  });

  it('releases the lock at the end of the time, whatever fn does', async () => {
    const { hf, name } = scope;
    const errors = errorsOf(hf);
    const ending = deferred();
    const leader = hf.leader(name, () => ending.promise);
    await leads(leader);
    const { lock } = leader;
    const began = performance.now();
    const first = leader.stop({ timeout: Infinity });
    await leader.stop({ timeout: 100 });
    await Promise.all([first, leader.done]);
    assert.ok(performance.now() - began >= 95);
    assert.deepStrictEqual([lock.held, leader.leading, leader.lock], [false, false, null]);
    await (await hf.lock(name)).release();
    // What it throws by and by is nobody's error any more.
    ending.reject(new Error('late'));
    await new Promise(setImmediate);
    assert.deepStrictEqual(errors, []);
    await leader.stop();
  });

  it('stops while it stands', async () => {
    const { hf, name } = scope;
    const lock = await hf.lock(name);
    const leader = hf.leader(name, assert.fail);
    await until(async () => (await hf.inspect(name)).waiting === 1, 'it stands');
    await leader.stop();
    await leader.done;
    assert.deepStrictEqual([leader.leading, leader.lock], [false, null]);
    assert.strictEqual((await hf.inspect(name)).waiting, 0);
    await lock.release();
    await (await hf.lock(name)).release();
  });

  it('stops before it has begun to stand, or in the moment of winning', async () => {
    const { hf, name } = scope;
    for (let turns = 0; turns < 6; turns++) {
      let ran = 0;
      const leader = hf.leader(name, async (lock) => {
        ran++;
        await untilAborted(lock);
      });
      for (let i = 0; i < turns; i++) await new Promise(setImmediate);
      await leader.stop();
      assert.ok(ran <= 1);
      // Whoever had been given the lock has given it back.
      await (await hf.lock(name)).release();
    }
  });

  it('is stopped by its signal', async () => {
    const { hf, name } = scope;
    const controller = new AbortController();
    const leader = hf.leader(name, untilAborted, { signal: controller.signal });
    await leads(leader);
    const { lock } = leader;
    controller.abort(new Error('mine'));
    await leader.done;
    assert.match(lock.signal.reason.message, /the leader .* was stopped/);
    const never = hf.leader(name, assert.fail, { signal: AbortSignal.abort() });
    await never.done;
    assert.strictEqual(await hf.inspect(name), null);
  });

  it('stops at the end of a block with await using', async () => {
    const { hf, name } = scope;
    const leader = hf.leader(name, untilAborted);
    await leads(leader);
    await leader[Symbol.asyncDispose]();
    await leader.done;
    assert.strictEqual(await hf.inspect(name), null);
  });

  it('refuses options of stop that are none, and goes on', async () => {
    const { hf, name } = scope;
    const leader = hf.leader(name, untilAborted);
    await assert.rejects(leader.stop({ timeout: 'soon' }), RangeError);
    await assert.rejects(leader.stop({ time: 5 }), TypeError);
    await assert.rejects(leader.stop(5), TypeError);
    await leads(leader);
    await leader.stop();
  });
}

function endTests(scope) {
  it('does not stand again when fn has returned', async () => {
    const { hf, name } = scope;
    let runs = 0;
    const leader = hf.leader(name, () => { runs++; });
    await leader.done;
    assert.strictEqual(await hf.inspect(name), null);
    await (await hf.lock(name)).release();
    assert.deepStrictEqual([runs, leader.leading, leader.lock], [1, false, null]);
    await leader.stop();
  });

  it('stands again after fn threw, tells why, and lets others lead meanwhile', async () => {
    const { hf, name } = scope;
    const errors = errorsOf(hf);
    const thrown = new TypeError('boom');
    const times = [];
    const again = deferred();
    const leader = hf.leader(name, async (lock) => {
      times.push(performance.now());
      if (times.length === 1) throw thrown;
      again.resolve();
      await untilAborted(lock);
    });
    await until(() => errors.length === 1, 'it is told');
    // The lock is free while it waits.
    await (await hf.lock(name, { wait: 0 })).release();
    await again.promise;
    assert.ok(times[1] - times[0] >= 499, 'half a second at least');
    const [error] = errors;
    assert.ok(error instanceof HoldfastError);
    assert.deepStrictEqual([error.code, error.key, error.cause], ['HF_ECALLBACK', name, thrown]);
    assert.match(error.message,
      /^the function of the leader ".+" threw, and this process stands again in \d\.\d s: boom$/);
    await leader.stop();
    assert.strictEqual(errors.length, 1);
  });

  it('takes whatever fn throws, and stops while it waits to stand again', async () => {
    const { hf, name } = scope;
    const errors = errorsOf(hf);
    for (const thrown of [undefined, null, 'text', Symbol('x'), Object.create(null), 5n]) {
      const leader = hf.leader(name, () => { throw thrown; });
      await until(() => errors.length > 0, 'it is told');
      await leader.stop();
      const { cause, message } = errors.pop();
      assert.strictEqual(cause, thrown);
      assert.match(message, /threw/);
    }
    assert.strictEqual(await hf.inspect(name), null);
  });

  it('is no error that fn throws when it is stopped', async () => {
    const { hf, name } = scope;
    const errors = errorsOf(hf);
    for (const thrown of [(signal) => signal.reason, () => new Error('wrapped')]) {
      const leader = hf.leader(name, async ({ signal }) => {
        await aborted(signal);
        throw thrown(signal);
      });
      await leads(leader);
      await leader.stop();
    }
    assert.deepStrictEqual(errors, []);
  });

  it('stands again after a loss, and fn learns of it', async () => {
    const { hf, name } = scope;
    const errors = errorsOf(hf);
    const reasons = [];
    const ends = [
      ({ signal }) => { throw signal.reason; },
      (lock) => lock.assertHeld(),
      () => { throw new Error('wrapped'); },
      () => {},
    ];
    const fences = [];
    // Blocked for longer than maxStall, it has lost its lock when it goes on.
    const leader = hf.leader(name, async (lock) => {
      fences.push(lock.fence);
      const end = ends[fences.length - 1];
      if (end === undefined) {
        await untilAborted(lock);
        return;
      }
      block(300);
      await until(() => lock.signal.aborted, 'it is lost');
      reasons.push(lock.signal.reason);
      assert.strictEqual(leader.leading, false);
      end(lock);
    }, { ttl: 150, maxStall: 60 });
    await until(() => fences.length === ends.length + 1, 'it stands after each loss');
    assert.ok(reasons.every((reason) => reason instanceof LockLostError));
    assert.strictEqual(reasons.length, ends.length);
    await leader.stop();
    assert.deepStrictEqual(errors, []);
    assert.deepStrictEqual(fences, [...new Set(fences)].sort((a, b) => a - b));
  });

  it('does not stand again before fn has ended', async () => {
    const { hf, name } = scope;
    let runs = 0;
    const ending = deferred();
    const lost = deferred();
    const leader = hf.leader(name, async (lock) => {
      if (++runs > 1) {
        await untilAborted(lock);
        return;
      }
      block(300);
      await untilAborted(lock);
      lost.resolve();
      await ending.promise;
    }, { ttl: 150, maxStall: 60 });
    await lost.promise;
    // Another may have it meanwhile.
    await hf.withLock(name, async () => {
      assert.strictEqual((await hf.inspect(name)).waiting, 0);
    });
    assert.strictEqual(runs, 1);
    ending.resolve();
    await until(() => runs === 2 && leader.leading, 'it leads again');
    await leader.stop();
  });

  it('fn may release the lock itself', async () => {
    const { hf, name } = scope;
    const leader = hf.leader(name, (lock) => lock.release().then(() => {}));
    await leader.done;
    assert.strictEqual(await hf.inspect(name), null);
  });
}

function standingTests(scope) {
  // The addon refuses a take in these ways before it asks the store.
  function refusing(refusals) {
    const { acquire } = binding;
    binding.acquire = (...args) => {
      const code = refusals.shift();
      if (code === undefined) return acquire(...args);
      return [code, `as if ${code}`, 0, 0, ''];
    };
    return () => { binding.acquire = acquire; };
  }

  it('tells once of an error that stays, and tries again', async () => {
    const { hf, name } = scope;
    const errors = errorsOf(hf);
    const restore = refusing(['HF_EACCES', 'HF_EACCES']);
    try {
      const leader = hf.leader(name, untilAborted);
      await leads(leader);
      await leader.stop();
    } finally {
      restore();
    }
    assert.deepStrictEqual(errors.map(({ code }) => code), ['HF_EACCES']);
    assert.strictEqual(errors[0].key, name);
  });

  it('ends where the store is closed', async () => {
    const { hf, name } = scope;
    const errors = errorsOf(hf);
    const restore = refusing(['HF_ECLOSED']);
    try {
      const leader = hf.leader(name, assert.fail);
      await leader.done;
    } finally {
      restore();
    }
    assert.deepStrictEqual(errors, []);
  });

  it('leads in turn with others of this process', async () => {
    const { hf, name } = scope;
    const order = [];
    const leaders = [1, 2, 3].map((nth) => hf.leader(name, async () => {
      order.push(nth);
      await new Promise(setImmediate);
      order.push(nth);
    }));
    await Promise.all(leaders.map(({ done }) => done));
    assert.deepStrictEqual(order, [1, 1, 2, 2, 3, 3]);
  });

  it('has the fence and the keys of its namespace', async () => {
    const { hf, name } = scope;
    const shop = hf.namespace('shop');
    const leader = shop.leader(name, async (lock) => {
      await shop.kv.put(name, lock.keys, { fence: lock });
    });
    assert.strictEqual(leader.name, name);
    await leader.done;
    assert.deepStrictEqual((await hf.kv.get(`shop:${name}`)).value, [name]);
  });
}

function closeTests(url) {
  it('close() tells leaders at once, and waits for them', async () => {
    const hf = await open(url());
    const ending = deferred();
    const leader = hf.leader('boss', async (lock) => {
      await untilAborted(lock);
      await ending.promise;
    });
    const standing = hf.leader('boss', assert.fail);
    await leads(leader);
    const { lock } = leader;
    let closed = false;
    const closing = hf.close({ timeout: '1h' }).then(() => { closed = true; });
    assert.match(lock.signal.reason.message, /the leader "boss" was stopped/);
    await standing.done;
    assert.deepStrictEqual([closed, lock.held], [false, true]);
    ending.resolve();
    await Promise.all([closing, leader.done]);
    assert.strictEqual(lock.held, false);
    assert.throws(() => hf.leader('boss', () => {}), { code: 'HF_ECLOSED' });
  });

  it('close() waits no longer than its timeout', async () => {
    const hf = await open(url());
    const leader = hf.leader('boss', () => new Promise(() => {}));
    await leads(leader);
    const { lock } = leader;
    const first = hf.close({ timeout: Infinity });
    await hf.close({ timeout: 50 });
    await Promise.all([first, leader.done]);
    assert.strictEqual(lock.held, false);
  });

  it('close() ends who waits to stand again', async () => {
    const hf = await open(url());
    const errors = errorsOf(hf);
    const leader = hf.leader('boss', () => { throw new Error('boom'); });
    await until(() => errors.length === 1, 'it has thrown');
    await hf.close();
    await leader.done;
    assert.strictEqual(errors.length, 1);
  });
}

function localTests(url) {
  const scope = { hf: null, name: null, serial: 0 };
  before(async () => { scope.hf = await open(url()); });
  after(() => scope.hf.close({ timeout: 0 }));
  beforeEach(() => { scope.name = `boss-${++scope.serial}`; });
  afterEach(() => scope.hf.removeAllListeners('error'));
  stopTests(scope);
  endTests(scope);
  standingTests(scope);
  closeTests(url);
}

// A leader of its own process, which says when it leads and when its signal aborts.
const boss = (options, end = '') => `
  const hf = await holdfast.open();
  const leader = hf.leader('boss', async (lock) => {
    say('leads', { fence: lock.fence });
    await new Promise((resolve) => lock.signal.addEventListener('abort', resolve));
    say('aborted', { name: lock.signal.reason.name, held: lock.held });
    ${end}
  }, ${JSON.stringify(options)});
  say('stands');
  await heard('go');
  await leader.stop();
  say('stopped');
  await hf.close();
`;

function processTests(url) {
  it('hands over on a stop, when fn has ended', async () => {
    const first = start(boss({ ttl: '1h' }, 'await heard(\'end\'); say(\'ended\');'), url());
    const { fence } = await first.hear('leads');
    const hf = await open(url());
    const next = hf.leader('boss', untilAborted);
    await until(async () => (await hf.inspect('boss')).waiting === 1, 'this process stands');
    first.tell('go');
    const { name, held } = await first.hear('aborted');
    assert.deepStrictEqual([name, held], ['AbortError', true]);
    const [holder] = (await hf.inspect('boss')).holders;
    assert.deepStrictEqual([holder.pid, next.leading], [first.pid, false]);
    first.tell('end');
    await leads(next);
    assert.ok(next.lock.fence > fence);
    assert.strictEqual((await first.ended).code, 0);
    assert.deepStrictEqual(first.said.map(({ event }) => event).slice(-2), ['ended', 'stopped']);
    await hf.close();
  });

  it('another leads after a crash, not before the TTL has ended', async () => {
    const first = start(boss({ ttl: 700 }), url());
    const { fence } = await first.hear('leads');
    const hf = await open(url());
    const next = hf.leader('boss', untilAborted);
    await until(async () => (await hf.inspect('boss')).waiting === 1, 'this process stands');
    await first.kill();
    const [{ remaining }] = (await hf.inspect('boss')).holders;
    const began = performance.now();
    await leads(next);
    assert.ok(performance.now() - began >= remaining - 5);
    assert.ok(next.lock.fence > fence);
    await hf.close();
  });

  it('one that was frozen learns of it, and stands again', async () => {
    const first = start(`
      const hf = await holdfast.open();
      const runs = [];
      hf.leader('boss', async (lock) => {
        runs.push(lock);
        say('leads-' + runs.length, { fence: lock.fence });
        await new Promise((resolve) => lock.signal.addEventListener('abort', resolve));
        const held = runs.filter((each) => each.held).length;
        say('aborted', { name: lock.signal.reason.name, held });
      }, { ttl: 500 });
    `, url());
    const { fence } = await first.hear('leads-1');
    first.process.kill('SIGSTOP');
    const hf = await open(url());
    const next = hf.leader('boss', untilAborted);
    await leads(next);
    const { lock } = next;
    assert.ok(lock.fence > fence);
    first.process.kill('SIGCONT');
    const { name, held } = await first.hear('aborted');
    assert.deepStrictEqual([name, held], ['LockLostError', 0]);
    assert.deepStrictEqual([lock.held, next.leading], [true, true]);
    await next.stop();
    assert.ok((await first.hear('leads-2')).fence > lock.fence);
    await hf.close();
    await first.kill();
  });

  it('another leads after one that threw', async () => {
    const first = start(`
      const hf = await holdfast.open();
      hf.on('error', ({ code, cause }) => say('error', { code, text: cause.message }));
      hf.leader('boss', async () => {
        say('leads');
        await heard('go');
        throw new Error('boom');
      }, { ttl: '1h' });
    `, url());
    await first.hear('leads');
    const hf = await open(url());
    const next = hf.leader('boss', untilAborted);
    await until(async () => (await hf.inspect('boss')).waiting === 1, 'this process stands');
    first.tell('go');
    await leads(next);
    assert.deepStrictEqual(await first.hear('error'),
      { event: 'error', code: 'HF_ECALLBACK', text: 'boom' });
    await first.kill();
    await hf.close();
  });

  it('fn that ignores its signal loses the lock at the end of the time', async () => {
    const first = start(`
      const hf = await holdfast.open();
      const leader = hf.leader('boss', (lock) => {
        say('leads');
        return new Promise(() => {});
      }, { ttl: '1h' });
      await heard('go');
      const { lock } = leader;
      await leader.stop({ timeout: 100 });
      say('stopped', { held: lock.held });
      await heard('never');
    `, url());
    await first.hear('leads');
    const hf = await open(url());
    const next = hf.leader('boss', untilAborted);
    first.tell('go');
    assert.strictEqual((await first.hear('stopped')).held, false);
    await leads(next);
    await first.kill();
    await hf.close();
  });

  it('close() of a process lets another lead, and the process end', async () => {
    const first = start(`
      const hf = await holdfast.open();
      const leader = hf.leader('boss', async (lock) => {
        say('leads');
        await new Promise((resolve) => lock.signal.addEventListener('abort', resolve));
      }, { ttl: '1h' });
      await heard('go');
      await hf.close();
      say('closed', { leading: leader.leading });
    `, url());
    await first.hear('leads');
    const hf = await open(url());
    const next = hf.leader('boss', untilAborted);
    first.tell('go');
    await leads(next);
    assert.strictEqual((await first.hear('closed')).leading, false);
    assert.deepStrictEqual(await first.ended, { code: 0, signal: null });
    await hf.close();
  });

  it('keeps its process alive, standing or leading, and not after that', async () => {
    // Nothing else does: what waits for a line from here is not there.
    const program = `
      const hf = await holdfast.open();
      const leader = hf.leader('boss', async (lock) => {
        say('leads');
        await new Promise((resolve) => lock.signal.addEventListener('abort', resolve));
        say('ends');
      }, { ttl: '1h' });
      process.on('SIGUSR2', () => leader.stop());
      say('stands');
    `;
    const first = start(program, url());
    await first.hear('leads');
    const second = start(program, url());
    await second.hear('stands');
    const hf = await open(url());
    first.process.kill('SIGUSR2');
    await second.hear('leads');
    assert.deepStrictEqual(await first.ended, { code: 0, signal: null });
    second.process.kill('SIGUSR2');
    assert.deepStrictEqual(await second.ended, { code: 0, signal: null });
    assert.strictEqual(second.said.at(-1).event, 'ends');
    await hf.close();
  });
}

describe('leaders', function () {
  this.timeout(60000);
  const folder = useFolder();
  endChildren();
  let serial = 0;
  const file = () => `sqlite:${path.join(folder.path, `leader-${serial}.db`)}`;
  beforeEach(() => { serial++; });
  describe('on memory', () => localTests(() => 'memory:'));
  describe('on sqlite', () => localTests(file));
  describe('of several processes', () => processTests(file));
});
