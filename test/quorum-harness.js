'use strict';

// Independent Redis nodes for the tests of a quorum: each can be killed, emptied, put back to an
// old copy, frozen and cut off, and has a clock of its own.

const path = require('node:path');
const { PATIENCE_MS, temporaryPath } = require('./fault-harness');
const { until } = require('./helpers');
const { Clock } = require('./clock');
const { Proxy } = require('./proxy');
const { startServer } = require('./redis-servers');

const PREFIX = 'holdfast:';

const OF_QUORUM = new Set(['maxTtl', 'nodeTimeout', 'fencing', 'quarantine']);

/** A quorum's nodes as one URL. Some parameters are the quorum's, the others each node's. */
function quorumUrl(addresses, params) {
  const query = (belongs) =>
    `?${new URLSearchParams(Object.entries(params).filter(([name]) => belongs(name)))}`;
  const ofNode = query((name) => !OF_QUORUM.has(name));
  const nodes = addresses.map((address) => `redis://${address}${ofNode}`);
  return `quorum:${query((name) => OF_QUORUM.has(name))} ${nodes.join(' ')}`;
}

/** A client's own way to each of the nodes, which may fail for it alone. */
class Ways {
  /** @param {object} [options] of each Proxy */
  static async start(nodes, options) {
    const ways = new Ways();
    ways.links = await Promise.all(nodes.map(({ port }) => Proxy.start({ port }, options)));
    return ways;
  }

  get addresses() {
    return this.links.map(({ address }) => address);
  }

  calm() {
    for (const link of this.links) link.calm();
  }

  stop() {
    return Promise.all(this.links.map((link) => link.stop()));
  }
}

class Nodes {
  /**
   * @param {number} size
   * @param {object} [options]
   * @param {'redis' | 'valkey'} [options.kind]
   * @param {boolean} [options.clocks] whether each has a clock that can be set
   * @param {object} [options.params] of the URL; `prefix` is where their marker is
   */
  constructor(size, { kind, clocks = false, params = {} } = {}) {
    this.size = size;
    this.kind = kind;
    this.clocks = clocks;
    this.params = params;
    this.all = [];
  }

  async start() {
    const folder = path.dirname(temporaryPath());
    this.all = await Promise.all(Array.from({ length: this.size }, (_, i) => startServer({
      kind: this.kind, clock: this.clocks ? new Clock(path.join(folder, `clock-${i}`)) : undefined,
    })));
    return this;
  }

  get minority() {
    return Math.floor((this.size - 1) / 2);
  }

  /** @param {object} [params] besides those that all have; `ways`: not directly */
  url(params, ways = this.#directly()) {
    return quorumUrl(ways.addresses, { ...this.params, ...params });
  }

  #directly() {
    return { addresses: this.all.map(({ address }) => address) };
  }

  get prefix() {
    return this.params.prefix ?? PREFIX;
  }

  /** What the node says of itself: for which run it has a vote, and from when on. */
  marker(node) {
    return node.send('GET', `${this.prefix}\0quorum`);
  }

  async votes(node) {
    const [marker, [s, us], { run_id: run }] = await Promise.all([
      this.marker(node), node.send('TIME'), node.info('server'),
    ]);
    const [of, , from] = (marker ?? '').split(' ');
    return of === run && Number(from) <= Number(s) * 1e6 + Number(us);
  }

  /** Waits until it has a vote. */
  back(node) {
    return until(() => this.votes(node), `${node.address} has a vote`, PATIENCE_MS);
  }

  /** Who has the key, by each of the nodes: tokens, null where it is free. */
  holders(key, nodes = this.all) {
    return Promise.all(nodes.map((node) => node.send('GET', this.prefix + key)));
  }

  stop() {
    return Promise.all(this.all.map((node) => node.stop()));
  }
}

module.exports = { Nodes, Ways };
