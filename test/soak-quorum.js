'use strict';

// Where the processes of a soak work on a quorum of Redis nodes: of those a minority at a time is
// killed, emptied, put back to an old copy, frozen, cut off, or has its clock set, while the ways
// between processes and nodes fail one by one. What was promised is promised all the same.
//
// A node that may have forgotten something has no vote for a while; until it has one again, it is
// one of the minority.
//
// A client that begins after a node's clock has jumped, and before another that knew the node has
// noticed, cannot know of it: that is no fault to be found here. So no process begins in between,
// and each that is there knows the node; and this process is a client too, which has known all
// nodes from the beginning and asks them all the time.

const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { Holdfast } = require('../lib');
const { PATIENCE_MS, now } = require('./fault-harness');
const { until } = require('./helpers');
const { Clock } = require('./clock');
const { Nodes, Ways } = require('./quorum-harness');
const { Deck, ofPlace, setWrong } = require('./soak-sites');

const PREFIX = 'soak:';
const LOOK_MS = 40;
const WAYS = 3; // at most so many fail at a time
const HOUR_MS = 3600 * 1000;

/** How all ways to a node come to an end, and begin again. */
const cuts = [
  { begin: (link) => link.refuse(), end: (link) => link.allow() },
  { begin: (link) => link.blackhole(), end: (link) => link.heal() },
];

/** What befalls a node. */
const ofNode = {
  async kill({ spend }, node) {
    await node.kill();
    await spend(500);
    await node.restart();
  },

  async empty({ spend }, node) {
    await node.kill();
    await spend(300);
    await node.restart({ data: false });
  },

  async rewind({ spend }, node) {
    const data = await node.copy();
    await spend(1000);
    await node.restart({ data });
  },

  async stall({ random, spend }, node) {
    node.freeze();
    await spend(random.chance(0.5) ? 300 : 2000);
    node.thaw();
  },

  async isolate(site, node) {
    const { random, spend } = site;
    const cut = random.pick(cuts);
    site.isolated.set(node, cut);
    await Promise.all(site.linksTo(node).map(cut.begin));
    await spend(random.chance(0.5) ? 300 : 2000);
    site.isolated.delete(node);
    await Promise.all(site.linksTo(node).map(cut.end));
  },

  async forwards(site, node) {
    const ms = someTime(site);
    await site.mislead(node, ms);
    if (ms <= site.ttlMs) {
      await site.jump(node, -ms);
    } else {
      // Set back by so much, it would keep for as long what nobody has any more.
      await node.kill();
      node.clock.set(0);
      await node.restart({ data: false });
    }
  },

  async backwards(site, node) {
    const ms = someTime(site);
    await site.mislead(node, -ms);
    await site.jump(node, ms);
  },
};

/** By how much a clock is off, in ms: for less than a lease lasts, or much more. */
function someTime({ random, ttlMs }) {
  return random.between(200, random.chance(0.5) ? ttlMs : HOUR_MS);
}

const NODE_FAULTS = {
  kill: 2, empty: 3, rewind: 2, stall: 2, isolate: 2, forwards: 3, backwards: 1,
};
const WAY_FAULTS = { cut: 4, blackhole: 2, hold: 3, refuse: 2, slow: 2, garble: 4, clock: 3 };

class QuorumSite {
  promises = { leases: true, entries: false };
  locksOnly = true;
  leastTakes = 50;
  paceMs = 600;
  problems = [];
  /** What befell the nodes, for whoever reads the history. */
  events = [];
  places = new Set();
  /** The nodes that no process can reach, with how that is. */
  isolated = new Map();
  longestMs = 0;
  looks = 0;
  #nodes;
  #out = new Set();
  #busy = new Set();
  #watching = [];
  #over = false;
  #serial = 0;
  /** Jumps that nobody has noticed yet. */
  #unnoticed = new Set();
  #coming = 0; // places

  constructor({ folder, random, keys, ttlMs, size, kind, quarantine = true }) {
    Object.assign(this, { folder, random, keys, ttlMs, quarantine });
    const params = {
      prefix: PREFIX, fencing: true, maxTtl: ttlMs, nodeTimeout: 250, connectTimeout: 1000,
      quarantine,
    };
    this.#nodes = new Nodes(size, { kind, clocks: true, params });
    this.spend = (mostMs) => sleep(random.between(0, mostMs));
    this.decks = { node: new Deck(NODE_FAULTS, random), way: new Deck(WAY_FAULTS, random) };
    const faults = [...Object.keys(NODE_FAULTS), ...Object.keys(WAY_FAULTS)];
    this.counts = Object.fromEntries(faults.map((name) => [name, 0]));
  }

  async open() {
    await this.#nodes.start();
    this.url = this.#nodes.url();
    this.#watching = this.#nodes.all.map((node) => this.#watch(node));
    this.#watching.push(this.#ask());
  }

  /** Where one process works: with ways to the nodes, and a clock, of its own. */
  async place() {
    while (this.#unnoticed.size > 0) await Promise.all(this.#unnoticed);
    this.#coming += 1;
    const clock = new Clock(path.join(this.folder, `clock-${++this.#serial}`));
    setWrong(clock, this.random);
    const { random } = this;
    const ways = await Ways.start(this.#nodes.all,
      { random: () => random.between(0, 999_999) / 1_000_000 });
    const place = {
      url: this.#nodes.url({}, ways),
      env: clock.environment(),
      ways,
      clock,
      known: new Set(),
      // It tells when it has a node's vote.
      hear: ({ event, node }) => {
        if (event === 'voting') place.known.add(ways.addresses.indexOf(node));
      },
      leave: async () => {
        this.places.delete(place);
        for (const { trouble } of ways.links) {
          if (trouble !== null) this.problems.push(`no RESP came: ${trouble}`);
        }
        await ways.stop();
      },
    };
    this.places.add(place);
    this.#coming -= 1;
    for (const [node, cut] of this.isolated) await cut.begin(this.#linkOf(place, node));
    return place;
  }

  #linkOf({ ways }, node) {
    return ways.links[this.#nodes.all.indexOf(node)];
  }

  linksTo(node) {
    return [...this.places].map((place) => this.#linkOf(place, node));
  }

  /** Sets the node's clock wrong, and lets it work like that for a while. */
  async mislead(node, ms) {
    await this.jump(node, ms);
    await this.#nodes.back(node);
    await this.spend(500);
  }

  /** Sets the node's clock, and waits until somebody has noticed. */
  async jump(node, ms) {
    if (!this.quarantine) {
      node.clock.jump(ms / 1000);
      return;
    }
    const noticed = this.#jump(node, ms).finally(() => this.#unnoticed.delete(noticed));
    this.#unnoticed.add(noticed);
    await noticed;
  }

  async #jump(node, ms) {
    const index = this.#nodes.all.indexOf(node);
    const isKnown = () => [...this.places].every(({ known }) => known.has(index));
    await until(() => this.#coming === 0 && isKnown(), `all know ${node.address}`,
      PATIENCE_MS);
    const before = await this.#nodes.marker(node);
    const at = now();
    node.clock.jump(ms / 1000);
    await until(async () => await this.#nodes.marker(node) !== before,
      `it was noticed that the clock of ${node.address} jumped by ${ms} ms`, PATIENCE_MS);
    this.events.push({ type: 'jumped', node: node.address, ms, at, noticed: now() });
  }

  get untried() {
    return Object.values(this.counts).includes(0);
  }

  /** Lets one thing happen, and makes it good again: to a node, while it can be spared. */
  async strike() {
    if (this.#out.size < this.#nodes.minority) await this.#strikeNode();
    else if (this.#busy.size < WAYS) await this.#strikeWay();
  }

  async #strikeNode() {
    const node = this.random.pick(this.#nodes.all.filter((each) => !this.#out.has(each)));
    const fault = this.decks.node.draw();
    this.#out.add(node);
    this.counts[fault] += 1;
    const from = now();
    await ofNode[fault](this, node);
    const over = now();
    await this.#nodes.back(node);
    this.events.push({ type: 'fault', fault, node: node.address, from, over, back: now() });
    this.#out.delete(node);
  }

  async #strikeWay() {
    const { random } = this;
    const place = random.pick([...this.places]);
    const proxy = place && random.pick(place.ways.links);
    if (proxy === undefined || this.#busy.has(proxy)) return;
    const fault = this.decks.way.draw();
    this.#busy.add(proxy);
    this.counts[fault] += 1;
    await ofPlace[fault](this, { proxy, clock: place.clock });
    this.#busy.delete(proxy);
  }

  /** Asks all nodes all the time, and so knows their clocks. */
  async #ask() {
    const hf = new Holdfast(this.url);
    hf.on('error', () => {});
    while (!this.#over) {
      // What comes of it is nobody's concern.
      await hf.withLock('watched', { ttl: this.ttlMs, wait: 0 }, () => {}).catch(() => {});
      await sleep(LOOK_MS);
    }
    await hf.close({ timeout: 0 });
  }

  /** Looks all the time at what the node says of the leases: each ends, in time. */
  async #watch(node) {
    const names = this.keys.map((key) => PREFIX + key);
    while (!this.#over) {
      await sleep(LOOK_MS);
      if (!node.alive || node.frozen) continue;
      const before = node.clock.ahead;
      const left = await Promise.all(names.map((name) => node.send('PTTL', name)))
        .catch(() => []); // it is gone just now
      // A clock that goes back lets a lease last longer: by a `ttlMs` when it is set right.
      const mostMs = 2 * this.ttlMs - 1000 * Math.min(0, before, node.clock.ahead);
      for (const [i, ms] of left.entries()) {
        if (ms === -2) continue; // nobody has it
        this.looks += 1;
        this.longestMs = Math.max(this.longestMs, ms);
        const lease = `the lease of ${this.keys[i]} at ${node.address}`;
        if (ms === -1) this.problems.push(`${lease} has no end`);
        if (ms > mostMs) this.problems.push(`${lease} ends in ${ms} ms`);
      }
    }
  }

  /** Everything works again. */
  async rest() {
    this.#over = true;
    await Promise.all(this.#watching);
    for (const { ways } of this.places) ways.calm();
  }

  close() {
    return this.#nodes.stop();
  }
}

module.exports = { QuorumSite };
