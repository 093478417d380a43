'use strict';

// PostgreSQL servers and poolers that tests stand on, all on this machine, as processes of their
// own: on free ports, with their files in folders that go with them. What `stopAll` leaves is
// nothing, and neither is what the end of this process leaves.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { execFile, spawn, spawnSync } = require('node:child_process');
const { once } = require('node:events');
const { promisify } = require('node:util');
const { Client } = require('pg');
const { makeCertificates } = require('./certificates');
const {
  environment, forgetClock, freePort, program, running, stopAll,
} = require('./server-process');
const { until } = require('./helpers');

const TRIES = 20;
const KEPT = 16384; // characters of what a server said, for the message of a failure
const PATIENCE_MS = 60_000;
const BUILT = path.join(__dirname, '..', 'build-servers');
// What a test stands on that does not say: `HF_POSTGRES=18 npx mocha test/postgres.test.js`.
const VERSION = process.env.HF_POSTGRES || '15';
// Where another has taken the port, another port helps; no other failure is worth a second try.
const TAKEN = /Address already in use/;

/** A program to its end, which no sanitizer of ours concerns. */
function run(command, args) {
  return promisify(execFile)(command, args, { cwd: os.tmpdir(), env: environment() });
}

/** How a URL names options, the same for a server and a pooler. */
function queryOf(params) {
  const text = new URLSearchParams(params).toString();
  return text === '' ? '' : `?${text}`;
}

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

/** Whom a server that refuses to be root runs as; nobody else needs to be somebody else. */
function user() {
  if (process.getuid() !== 0) return null;
  const lines = fs.readFileSync('/etc/passwd', 'utf8').split('\n').map((each) => each.split(':'));
  const entry = ['postgres', 'nobody'].map((name) => lines.find(([first]) => first === name))
    .find(Boolean);
  return { uid: Number(entry[2]), gid: Number(entry[3]) };
}

/** Waits for a program, for those who cannot wait otherwise; gives its exit code. */
function runNow([command, ...args]) {
  return spawnSync(command, args, { env: environment(), stdio: 'ignore' }).status;
}

const owner = user();
let asOwner = null; // once it is known

/** The words before a command that is to run as that user, if it is another. */
function become() {
  if (owner === null) return ['setpriv'];
  if (asOwner !== null) return asOwner;
  // It may have to pass through folders that are root's alone, on its way to a clone or TMPDIR.
  const reach = ['--inh-caps', '+dac_override', '--ambient-caps', '+dac_override',
    '--securebits', '+no_setuid_fixup'];
  const common = ['setpriv', '--reuid', owner.uid, '--regid', owner.gid, '--clear-groups']
    .map(String);
  asOwner = runNow([...common, ...reach, 'true']) === 0 ? [...common, ...reach] : common;
  return asOwner;
}

/** What the system says of a process: its state (a letter) and its parent; null: it is gone. */
function statusOf(pid) {
  try {
    const text = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state, parent] = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return { state, parent: Number(parent) };
  } catch {
    return null;
  }
}

/** Whether it runs; one that nobody has waited for yet does not. */
function isAlive(pid) {
  const status = statusOf(pid);
  return status !== null && status.state !== 'Z';
}

function childrenOf(pid) {
  return fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number)
    .filter((each) => statusOf(each)?.parent === pid);
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

/** Stops processes where they stand, and returns when they do. */
function halt(pids) {
  signalEach(pids, 'SIGSTOP');
  while (pids.some((pid) => !'TtZX'.includes(statusOf(pid)?.state ?? 'X')));
}

/** What servers and poolers have in common: processes of another user, with a folder. */
class Daemon {
  #process = null;
  #said = '';

  constructor(name, clock = null) {
    this.name = name;
    this.clock = clock;
    this.host = '127.0.0.1';
    this.port = null;
    this.frozen = false;
    this.folder = fs.mkdtempSync(path.join(os.tmpdir(), `holdfast-${name}-`));
    this.own(this.folder);
  }

  own(file) {
    if (owner !== null) fs.chownSync(file, owner.uid, owner.gid);
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

  /** What it has printed last. */
  get said() {
    return this.#said;
  }

  async start() {
    running.add(this);
    for (let i = 0; i < TRIES; i++) {
      this.port = await freePort();
      if (await this.run()) return this;
      if (!TAKEN.test(this.said)) break;
    }
    throw new Error(`${this.name} ended before it was ready:\n${this.said}`);
  }

  /** Starts it again on the same port, after it was killed here if need be. */
  async restart() {
    await this.kill();
    // A system may hold a port for a moment longer than the process that had it.
    for (let i = 0; i < TRIES; i++) if (await this.run()) return;
    throw new Error(`${this.name} did not start again:\n${this.said}`);
  }

  /** Starts a program, and waits until `answers()`; false if it ends before. */
  async spawn(path_, args, answers) {
    // The clock is for the server alone: what it leaves in memory must be of the server's user.
    const clock = Object.entries(this.clock?.serverEnvironment() ?? {})
      .map(([name, value]) => `${name}=${value}`);
    // If this process is killed it ends at once all the same, and can give back what it has.
    const [command, ...rest] = [...become(), '--pdeathsig', 'QUIT', 'env', ...clock, path_,
      ...args];
    const child = spawn(command, rest, {
      cwd: this.folder, env: environment(), stdio: ['ignore', 'pipe', 'pipe'],
    });
    await once(child, 'spawn');
    this.#process = child;
    this.#said = '';
    this.frozen = false;
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        this.#said = (this.#said + text).slice(-KEPT);
      });
    }
    const closed = once(child, 'close');
    this.ended = once(child, 'exit').then(() => { this.#process = null; });
    await until(async () => !this.alive || await answers(), `${this.name} answers`, PATIENCE_MS);
    if (!this.alive) await closed; // and has said all that it had to
    return this.alive;
  }

  /** Stops the first of its processes, so that there will be no more, and gives all of them. */
  #halt() {
    if (!this.alive) return [];
    halt([this.pid]);
    return [this.pid, ...childrenOf(this.pid)];
  }

  /** SIGKILL for all of it at once; resolves when all of it is gone. */
  async kill() {
    const pids = this.#halt();
    signalEach(pids, 'SIGKILL');
    if (this.alive) await this.ended;
    await until(() => !pids.some(isAlive), 'all its processes are gone');
    this.release(pids[0]);
  }

  /** None of its processes takes another step. */
  freeze() {
    this.frozen = true;
    halt(this.#halt());
  }

  thaw() {
    this.frozen = false;
    if (this.alive) signalEach([...childrenOf(this.pid), this.pid], 'SIGCONT');
  }

  /** Gives back what a killed process cannot: memory that libfaketime shares. */
  release(pid) {
    if (this.clock !== null && pid !== undefined) forgetClock(pid);
  }

  /** Ends it without waiting for that: this process is about to end. */
  discard() {
    const pids = this.#halt();
    signalEach(pids, 'SIGKILL');
    this.release(pids[0]);
    fs.rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
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
   * @param {string} [options.password] what all but the tests' own connections must know
   * @param {string} [options.auth] how they say it: a method of pg_hba.conf
   * @param {boolean | 'required'} [options.tls] whether it speaks TLS, or nothing else by TCP
   * @param {string[]} [options.hba] lines of pg_hba.conf instead, for connections by TCP
   * @param {Clock} [options.clock] what it reads instead of the machine's
   */
  constructor({
    version = VERSION, durable = false, config = {}, password = null,
    auth = password === null ? 'trust' : 'scram-sha-256', tls = false, hba = null, clock = null,
  } = {}) {
    super('postgres', clock);
    Object.assign(this, { version, durable, password, auth, tls });
    this.hba = hba ?? [`${tls === 'required' ? 'hostssl' : 'host'} all all all ${auth}`];
    this.config = {
      listen_addresses: this.host,
      unix_socket_directories: this.folder,
      fsync: durable ? 'on' : 'off',
      max_connections: 200,
      // What a killed server leaves goes with its folder.
      dynamic_shared_memory_type: 'mmap',
      ...(auth === 'md5' ? { password_encryption: 'md5' } : {}),
      ...config,
    };
    this.programs = programsOf(version);
  }

  #file(name) {
    return path.join(this.folder, name);
  }

  async start() {
    running.add(this);
    await this.#makeData();
    if (this.tls !== false) await this.#makeCertificates();
    await super.start();
    if (this.password !== null) {
      const { rows: [{ word }] } = await this.query('SELECT quote_literal($1) AS word',
        [this.password]);
      await this.query(`ALTER ROLE postgres PASSWORD ${word}`);
    }
    return this;
  }

  // What initdb makes takes it a second, so it is kept: once for each version, and user.
  async #makeData() {
    const [, version] = this.programs.match(/([^/]+)\/bin$/);
    const kept = path.join(BUILT, `data-${version}-${owner?.uid ?? process.getuid()}`);
    const data = this.#file('data');
    if (fs.existsSync(kept)) {
      await run('cp', ['-a', kept, data]);
      return;
    }
    const [command, ...args] = [...become(), path.join(this.programs, 'initdb'), '-D', data,
      '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale', 'C', '--no-sync'];
    await run(command, args);
    const own = `${kept}.${path.basename(this.folder)}`;
    try {
      await run('cp', ['-a', data, own]);
      fs.renameSync(own, kept);
    } catch {
      // Another was quicker, or it cannot be kept: it is there all the same.
      fs.rmSync(own, { recursive: true, force: true });
    }
  }

  async #makeCertificates() {
    this.certificates = await makeCertificates(this.folder);
    for (const { keyFile } of Object.values(this.certificates)) this.own(keyFile);
    const { ca, server } = this.certificates;
    Object.assign(this.config, {
      ssl: 'on', ssl_ca_file: ca.certFile, ssl_cert_file: server.certFile,
      ssl_key_file: server.keyFile,
    });
  }

  #configure() {
    const config = { port: this.port, hba_file: this.#file('hba.conf'), ...this.config };
    fs.writeFileSync(this.#file('server.conf'), Object.entries(config)
      .map(([name, value]) => `${name} = '${String(value).replaceAll('\'', '\'\'')}'\n`).join(''));
    fs.writeFileSync(this.#file('hba.conf'),
      ['local all all trust', ...this.hba].map((line) => `${line}\n`).join(''));
    for (const name of ['server.conf', 'hba.conf']) this.own(this.#file(name));
  }

  run() {
    this.#configure();
    const args = ['-D', this.#file('data'), '-c', `config_file=${this.#file('server.conf')}`];
    return this.spawn(path.join(this.programs, 'postgres'), args, () => this.#answers());
  }

  #answers() {
    return this.query('SELECT 1').then(() => true, () => false);
  }

  /** @param {Record<string, any>} [params] parameters of the URL */
  url(params, host = this.host) {
    const password = this.password === null ? '' : `:${encodeURIComponent(this.password)}`;
    return `postgres://postgres${password}@${host}:${this.port}/postgres${queryOf(params)}`;
  }

  /** By way of its socket, where nobody asks for a password. */
  socketUrl(params) {
    return `postgres://postgres@/postgres${queryOf({ host: this.folder, port: this.port,
      ...params })}`;
  }

  /** Another connection to it, which whoever asks for it ends: a Client of pg. */
  async connect(name = 'tests') {
    const { port, folder: host } = this;
    const client = new Client({
      host, port, user: 'postgres', database: 'postgres', application_name: name,
    });
    client.on('error', () => {}); // the server has gone
    await client.connect();
    return client;
  }

  /**
   * A statement on the tests' own connection, after those that were asked before; resolves with
   * what pg says: `rows`, `rowCount`.
   */
  query(sql, values) {
    const answer = this.#last.then(() => this.#query(sql, values));
    this.#last = answer.catch(() => {});
    return answer;
  }

  async #query(sql, values) {
    const connecting = this.#connection();
    const control = await connecting;
    try {
      return await control.query(sql, values);
    } catch (error) {
      // An answer of the server that ends the connection, or no answer.
      if (error.severity !== 'ERROR' && this.#control === connecting) this.#hangUp();
      throw error;
    }
  }

  #connection() {
    if (this.#control !== null) return this.#control;
    const connecting = this.connect();
    const forget = () => {
      if (this.#control === connecting) this.#control = null;
    };
    connecting.then((client) => client.once('end', forget), forget);
    this.#control = connecting;
    return connecting;
  }

  #hangUp() {
    this.#control?.then((client) => client.end()).catch(() => {});
    this.#control = null;
  }

  async kill() {
    await super.kill();
    this.#hangUp();
  }

  // The system does not take the segment back by which a server knows that another has its data.
  release(pid) {
    super.release(pid);
    const { segment } = this;
    if (segment !== null) runNow(['ipcrm', '-m', segment]);
    fs.rmSync(this.#file('data/postmaster.pid'), { force: true });
  }

  /** What names it among the system's segments of shared memory; null: there is none. */
  get segment() {
    try {
      const line = fs.readFileSync(this.#file('data/postmaster.pid'), 'utf8').split('\n')[6];
      return line.trim().split(/ +/)[1] ?? null;
    } catch {
      return null;
    }
  }

  /** Ends it in order. */
  async shutDown() {
    if (!this.alive) return;
    if (this.frozen) this.thaw();
    this.#hangUp();
    signalEach([this.pid], 'SIGINT');
    await this.ended;
  }

  /** One of its processes dies: all others end and it recovers, without a start of its own. */
  async crash() {
    const client = await this.connect();
    const find = 'SELECT pid FROM pg_stat_activity WHERE backend_type = \'checkpointer\'';
    const { rows: [{ pid: before }] } = await client.query(find);
    signalEach([client.processID], 'SIGKILL');
    client.end().catch(() => {});
    await until(() => this.query(find).then(({ rows }) => rows[0].pid !== before, () => false),
      'it has recovered', PATIENCE_MS);
  }

  /** From its next look at its configuration on that role has to show its password. */
  requirePassword(role) {
    this.hba.unshift(`host all ${role} all scram-sha-256`);
    this.#configure();
  }

  /** Changes settings while it runs; resolves when new connections have them. */
  async reload(config = {}) {
    const loaded = async () => {
      const client = await this.connect();
      const { rows: [{ at }] } = await client.query('SELECT pg_conf_load_time()::text AS at');
      await client.end();
      return at;
    };
    const before = await loaded();
    Object.assign(this.config, config);
    this.#configure();
    signalEach([this.pid], 'SIGHUP');
    await until(async () => await loaded() !== before, 'it has its new configuration');
  }

  /** From now on it shows another of the certificates. */
  show(name) {
    const { certFile, keyFile } = this.certificates[name];
    return this.reload({ ssl_cert_file: certFile, ssl_key_file: keyFile });
  }

  /** A cold copy of all it has; it is started again. */
  copy() {
    return this.#replace('copy', 'data');
  }

  /** Starts it with the copy in place of what it has. */
  putBack() {
    return this.#replace('data', 'copy');
  }

  async #replace(to, from) {
    await this.shutDown();
    fs.rmSync(this.#file(to), { recursive: true, force: true });
    await run('cp', ['-a', this.#file(from), this.#file(to)]);
    await this.restart();
  }

  /** The processes that serve clients of that application name: all but the tests' own. */
  async backends(name = 'holdfast%') {
    const { rows } = await this.query(
      'SELECT pid FROM pg_stat_activity WHERE application_name LIKE $1', [name]);
    return rows.map(({ pid }) => pid);
  }

  /** The server ends those connections, or the one of that process; gives how many. */
  async terminate(which) {
    const pids = typeof which === 'number' ? [which] : await this.backends(which);
    await this.query('SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid', [pids]);
    return pids.length;
  }
}

/** A pgbouncer before a server, by TCP both ways. */
class PgBouncer extends Daemon {
  /**
   * @param {PostgresServer} server
   * @param {object} [options]
   * @param {'transaction' | 'session' | 'statement'} [options.poolMode]
   * @param {number} [options.poolSize]
   * @param {Record<string, string | number>} [options.config] more of its settings
   */
  constructor(server, { poolMode = 'transaction', poolSize = 20, config = {} } = {}) {
    super('pgbouncer');
    this.server = server;
    this.config = {
      unix_socket_dir: '',
      auth_type: 'any', // of its clients; it knows the server's password itself
      pool_mode: poolMode,
      default_pool_size: poolSize,
      max_client_conn: 500,
      server_login_retry: 0.1, // not a quarter of a minute after a server that was not there
      ...config,
    };
  }

  run() {
    const file = path.join(this.folder, 'pgbouncer.ini');
    const { host, port, password } = this.server;
    const login = `user=postgres${password === null ? '' : ` password='${password}'`}`;
    const config = { listen_addr: this.host, listen_port: this.port, ...this.config };
    fs.writeFileSync(file, [
      '[databases]', `* = host=${host} port=${port} ${login}`,
      '[pgbouncer]', ...Object.entries(config).map(([name, value]) => `${name} = ${value}`), '',
    ].join('\n'));
    this.own(file);
    return this.spawn(program('pgbouncer'), [file], () => this.#answers());
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
      client.end().catch(() => {});
    }
  }

  url(params, host = this.host) {
    return `postgres://postgres@${host}:${this.port}/postgres${queryOf(params)}`;
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
