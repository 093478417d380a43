'use strict';

// The Redis deployments that tests stand on, all on this machine: one server, a master and its
// replica with three Sentinels, a Cluster of three masters. What `stopAll` leaves is nothing.

const { ServerProcess, stopAll } = require('./server-process');
const { makeCertificates } = require('./certificates');
const { until } = require('./helpers');

const PATIENCE_MS = 60_000;
const SLOTS = 16384;

// What a command has changed is in the hands of the system before it is answered: then a killed
// server has it when it starts again.
const DURABLE = { appendonly: 'yes', appendfsync: 'no' };

/** How a URL names options, the same for every deployment. */
function query(params) {
  const text = new URLSearchParams(params).toString();
  return text === '' ? '' : `?${text}`;
}

/** One Redis or Valkey, by TCP. */
async function startServer({ kind, config = {}, login, clock } = {}) {
  const server = new ServerProcess({ kind, config: { ...DURABLE, ...config }, login, clock });
  await server.start();
  return Object.assign(server, {
    url: (params) => `redis://${server.address}${query(params)}`,
  });
}

/** One that speaks TLS on `tlsPort`, with certificates of its own, and plainly to the tests. */
async function startTlsServer({ kind, config = {} } = {}) {
  const server = new ServerProcess({ kind });
  const certificates = await makeCertificates(server.folder);
  const tlsPort = await server.reservePort();
  server.config = {
    ...DURABLE,
    'tls-port': tlsPort,
    'tls-ca-cert-file': certificates.ca.certFile,
    'tls-cert-file': certificates.server.certFile,
    'tls-key-file': certificates.server.keyFile,
    'tls-auth-clients': 'optional',
    ...config,
  };
  await server.start();
  return Object.assign(server, {
    certificates,
    tlsPort,
    url: (params, host = 'localhost') => `rediss://${host}:${tlsPort}${query(params)}`,
    /** From now on it shows another of the certificates. */
    show: (name) => server.configSet({
      'tls-cert-file': certificates[name].certFile, 'tls-key-file': certificates[name].keyFile,
    }),
  });
}

/** A master, its replica, and three Sentinels that agree on them by the name "holdfast". */
class SentinelDeployment {
  static NAME = 'holdfast';

  constructor(kind) {
    this.kind = kind;
    this.servers = [];
    this.sentinels = [];
  }

  url(params) {
    const hosts = this.sentinels.map(({ address }) => address).join(',');
    return `redis+sentinel://${hosts}/${SentinelDeployment.NAME}${query(params)}`;
  }

  async start(config = {}) {
    const common = { ...DURABLE, 'repl-diskless-sync-delay': 0, 'repl-timeout': 5, ...config };
    const master = await startServer({ kind: this.kind, config: common });
    const replicaof = `${master.host} ${master.port}`;
    const replica = await startServer({ kind: this.kind, config: { ...common, replicaof } });
    this.servers = [master, replica];
    await until(() => isLinked(replica), 'the replica has its master\'s data', PATIENCE_MS);
    this.sentinels = await Promise.all([1, 2, 3].map(() => this.#startSentinel(master)));
    await this.settled();
    return this;
  }

  async #startSentinel({ host, port }) {
    const name = SentinelDeployment.NAME;
    const sentinel = new ServerProcess({
      kind: this.kind,
      sentinel: true,
      config: {
        sentinel: [
          `monitor ${name} ${host} ${port} 2`,
          `down-after-milliseconds ${name} 1000`,
          `failover-timeout ${name} 2000`,
        ],
      },
    });
    await sentinel.start();
    // A test has no patience for the ten seconds between two looks at the servers, and what stands
    // still under load must not keep a Sentinel from its work for half a minute.
    await sentinel.send('SENTINEL', 'DEBUG', 'INFO-PERIOD', 200, 'PING-PERIOD', 300,
      'PUBLISH-PERIOD', 200, 'ASK-PERIOD', 200, 'TILT-TRIGGER', 60_000);
    return sentinel;
  }

  get #watching() {
    return this.sentinels.filter(({ alive, frozen }) => alive && !frozen);
  }

  /** Waits until all Sentinels agree on a master and a replica that could follow it. */
  settled() {
    return until(async () => {
      const views = await Promise.all(this.#watching.map(viewOf));
      const [{ port }] = views;
      const agreed = views.every((view) => view.port === port && view.calm && view.ready
        && view.others >= views.length - 1);
      return agreed && this.servers.some((server) => server.alive && server.port === port);
    }, 'the Sentinels agree', PATIENCE_MS);
  }

  /** The server that the Sentinels call the master now. */
  async master() {
    const [, port] = await this.#watching[0].send('SENTINEL', 'GET-MASTER-ADDR-BY-NAME',
      SentinelDeployment.NAME);
    return this.servers.find((server) => server.port === Number(port));
  }

  /**
   * Makes the replica the master.
   *
   * @param {'kill' | 'freeze' | 'ask'} how what becomes of the master before: 'ask' leaves it be,
   *   and tells a Sentinel to
   * @returns {Promise<{ from: object, to: object }>} when the new one accepts writes, and every
   *   Sentinel says that it is the master
   */
  async failover(how = 'kill') {
    const from = await this.master();
    const to = this.servers.find((server) => server !== from);
    if (how === 'kill') await from.kill();
    if (how === 'freeze') from.freeze();
    await until(async () => {
      const views = await Promise.all(this.#watching.map(viewOf));
      if (how === 'ask' && views[0].port === from.port) await this.#ask();
      return views.every(({ port, calm }) => port === to.port && calm)
        && await roleOf(to) === 'master';
    }, 'the replica is the master', PATIENCE_MS);
    return { from, to };
  }

  // A Sentinel refuses while one is under way, or it is not ready for it.
  #ask() {
    return this.#watching[0].send('SENTINEL', 'FAILOVER', SentinelDeployment.NAME).catch(unknown);
  }

  /** Brings back the one that was the master, as the replica of who is it now. */
  async rejoin(server) {
    const { host, port } = await this.master();
    server.config = { ...server.config, replicaof: `${host} ${port}` };
    if (server.frozen) server.thaw();
    else if (!server.alive) await server.restart({ configure: true });
    await until(() => isLinked(server), 'the old master is a replica', PATIENCE_MS);
    await this.settled();
  }

  get processes() {
    return [...this.sentinels, ...this.servers];
  }

  stop() {
    return Promise.all(this.processes.map((server) => server.stop()));
  }
}

// A server whose role changes closes its connections: then nothing is known of it yet.
const unknown = () => null;

function roleOf(server) {
  return server.send('ROLE').then(([role]) => role, unknown);
}

function isLinked(server) {
  return server.info('replication').then((info) => info.master_link_status === 'up', unknown);
}

function fieldsOf(list) {
  const fields = {};
  for (let i = 0; i < list.length; i += 2) fields[list[i]] = list[i + 1];
  return fields;
}

/** Which master a Sentinel sees and whether it lives, and if another failover could begin. */
async function viewOf(sentinel) {
  const [master, replicas] = await Promise.all(['MASTER', 'REPLICAS'].map((what) =>
    sentinel.send('SENTINEL', what, SentinelDeployment.NAME)));
  const { port, flags, 'num-other-sentinels': others } = fieldsOf(master);
  const ready = replicas.map(fieldsOf).some((replica) => replica.flags === 'slave'
    && replica['master-link-status'] === 'ok' && replica['master-port'] === port);
  return { port: Number(port), others: Number(others), calm: flags === 'master', ready };
}

/** Three masters, a third of the slots each. */
class ClusterDeployment {
  constructor(kind) {
    this.kind = kind;
    this.nodes = [];
  }

  url(params) {
    const hosts = this.nodes.map(({ address }) => address).join(',');
    return `redis+cluster://${hosts}${query(params)}`;
  }

  async start(config = {}) {
    const all = { 'cluster-enabled': 'yes', 'cluster-node-timeout': 1000, ...config };
    const { kind, nodes } = this;
    nodes.push(...await Promise.all([1, 2, 3].map(() => startServer({ kind, config: all }))));
    for (const [i, node] of nodes.entries()) {
      node.id = await node.send('CLUSTER', 'MYID');
      const [first, next] = [i, i + 1].map((n) => Math.floor(n * SLOTS / nodes.length));
      await node.send('CLUSTER', 'SET-CONFIG-EPOCH', i + 1);
      await node.send('CLUSTER', 'ADDSLOTSRANGE', first, next - 1);
    }
    const [{ host, port }] = nodes;
    for (const node of nodes.slice(1)) await node.send('CLUSTER', 'MEET', host, port);
    await this.settled();
    return this;
  }

  /** Waits until every node knows where all slots are, and accepts writes. */
  settled() {
    return until(async () => {
      const infos = await Promise.all(this.nodes.map((node) => node.send('CLUSTER', 'INFO')));
      return infos.every((info) => info.includes('cluster_state:ok')
        && info.includes(`cluster_slots_ok:${SLOTS}`) && info.includes('cluster_known_nodes:3'));
    }, 'the Cluster is complete', PATIENCE_MS);
  }

  async slotOf(key) {
    return Number(await this.nodes[0].send('CLUSTER', 'KEYSLOT', key));
  }

  /** The node that has the slot, by what it says itself. */
  async nodeOf(slot) {
    for (const node of this.nodes) {
      const ranges = await node.send('CLUSTER', 'SLOTS');
      const range = ranges.find(([first, last]) => first <= slot && slot <= last);
      if (range?.[2][2] === node.id) return node;
    }
    throw new Error(`no node has slot ${slot}`);
  }

  /**
   * Begins to move a slot: its keys that are there stay, and new ones are asked for at the other
   * node (ASK). `finish()` moves the keys too and says so to all (MOVED).
   */
  async moveSlot(slot) {
    const from = await this.nodeOf(slot);
    const to = this.nodes.find((node) => node !== from);
    await to.send('CLUSTER', 'SETSLOT', slot, 'IMPORTING', from.id);
    await from.send('CLUSTER', 'SETSLOT', slot, 'MIGRATING', to.id);
    return { from, to, finish: () => this.#finishMove(slot, from, to) };
  }

  async #finishMove(slot, from, to) {
    for (;;) {
      const keys = await from.send('CLUSTER', 'GETKEYSINSLOT', slot, 100);
      if (keys.length === 0) break;
      await from.send('MIGRATE', to.host, to.port, '', 0, 10_000, 'KEYS', ...keys);
    }
    const rest = this.nodes.filter((node) => node !== to);
    for (const node of [to, ...rest]) await node.send('CLUSTER', 'SETSLOT', slot, 'NODE', to.id);
  }

  get processes() {
    return this.nodes;
  }

  stop() {
    return Promise.all(this.nodes.map((node) => node.stop()));
  }
}

function startSentinels({ kind, config } = {}) {
  return new SentinelDeployment(kind).start(config);
}

function startCluster({ kind, config } = {}) {
  return new ClusterDeployment(kind).start(config);
}

/** Servers that know nothing of each other: the nodes of a quorum. */
class QuorumDeployment {
  constructor(servers) {
    this.servers = servers;
  }

  /** Parameters of the quorum, or of all its nodes. */
  url(params) {
    return `quorum:${query(params)} ${this.servers.map((server) => server.url()).join(' ')}`;
  }

  stop() {
    return Promise.all(this.servers.map((server) => server.stop()));
  }
}

async function startQuorum({ nodes = 3, ...options } = {}) {
  const servers = Array.from({ length: nodes }, () => startServer(options));
  return new QuorumDeployment(await Promise.all(servers));
}

let serial = 0;

/**
 * A deployment for the suite that calls this, from `before` to `after`: `scope.deployment`, and
 * `scope.url(params)` of a store in which nothing is.
 *
 * @param {() => Promise<object>} start
 */
function useDeployment(start) {
  const scope = {
    deployment: null,
    // In a Cluster, keys that are used together have one slot where the prefix says so.
    url: (params) => scope.deployment.url({ prefix: `{test-${++serial}}:`, ...params }),
  };
  before(async () => { scope.deployment = await start(); });
  after(() => scope.deployment?.stop());
  return scope;
}

module.exports = {
  DURABLE, ServerProcess, startCluster, startQuorum, startSentinels, startServer, startTlsServer,
  stopAll, useDeployment,
};
