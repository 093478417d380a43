'use strict';

// A quorum whose nodes fail, a minority at a time or more.
//
// First what must be certain, step by step: with the quarantine switched off, a node that has lost
// what it promised lets a second holder in; with it, it does not. Then eight processes on twenty
// keys, while all that may fail does, at random from a seed that is printed: exclusive holders
// never overlap, and fences grow. HF_FAULT_SECONDS lets each of those runs for longer.

const assert = require('node:assert/strict');
const { QuorumError } = require('..');
const { PATIENCE_MS, endAll, now, seeded, startAgent } = require('./fault-harness');
const { until } = require('./helpers');
const { Nodes, Ways } = require('./quorum-harness');
const { failure, useStores } = require('./redis-harness');
const { stopAll } = require('./redis-servers');
const { soak } = require('./soak-run');

const SECONDS = Number(process.env.HF_FAULT_SECONDS || 1);
const LONG = 60_000;

/** To be called in a suite: `start(size, options)` of Nodes, `client(url)`, `ways(nodes)`. */
function useQuorums() {
  const openStore = useStores();
  const open = [];
  afterEach(async () => {
    await Promise.all(open.splice(0).map((ways) => ways.stop()));
    await endAll();
    await stopAll();
  });
  return {
    start: (size, options) => new Nodes(size, options).start(),
    client: async (url) => {
      const hf = await openStore(url);
      hf.on('error', () => {}); // that a node has no vote
      return hf;
    },
    ways: async (nodes) => {
      const ways = await Ways.start(nodes.all);
      open.push(ways);
      return ways;
    },
  };
}

/** Waits until a client sees a node so, and returns what it sees. */
function untilNode(hf, i, ...states) {
  return until(() => hf.nodes().find((node, at) => at === i && states.includes(node.state)),
    `node ${i + 1} is ${states.join(' or ')}`);
}

/** Waits until a client knows of all nodes whether they have a vote. */
async function untilKnown(hf) {
  for (const i of hf.nodes().keys()) await untilNode(hf, i, 'voting', 'quarantined');
}

async function isFree(nodes, key) {
  return (await nodes.holders(key)).every((holder) => holder === null);
}

/** Kills a node and starts it again; returns when the clients know whether it has a vote. */
async function restart(node, data, clients, i) {
  await node.kill();
  await Promise.all(clients.map((hf) => untilNode(hf, i, 'down')));
  await node.restart({ data });
  await Promise.all(clients.map((hf) => untilNode(hf, i, 'voting', 'quarantined')));
}

/** What it says of the nodes together, and of each. One that decides nothing is not waited for. */
function refusedBy(error, reason, votes) {
  assert.ok(error instanceof QuorumError, `${error}`);
  assert.equal(error.reason, reason);
  assert.match(error.causes.map(({ vote }) => vote).join(' '), votes);
}

// The first node has a holder, the second no vote.
const refusedByQuarantine = (error) =>
  refusedBy(error, 'quarantined', /^(against|open) quarantined (for|open)$/);

describe('a node of a quorum that loses what it has promised', function () {
  this.timeout(PATIENCE_MS);
  const { start, client, ways: waysTo } = useQuorums();

  const losses = {
    'is started again without its data': async ({ node, clients }) =>
      restart(node, false, clients, 1),
    'is started again with an old copy of its data': async ({ node, clients, copy }) =>
      restart(node, copy, clients, 1),
    'has its clock set forwards': async ({ node }) => node.clock.jump(3600),
  };

  /**
   * One holds the lock at nodes 1 and 2, and cannot reach node 3; node 2 loses it. What comes of it
   * when another asks, who reaches all.
   */
  async function ask(lose, quarantine) {
    // Time for a node to say what it has to say, also on a busy machine.
    const params = { fencing: true, quarantine, nodeTimeout: 5000 };
    const nodes = await start(3, { clocks: true, params });
    const ways = await waysTo(nodes);
    const holder = await client(nodes.url({}, ways));
    const other = await client(nodes.url());
    for (const hf of [holder, other]) await untilKnown(hf);
    const node = nodes.all[1];
    const copy = await node.copy();
    await ways.links[2].refuse();
    await untilNode(holder, 2, 'down');
    const held = await holder.lock('key', { ttl: LONG });
    const { token } = held;
    assert.deepEqual(await nodes.holders('key'), [token, token, null]);
    await lose({ node, copy, clients: [holder, other] });
    const outcome = await other.tryLock('key', { ttl: LONG }).catch((error) => error);
    return { holder, held, nodes, other, outcome, ways };
  }

  for (const [what, lose] of Object.entries(losses)) {
    it(`${what}: without a quarantine there are two holders`, async () => {
      const { held, nodes, outcome } = await ask(lose, false);
      assert.equal(outcome?.held, true);
      assert.equal(held.held, true);
      assert.deepEqual(await nodes.holders('key'), [held.token, outcome.token, outcome.token]);
    });

    it(`${what}: with it there is one`, async () => {
      const { holder, held, nodes, other, outcome, ways } = await ask(lose, true);
      refusedByQuarantine(outcome);
      assert.equal(held.held, true);
      assert.equal(other.nodes()[1].state, 'quarantined');
      // It could not have been renewed: of all nodes only one has it.
      await ways.links[2].allow();
      await untilNode(holder, 2, 'voting');
      assert.equal(await held.release(), false);
      await until(() => isFree(nodes, 'key'), 'it is released everywhere');
      // The other two are a majority.
      const lock = await other.lock('key');
      assert.ok(lock.fence > held.fence, `${lock.fence} after ${held.fence}`);
    });
  }

  it('has its clock set forwards: who begins after that was noticed knows it', async () => {
    const { held, nodes } = await ask(async ({ node, clients: [holder] }) => {
      node.clock.jump(3600);
      refusedBy(await failure(holder.tryLock('another')), 'quarantined',
        /^(for|open) quarantined down$/);
      assert.equal(holder.nodes()[1].state, 'quarantined');
    }, true);
    const late = await client(nodes.url());
    await untilKnown(late);
    refusedByQuarantine(await failure(late.tryLock('key')));
    assert.equal(held.held, true);
    assert.equal(late.nodes()[1].state, 'quarantined');
  });
});

describe('nodes of a quorum that stand still', function () {
  this.timeout(PATIENCE_MS);
  const { start, client, ways: waysTo } = useQuorums();

  for (const size of [3, 5]) {
    it(`a minority of ${size} stops nobody`, async () => {
      const nodes = await start(size, { params: { maxTtl: LONG } });
      const before = await client(nodes.url());
      const frozen = nodes.all.slice(-nodes.minority);
      for (const node of frozen) node.freeze();
      const after = await client(nodes.url());
      for (const [one, other] of [[before, after], [after, before]]) {
        const held = await one.lock('key', { ttl: LONG });
        assert.equal(await other.tryLock('key', { ttl: LONG }), null);
        await held.extend();
        const waiting = other.lock('key', { ttl: LONG, wait: Infinity });
        assert.equal(await held.release(), true);
        assert.equal(await (await waiting).release(), true);
      }
      for (const node of frozen) node.thaw();
      await until(() => isFree(nodes, 'key'), 'nothing is left of it');
    });
  }

  it('one that does so again and again keeps nothing of what was locked', async () => {
    const nodes = await start(3, { params: { maxTtl: LONG } });
    const hf = await client(nodes.url());
    await untilKnown(hf);
    const keys = Array.from({ length: 100 }, (_, i) => `key ${i}`);
    for (let times = 0; times < 3; times++) {
      nodes.all[2].freeze();
      await Promise.all(keys.map(async (key) => {
        do await (await hf.lock(key, { ttl: LONG })).release();
        while (hf.nodes()[2].state !== 'down');
      }));
      nodes.all[2].thaw();
      await untilNode(hf, 2, 'voting');
    }
    for (const key of keys) {
      await until(() => isFree(nodes, key), `nothing is left of "${key}"`);
    }
  });

  it('a majority stops all, who are told, until it goes on; nothing is left behind', async () => {
    const nodes = await start(3, { params: { maxTtl: LONG } });
    const hf = await client(nodes.url());
    const kept = await hf.lock('kept', { ttl: LONG });
    for (const node of nodes.all.slice(1)) node.freeze();
    const error = await failure(hf.tryLock('key', { ttl: LONG }));
    refusedBy(error, 'down', /^(for|open) down down$/);
    assert.deepEqual(error.causes.map(({ node }) => node), nodes.all.map(({ address }) => address));
    assert.equal(error.causes[0].error, null);
    for (const cause of error.causes.slice(1)) {
      assert.equal(cause.error.code, 'HF_EUNAVAIL');
      assert.ok(cause.error.message.includes(cause.node), cause.error.message);
    }
    const waiting = hf.lock('waited for', { ttl: LONG, wait: Infinity });
    for (const node of nodes.all.slice(1)) node.thaw();
    // No key of this lives long enough to be gone by itself.
    await until(() => isFree(nodes, 'key'), 'nothing is left of it');
    assert.equal(await (await waiting).release(), true);
    assert.equal(kept.held, true);
    assert.equal(await kept.release(), true);
    assert.equal(await (await hf.tryLock('key')).release(), true);
    for (const key of ['kept', 'key', 'waited for']) {
      await until(() => isFree(nodes, key), `nothing is left of "${key}"`);
    }
  });

  it('hold up who can reach no majority: its lock is lost before another has it', async () => {
    const nodes = await start(3);
    const ways = await waysTo(nodes);
    const alone = await client(nodes.url({}, ways));
    const other = await client(nodes.url());
    const lock = await alone.lock('key', { ttl: 500 });
    const waiting = other.lock('key', { ttl: 500, wait: Infinity });
    for (const link of ways.links.slice(1)) link.blackhole();
    const next = await waiting;
    assert.equal(lock.held, false);
    assert.ok(next.held);
    await until(() => lock.signal.aborted, 'it is told');
  });
});

describe('a node of a quorum that has lost a lock', function () {
  this.timeout(PATIENCE_MS);
  const { start, client } = useQuorums();

  it('gets it back with the next renewal', async () => {
    const nodes = await start(3, { params: { fencing: true } });
    const hf = await client(nodes.url());
    const locks = [
      await hf.lock('key', { ttl: 600 }),
      await hf.lock('shared', { ttl: 600, mode: 'shared' }),
    ];
    for (const [i, lock] of locks.entries()) {
      const [key] = lock.keys;
      const held = (await nodes.holders(key))[0];
      assert.equal(await nodes.all[i].send('DEL', nodes.prefix + key), 1);
      await until(async () => (await nodes.holders(key))[i] === held, 'it has it again');
      assert.equal(lock.held, true);
      assert.equal(await lock.release(), true);
      await until(() => isFree(nodes, key), 'nothing is left of it');
    }
  });

  it('gets it back when it has a vote again', async () => {
    const nodes = await start(3, { params: { maxTtl: 1000 } });
    const hf = await client(nodes.url());
    const lock = await hf.lock('key', { ttl: 1000 });
    const [, node] = nodes.all;
    await node.restart({ data: false });
    await nodes.back(node);
    await until(async () => (await nodes.holders('key'))[1] === lock.token, 'it has it again');
    assert.equal(lock.held, true);
    // It counts again: with one other it is a majority.
    await untilNode(hf, 1, 'voting');
    await nodes.all[0].kill();
    await lock.extend();
    assert.equal(lock.held, true);
  });
});

describe('a node of a quorum that has no vote', function () {
  this.timeout(PATIENCE_MS);
  const { start, client, ways: waysTo } = useQuorums();
  const reasons = {
    restarted: (node, clients) => restart(node, true, clients, 1),
    emptied: (node, clients) => restart(node, false, clients, 1),
    clock: async (node, [hf]) => {
      node.clock.jump(-60);
      await (await hf.lock('another', { renew: false })).release();
    },
  };

  for (const [reason, lose] of Object.entries(reasons)) {
    it(`is shown, and why, until it has one again: ${reason}`, async () => {
      const nodes = await start(3, { clocks: true, params: { maxTtl: 1000 } });
      const hf = await client(nodes.url());
      const [, node] = nodes.all;
      const events = [];
      hf.on('node', (event) => events.push(event));
      const from = Date.now();
      await lose(node, [hf]);
      // Not renewed: what renews is another client of the nodes, and may be the first to find out.
      await hf.lock('key', { renew: false });
      const info = await hf.inspect('key');
      const [first, shown, last] = hf.nodes();
      assert.deepEqual([first.state, first.reason, first.until], ['voting', null, null]);
      assert.deepEqual([last.state, last.reason, last.until], ['voting', null, null]);
      assert.deepEqual([shown.node, shown.state, shown.reason],
        [node.address, 'quarantined', reason]);
      assert.ok(shown.until >= from + 1000, `${shown.until - from} ms`);
      assert.deepEqual(info.nodes.map(({ state }) => state), ['voting', 'quarantined', 'voting']);
      assert.equal(info.nodes[1].reason, reason);
      await untilNode(hf, 1, 'voting');
      assert.ok(Date.now() >= from + 1000);
      const states = events.filter((event) => event.node === node.address)
        .map((event) => event.state);
      assert.deepEqual(states,
        [...(reason === 'clock' ? [] : ['down']), 'quarantined', 'voting']);
    });
  }

  it('leaves no majority where another has none either, and all are told', async () => {
    const nodes = await start(3, { params: { maxTtl: 1000 } });
    const hf = await client(nodes.url());
    for (const i of [1, 2]) await restart(nodes.all[i], true, [hf], i);
    refusedBy(await failure(hf.tryLock('key')), 'quarantined',
      /^(for|open) quarantined quarantined$/);
    const lock = await hf.lock('key', { wait: Infinity });
    assert.equal(lock.held, true);
  });

  it('does not get it back by a clock that is set forwards', async () => {
    const nodes = await start(3, { clocks: true, params: { maxTtl: LONG } });
    const ways = await waysTo(nodes);
    const holder = await client(nodes.url({}, ways));
    await untilKnown(holder);
    await ways.links[2].refuse();
    await untilNode(holder, 2, 'down');
    const held = await holder.lock('key', { ttl: LONG });
    const [, node] = nodes.all;
    await restart(node, false, [holder], 1);
    const before = await nodes.marker(node);
    node.clock.jump(3600);
    await until(async () => {
      refusedBy(await failure(holder.tryLock('another')), 'quarantined', /^(for|open) quarantined down$/);
      return await nodes.marker(node) !== before;
    }, 'it is noticed');
    const late = await client(nodes.url());
    await untilKnown(late);
    const outcome = await late.tryLock('key').catch((error) => error);
    assert.equal(held.held, true);
    refusedByQuarantine(outcome);
  });
});

describe('a holder of a lock on a quorum whose JavaScript stands still', function () {
  this.timeout(2 * PATIENCE_MS);
  const { start } = useQuorums();

  it('has it on a majority all along: for 5 s at a TTL of 1 s [slow]', async () => {
    const nodes = await start(3);
    const [holder, other] = [await startAgent(nodes.url()), await startAgent(nodes.url())];
    const held = await holder.call('lock', { key: 'k', options: { ttl: 1000 } });
    const won = other.call('contend', { key: 'k', options: { ttl: LONG } });
    const from = now();
    const blocked = holder.call('block', { ms: 5000, name: 'k' });
    let state = null;
    let looks = 0;
    for (; state === null; looks++) {
      const holders = await nodes.holders('k');
      const have = holders.filter((token) => token === held.token).length;
      assert.ok(have >= 2, `${have} nodes have it after ${now() - from} ms: ${holders.join()}`);
      state = await Promise.race([blocked, null]);
    }
    const { remaining } = state;
    assert.deepEqual([state.held, state.refusal], [true, null]);
    assert.ok(remaining > 0 && remaining <= 1000, `${remaining} ms`);
    assert.ok(now() - from >= 5000);
    assert.ok(looks > 100, `${looks} looks`);
    const attempts = await other.call('attempts');
    assert.ok(attempts > 10, `${attempts} attempts of another`);
    const released = await holder.call('release', { name: 'k' });
    assert.equal(released.held, true);
    const { t } = await won;
    assert.ok(t >= released.t, 'the other had it before it was released');
  });
});

describe('eight processes on a quorum', function () {
  this.timeout(3 * PATIENCE_MS + 2000 * SECONDS);
  afterEach(async () => {
    await endAll();
    await stopAll();
  });

  for (const [size, store] of [[3, 'quorum'], [5, 'quorum-5']]) {
    it(`of ${size} nodes, a minority of which fails in every way [slow]`, async () => {
      const { violations, summary } = await soak(store, SECONDS, seeded());
      console.log(`      ${summary}`);
      assert.deepEqual(violations, []);
    });
  }
});
