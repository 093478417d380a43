'use strict';

// A PostgreSQL as a site of a soak (test/soak-sites.js): what befalls it, and what is promised all
// the same.

const { PostgresServer } = require('./postgres-servers');
const { FAULTS, ServerSite } = require('./soak-sites');

const PARAMS = { commandTimeout: 500, connectTimeout: 500 };

/** What befalls the server. */
const ofServer = {
  /** All of it is killed at once. */
  async kill({ spend }, server) {
    await server.kill();
    await spend(800);
    await server.restart();
    await spend(2000);
  },

  /** One of its processes dies: it takes all connections down, and recovers. */
  async crash({ random, spend }, server) {
    const pid = random.pick(await server.backends().catch(() => [])); // it recovers just now
    if (pid !== undefined) process.kill(pid, 'SIGKILL');
    await spend(2000);
  },

  async terminate({ spend }, server) {
    await server.terminate().catch(() => {});
    await spend(500);
  },

  async freeze({ random, spend }, server) {
    server.freeze();
    await spend(random.chance(0.5) ? 300 : 2500);
    server.thaw();
    await spend(2000);
  },

  /** Everything is again as it was when the run began. */
  async rewind({ spend }, server) {
    await server.putBack();
    await spend(2000);
  },
};

// To the proxies the bytes are opaque: they cannot lose a reply, or have it come twice.
const network = { ...FAULTS.network };
delete network.garble;

/** Names of faults, with how often they come. */
const POSTGRES_FAULTS = {
  server: { kill: 3, crash: 3, terminate: 4, freeze: 4 },
  network,
  // What is lost with what the server had are leases and entries; fences are not.
  rewinding: { rewind: 3, cut: 1, terminate: 1 },
};

class PostgresSite extends ServerSite {
  proxyOptions = { opaque: true };

  constructor({ version, durable = false, faults, ...where }) {
    super({ ...where, faults, forgetful: 'rewind' in faults });
    this.deployment = new PostgresServer({ version, durable });
    this.ofServer = ofServer;
  }

  async start() {
    this.server = this.deployment;
    await this.server.start();
    if ('rewind' in this.counts) await this.server.copy();
    this.url = this.server.url(PARAMS);
  }

  through(proxy) {
    return `postgres://postgres@${proxy.address}/postgres?${new URLSearchParams(PARAMS)}`;
  }

  /** For each key how long it is held yet, in ms; null if nobody has it. */
  async look() {
    const { rows } = await this.server.query(
      `SELECT convert_from(h.key, 'UTF8') AS key,
              (max(h.until_us) - extract(epoch FROM clock_timestamp()) * 1000000) / 1000 AS ms
       FROM (SELECT key, until_us FROM holdfast.key
             UNION ALL SELECT key, until_us FROM holdfast.lease WHERE slots > 0) AS h
       GROUP BY h.key`);
    const left = new Map(rows.map(({ key, ms }) => [key, Math.floor(Number(ms))]));
    return this.keys.map((key) => (left.get(key) > 0 ? left.get(key) : null));
  }
}

module.exports = { POSTGRES_FAULTS, PostgresSite };
