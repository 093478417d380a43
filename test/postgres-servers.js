'use strict';

// PostgreSQL servers and poolers that tests stand on, all on this machine, as processes of their
// own: on free ports, with their files in folders that go with them.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { execFileSync, spawn } = require('node:child_process');
const { once } = require('node:events');
const { Client } = require('pg');
const {
  environment, freePort, libraries, program, running, stopAll,
} = require('./server-process');
const { until } = require('./helpers');

const TRIES = 20;
const KEPT = 16384; // characters of what a server said, for the message of a failure
const PATIENCE_MS = 60_000;
const BUILT = path.join(__dirname, '..', 'build-servers');
// What a test stands on that does not say: `HF_POSTGRES=18 npx mocha test/postgres.test.js`.
const VERSION = process.env.HF_POSTGRES || '15';

/** The folder of programs: what script/servers has fetched, else the system's newest. */
function programsOf(version) {
  const fetched = path.join(BUILT, `postgres-${version}`, 'bin');
  if (fs.existsSync(fetched)) return fetched;
  const roots = ['/usr/lib/postgresql', path.join(BUILT, 'root/usr/lib/postgresql')];
  const found = roots.filter((root) => fs.existsSync(root))
    .flatMap((root) => fs.readdirSync(root).map((each) => ({ each, root })))
    .filter(({ each, root }) => fs.existsSync(path.join(root, each, 'bin/initdb')))
    .sort((a, b) => Number(b.each) - Number(a.each));
  const best = found.find(({ each }) => each === version) ?? found[0];
  if (best === undefined) throw new Error('there is no PostgreSQL: script/servers gets it');
  return path.join(best.root, best.each, 'bin');
}

/** A server that refuses to be root runs as somebody else. */
function user() {
  if (process.getuid() !== 0) return {};
  const line = fs.readFileSync('/etc/passwd', 'utf8').split('\n').map((each) => each.split(':'));
  const entry = ['postgres', 'nobody'].map((name) => line.find(([first]) => first === name))
    .find(Boolean);
  return { uid: Number(entry[2]), gid: Number(entry[3]) };
}

function childrenOf(pid) {
  try {
    return fs.readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')
      .filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

/** Whether it runs; one that nobody has waited for yet does not. */
function isAlive(pid) {
  try {
    return !/^\d+ \(.*\) Z/.test(fs.readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

function signalEach(pids, name) {
  for (const pid of pids) {
    try {
      process.kill(pid, name);
    } catch {
      // It has ended meanwhile.
    }
  }
}

/** What servers and poolers have in common: a process of another user, with a folder. */
class Daemon {
  #process = null;
  #said = '';

  constructor(name) {
    this.host = '127.0.0.1';
    this.port = null;
    this.frozen = false;
    this.user = user();
    this.folder = fs.mkdtempSync(path.join(os.tmpdir(), `holdfast-${name}-`));
    this.own(this.folder);
  }

  own(file) {
    if (this.user.uid !== undefined) fs.chownSync(file, this.user.uid, this.user.gid);
  }

  get pid() {
    return this.#process?.pid ?? null;
  }

  get alive() {
    return this.#process !== null;
  }

  get address() {
    return `${this.host}:${this.port}`;
  }

  get said() {
    return this.#said;
  }

  /** Starts it on `port`, and waits until `answers()`; false if it ends before. */
  async spawn(command, args, answers, env = {}) {
    const child = spawn('setpriv', ['--pdeathsig', 'QUIT', command, ...args], {
      ...this.user, cwd: this.folder, env: { ...environment(), ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    await once(child, 'spawn');
    this.#process = child;
    this.frozen = false;
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        this.#said = (this.#said + text).slice(-KEPT);
      });
    }
    this.ended = once(child, 'exit').then(() => { this.#process = null; });
    await until(async () => !this.alive || await answers(), 'it answers', PATIENCE_MS);
    return this.alive;
  }

  /** It and its processes. */
  get pids() {
    return this.alive ? [this.pid, ...childrenOf(this.pid)] : [];
  }

  signal(name) {
    if (this.alive) this.#process.kill(name);
  }

  /** SIGKILL for all of it at once; resolves when all of it is gone. */
  async kill() {
    if (!this.alive) return;
    const { pids } = this;
    signalEach(pids, 'SIGKILL');
    await this.ended;
    await until(() => !pids.some(isAlive), 'all its processes are gone');
  }

  freeze() {
    this.frozen = true;
    signalEach(this.pids, 'SIGSTOP');
  }

  thaw() {
    this.frozen = false;
    signalEach(this.pids, 'SIGCONT');
  }

  async stop() {
    await this.kill();
    running.delete(this);
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}

class PostgresServer extends Daemon {
  #control = null;
  #last = Promise.resolve();

  /**
   * @param {object} options
   * @param {string} [options.version] '15', or '18' that comes from npm
   * @param {boolean} [options.durable] with fsync, as a crash of the machine would need it
   * @param {Record<string, string | number>} [options.config] settings of its configuration
   */
  constructor({ version = VERSION, durable = false, config = {} } = {}) {
    super('postgres');
    this.version = version;
    this.durable = durable;
    this.config = config;
    this.programs = programsOf(version);
  }

  get #data() {
    return path.join(this.folder, 'data');
  }

  async start() {
    running.add(this);
    execFileSync(path.join(this.programs, 'initdb'),
      ['-D', this.#data, '-A', 'trust', '-U', 'postgres', '--no-sync', '--encoding', 'UTF8',
        '--locale', 'C'],
      { ...this.user, cwd: this.folder, env: environment(), stdio: 'ignore' });
    for (let i = 0; i < TRIES; i++) {
      this.port = await freePort();
      if (await this.#run()) return this; // else another may have taken the port
    }
    throw new Error(`PostgreSQL ended ${TRIES} times before it was ready:\n${this.said}`);
  }

  #run() {
    const config = {
      listen_addresses: this.host,
      unix_socket_directories: this.folder,
      fsync: this.durable ? 'on' : 'off',
      max_connections: 200,
      ...this.config,
    };
    const settings = Object.entries(config).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    const args = ['-D', this.#data, '-p', String(this.port), ...settings];
    return this.spawn(path.join(this.programs, 'postgres'), args, () => this.#answers());
  }

  async #answers() {
    try {
      return (await this.query('SELECT 1 AS one')).rows[0].one === 1;
    } catch {
      return false;
    }
  }

  /** @param {Record<string, any>} [params] parameters of the URL */
  url(params) {
    const text = new URLSearchParams(params).toString();
    return `postgres://postgres@${this.address}/postgres${text === '' ? '' : `?${text}`}`;
  }

  /** A statement on the tests' own connection, after those that were asked before. */
  query(sql, values) {
    const answer = this.#last.then(() => this.#query(sql, values));
    this.#last = answer.catch(() => {});
    return answer;
  }

  async #query(sql, values) {
    if (this.#control === null) {
      const control = new Client({ connectionString: this.url(), application_name: 'tests' });
      control.on('error', () => this.#hangUp(control)); // the server has gone
      this.#control = control;
      await control.connect().catch((error) => {
        this.#hangUp(control);
        throw error;
      });
    }
    return this.#control.query(sql, values);
  }

  #hangUp(control) {
    if (this.#control === control) this.#control = null;
    control?.end().catch(() => {});
  }

  async kill() {
    const control = this.#control;
    await super.kill();
    if (control !== null) this.#hangUp(control);
  }

  /** Starts it again on the same port, after it was killed here if need be. */
  async restart() {
    await this.kill();
    for (let i = 0; i < TRIES; i++) if (await this.#run()) return;
    throw new Error(`PostgreSQL did not start again:\n${this.said}`);
  }

  /** Ends it in order. */
  async shutDown() {
    this.signal('SIGINT');
    await this.ended;
    this.#hangUp(this.#control);
  }

  /** From its next look at its configuration on that role has to show its password. */
  requirePassword(role) {
    const file = path.join(this.#data, 'pg_hba.conf');
    const rules = fs.readFileSync(file, 'utf8');
    fs.writeFileSync(file, `host all ${role} 127.0.0.1/32 scram-sha-256\n${rules}`);
  }

  /** A cold copy of all it has; it is started again. */
  async copy() {
    await this.shutDown();
    fs.rmSync(`${this.#data}-copy`, { recursive: true, force: true });
    execFileSync('cp', ['-a', this.#data, `${this.#data}-copy`]);
    await this.restart();
  }

  /** Starts it with the copy in place of what it has. */
  async putBack() {
    await this.shutDown();
    fs.rmSync(this.#data, { recursive: true, force: true });
    execFileSync('cp', ['-a', `${this.#data}-copy`, this.#data]);
    await this.restart();
  }

  /** The processes that serve clients of that application name: all but the tests' own. */
  async backends(name = 'holdfast%') {
    const { rows } = await this.query(
      'SELECT pid FROM pg_stat_activity WHERE application_name LIKE $1', [name]);
    return rows.map(({ pid }) => pid);
  }

  /** The server ends those connections. */
  async terminate(name) {
    const pids = await this.backends(name);
    await Promise.all(pids.map((pid) => this.query('SELECT pg_terminate_backend($1)', [pid])));
    return pids.length;
  }
}

/** Debian's pgbouncer before a server. */
class PgBouncer extends Daemon {
  /**
   * @param {PostgresServer} server
   * @param {object} [options]
   * @param {'transaction' | 'session'} [options.poolMode]
   * @param {number} [options.poolSize]
   */
  constructor(server, { poolMode = 'transaction', poolSize = 20 } = {}) {
    super('pgbouncer');
    this.server = server;
    this.poolMode = poolMode;
    this.poolSize = poolSize;
  }

  async start() {
    running.add(this);
    for (let i = 0; i < TRIES; i++) {
      this.port = await freePort();
      if (await this.#run()) return this;
    }
    throw new Error(`pgbouncer ended ${TRIES} times before it was ready:\n${this.said}`);
  }

  #run() {
    const file = path.join(this.folder, 'pgbouncer.ini');
    fs.writeFileSync(file, [
      '[databases]',
      `* = host=${this.server.host} port=${this.server.port}`,
      '[pgbouncer]',
      `listen_addr = ${this.host}`,
      `listen_port = ${this.port}`,
      'unix_socket_dir =',
      'auth_type = any',
      `pool_mode = ${this.poolMode}`,
      `default_pool_size = ${this.poolSize}`,
      'max_client_conn = 500',
      '',
    ].join('\n').replace(/^\* = .*$/m, (line) => `${line} user=postgres`));
    return this.spawn(program('pgbouncer'), [file], () => this.#answers(),
      { LD_LIBRARY_PATH: libraries() });
  }

  async #answers() {
    const client = new Client({ connectionString: this.url() });
    client.on('error', () => {});
    try {
      await client.connect();
      await client.query('SELECT 1');
      return true;
    } catch {
      return false;
    } finally {
      await client.end().catch(() => {});
    }
  }

  url(params) {
    const text = new URLSearchParams(params).toString();
    return `postgres://postgres@${this.address}/postgres${text === '' ? '' : `?${text}`}`;
  }
}

/**
 * One PostgreSQL for the suite that calls this: `server` from `before` to `after`, and a pooler
 * before it where `pooled` says so. Each URL is of a store of its own.
 */
function usePostgres({ pooled = null, ...options } = {}) {
  let serial = 0;
  const scope = {
    server: null,
    pooler: null,
    url: (params) =>
      (scope.pooler ?? scope.server).url({ schema: `test_${++serial}`, ...params }),
  };
  before(async function () {
    this.timeout(PATIENCE_MS);
    scope.server = await new PostgresServer(options).start();
    if (pooled !== null) scope.pooler = await new PgBouncer(scope.server, pooled).start();
  });
  after(async () => {
    await scope.pooler?.stop();
    await scope.server?.stop();
  });
  return scope;
}

module.exports = { PgBouncer, PostgresServer, stopAll, usePostgres };
