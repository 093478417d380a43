'use strict';

// Where the processes of a soak work: a store, what can befall it, and what is promised all the
// same. To each process a site gives a URL and an environment of its own.

const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { Clock } = require('./clock');
const { Proxy } = require('./proxy');
const { startSentinels, startServer } = require('./redis-servers');

const PREFIX = 'soak:';
// What is in doubt is known to be soon.
const PARAMS = { prefix: PREFIX, commandTimeout: 500, connectTimeout: 500 };
const PATIENCE_MS = 60_000;
const LOOK_MS = 40;
const DAY_S = 24 * 3600;

/** An embedded database: what befalls it are its processes. */
class SqliteSite {
  promises = { leases: true, entries: true };
  counts = {};
  problems = [];

  constructor(folder) {
    this.url = `sqlite:${path.join(folder, 'soak.db')}`;
  }

  untried = false;

  async open() {}
  async place() { return { url: this.url, env: {}, leave: async () => {} }; }
  async strike() {}
  async rest() {}
  async close() {}
}

/** What befalls a server, or the deployment that it is of. */
const ofServer = {
  async kill({ spend }, server) {
    await server.kill();
    await spend(800);
    await server.restart();
    await spend(2000);
  },

  async forget({ spend }, server) {
    await server.kill();
    await spend(300);
    await server.restart({ data: false });
    await spend(1000);
  },

  async freeze({ random, spend }, server) {
    server.freeze();
    await spend(random.chance(0.5) ? 300 : 2500);
    server.thaw();
    await spend(2000);
  },

  async failover(site) {
    const { from, to } = await site.deployment.failover('kill');
    site.server = to;
    await site.spend(500);
    await site.deployment.rejoin(from);
  },
};

/** What befalls the way between a process and the server, or the clock of the process. */
const ofPlace = {
  async cut(_site, { proxy }) {
    proxy.cut();
  },

  async blackhole({ spend }, { proxy }) {
    proxy.blackhole();
    await spend(1500);
    proxy.heal();
  },

  async hold({ random, spend }, { proxy }) {
    proxy.hold();
    await spend(random.chance(0.5) ? 400 : 2500);
    proxy.resume();
  },

  async refuse({ spend }, { proxy }) {
    await proxy.refuse();
    await spend(1000);
    await proxy.allow();
  },

  async slow({ random, spend }, { proxy }) {
    proxy.slow = { toServer: [0, random.between(0, 100)], toClient: [0, 250] };
    await spend(1500);
    proxy.slow = { toServer: [0, 0], toClient: [0, 0] };
  },

  async pieces({ spend }, { proxy }) {
    proxy.pieces = true;
    await spend(1000);
    proxy.pieces = false;
  },

  /** For a while some replies are lost, come twice, come late, or are cut off. */
  async garble({ random, spend }, { proxy }) {
    proxy.fate = () => {
      if (!random.chance(0.05)) return 'pass';
      if (random.chance(0.3)) return { delay: random.between(0, 1500) };
      if (random.chance(0.2)) return { tear: random.between(0, 12) };
      return random.pick(['drop', 'repeat', 'cut']);
    };
    await spend(1000);
    proxy.fate = null;
  },

  async clock({ random, spend }, { clock }) {
    setWrong(clock, random);
    await spend(500);
  },
};

/** What may befall each, with how often it does. */
const FAULTS = {
  // To the server. What comes back has its data.
  server: { kill: 4, freeze: 4 },
  // To the way between each process and the server, and to the clock of the process.
  network: {
    cut: 5, blackhole: 3, hold: 3, refuse: 2, slow: 3, garble: 6, pieces: 2, clock: 4,
  },
  // What is lost with the server's memory are leases and entries; fences are not.
  forgetting: { forget: 3, cut: 1 },
  failover: { failover: 1 },
};

/** Names, each as often as it is to come, in an order that is drawn anew when all had a turn. */
class Deck {
  #cards;
  #left;

  constructor(often, random) {
    this.random = random;
    this.#cards = Object.entries(often).flatMap(([name, times]) => Array(times).fill(name));
    this.#left = Object.keys(often); // at first each once
  }

  draw() {
    if (this.#left.length === 0) this.#left = [...this.#cards];
    return this.#left.splice(this.random.between(0, this.#left.length - 1), 1)[0];
  }

  putBack(name) {
    this.#left.push(name);
  }
}

/**
 * A server, or a deployment of several. `faults` are names of what may befall it, with how often it
 * does; its kind says how it is started, reached and looked at.
 */
class ServerSite {
  #busy = new Set();
  #deck;
  #watching = null;
  #over = false;
  #serial = 0;

  constructor({ folder, random, keys, ttlMs, faults, forgetful = false }) {
    Object.assign(this, { folder, random, keys, ttlMs });
    this.spend = (mostMs) => sleep(random.between(0, mostMs));
    this.promises = { leases: !forgetful, entries: !forgetful };
    this.#deck = new Deck(faults, random);
    this.counts = Object.fromEntries(Object.keys(faults).map((name) => [name, 0]));
    this.places = new Set();
    this.problems = [];
    /** Of all leases that were looked at, the longest that one of them had left. */
    this.longestMs = 0;
    this.looks = 0;
    /** What may befall the server as a whole. */
    this.ofServer = ofServer;
    this.behindProxies = true;
    /** Options of who visits when all is over, and has time. */
    this.patience = { connectTimeout: PATIENCE_MS, commandTimeout: PATIENCE_MS };
  }

  async open() {
    await this.start();
    this.#watching = this.#watch();
  }

  /** Where one process works: behind a network of its own, with a clock of its own. */
  async place() {
    const clock = new Clock(path.join(this.folder, `clock-${++this.#serial}`));
    setWrong(clock, this.random);
    const env = this.counts.clock === undefined ? {} : clock.environment();
    if (!this.behindProxies) return { url: this.url, env, leave: async () => {} };
    const { random } = this;
    const proxy = await Proxy.start({ port: this.server.port },
      { random: () => random.between(0, 999_999) / 1_000_000, ...this.proxyOptions });
    const place = {
      url: this.through(proxy),
      env,
      proxy,
      clock,
      leave: async () => {
        this.places.delete(place);
        if (proxy.trouble !== null) this.problems.push(`no RESP came: ${proxy.trouble}`);
        await proxy.stop();
      },
    };
    this.places.add(place);
    return place;
  }

  /** Whether something has not happened yet. */
  get untried() {
    return Object.values(this.counts).includes(0);
  }

  /** Lets one thing happen, and makes it good again. */
  async strike() {
    const { random } = this;
    const fault = this.#deck.draw();
    const whole = Object.hasOwn(this.ofServer, fault);
    const victims = whole ? [this.deployment] : [...this.places];
    const victim = random.pick(victims.filter((each) => !this.#busy.has(each)));
    if (victim === undefined) {
      this.#deck.putBack(fault);
      return;
    }
    this.#busy.add(victim);
    this.counts[fault] += 1;
    try {
      if (whole) await this.ofServer[fault](this, this.server);
      else await ofPlace[fault](this, victim);
    } finally {
      this.#busy.delete(victim);
    }
  }

  /** Looks all the time at what the server says of the leases: each ends, in time. */
  async #watch() {
    while (!this.#over) {
      await sleep(LOOK_MS);
      if (!this.server.alive || this.server.frozen) continue;
      const left = await this.look().catch(() => []); // it is gone just now
      for (const [i, ms] of left.entries()) {
        if (ms === null) continue; // nobody has it
        this.looks += 1;
        this.longestMs = Math.max(this.longestMs, ms);
        if (ms > this.ttlMs) this.problems.push(`the lease of ${this.keys[i]} ends in ${ms} ms`);
      }
    }
  }

  /** Everything works again. */
  async rest() {
    this.#over = true;
    await this.#watching;
    for (const { proxy } of this.places) proxy.calm();
  }

  close() {
    return this.deployment?.stop();
  }
}

/** A Redis or Valkey. */
class RedisSite extends ServerSite {
  constructor({ kind = 'redis', faults, ...where }) {
    super({ ...where, faults, forgetful: 'forget' in faults || 'failover' in faults });
    this.kind = kind;
    this.sentinels = 'failover' in faults;
    this.behindProxies = !this.sentinels;
  }

  async start() {
    const { kind } = this;
    this.deployment = this.sentinels ? await startSentinels({ kind }) : await startServer({ kind });
    this.server = this.sentinels ? await this.deployment.master() : this.deployment;
    this.url = this.deployment.url(PARAMS);
  }

  through(proxy) {
    return `redis://${proxy.address}?${new URLSearchParams(PARAMS)}`;
  }

  /** For each key how long it is held yet, in ms; null if nobody has it. */
  async look() {
    const asked = this.keys.map((key) => this.server.send('PTTL', PREFIX + key));
    const left = await Promise.all(asked);
    return left.map((ms) => (ms === -2 ? null : ms === -1 ? Infinity : ms));
  }

  async rest() {
    await super.rest();
    if (this.sentinels) await this.deployment.settled();
  }
}

/** Sets a clock to another time of day, wrong by at least a day. */
function setWrong(clock, random) {
  const seconds = random.between(DAY_S, 400 * DAY_S);
  clock.set(random.pick([seconds, -seconds]));
}

module.exports = { Deck, FAULTS, RedisSite, ServerSite, SqliteSite, ofPlace, setWrong };
