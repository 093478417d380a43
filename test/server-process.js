'use strict';

// One Redis or Valkey as a process of the tests: on a free port of this machine, with its files in
// a folder that goes with it. Ended by its pid, whatever became of the test.

const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { spawn, spawnSync } = require('node:child_process');
const { once } = require('node:events');
const { Connection, ReplyError } = require('./resp');
const { until } = require('./helpers');

const UNPACKED = path.join(__dirname, '..', 'build-servers', 'root', 'usr');
const TRIES = 20;
const KEPT = 16384; // characters of what a server said, for the message of a failure
// What a test stands on that does not say: `HF_SERVER=valkey npx mocha test/redis.test.js`.
const KIND = process.env.HF_SERVER || 'redis';

// Below the ports that a system gives to outgoing connections: a client that tries to reach a dead
// server on one of those may meet itself. A Cluster talks on the port 10,000 above.
const FIRST_PORT = 10_000;
const PORTS = 11_000;
const BUS = 10_000;

// All that have been started and not stopped, of whatever kind.
const running = new Set();
const given = new Set();

/** The program of that name which script/servers has unpacked, else the machine's own. */
function program(name) {
  // A daemon's program may lie where only root's PATH leads.
  const folders = [path.join(UNPACKED, 'bin'), path.join(UNPACKED, 'sbin'),
    ...(process.env.PATH ?? '').split(path.delimiter), '/usr/sbin'];
  const paths = folders.map((folder) => path.join(folder, name));
  const found = paths.find((each) => fs.existsSync(each));
  if (found === undefined) throw new Error(`there is no ${name}: script/servers gets it`);
  return found;
}

/** The folders of unpacked libraries; empty if there are none. */
function libraries() {
  const folder = path.join(UNPACKED, 'lib');
  if (!fs.existsSync(folder)) return '';
  return fs.readdirSync(folder).filter((name) => name.includes('-linux-gnu'))
    .map((name) => path.join(folder, name)).join(':');
}

/** The shared library of that name, relative to the system's folder of libraries. */
function library(name) {
  const system = fs.readdirSync('/usr/lib').filter((each) => each.includes('-linux-gnu'))
    .map((each) => path.join('/usr/lib', each));
  const paths = [...libraries().split(':'), ...system].map((folder) => path.join(folder, name));
  const found = paths.find((each) => fs.existsSync(each));
  if (found === undefined) throw new Error(`there is no ${name}: script/servers gets it`);
  return found;
}

/** Where a test runs under a sanitizer, its servers do not. */
function environment() {
  const env = { ...process.env, LD_LIBRARY_PATH: libraries(), LC_ALL: 'C' };
  for (const name of ['LD_PRELOAD', 'ASAN_OPTIONS', 'UBSAN_OPTIONS']) delete env[name];
  return env;
}

/** Gives back the memory that libfaketime shares, which a killed process keeps for ever. */
function forgetClock(pid) {
  for (const name of [`faketime_shm_${pid}`, `sem.faketime_sem_${pid}`]) {
    fs.rmSync(path.join('/dev/shm', name), { force: true });
  }
}

async function isFree(port) {
  const server = net.createServer().listen(port, '127.0.0.1');
  try {
    await once(server, 'listening');
  } catch {
    return false;
  }
  server.close();
  await once(server, 'close');
  return true;
}

/** A port that is free, and the one above it for the bus of a Cluster. Never given twice. */
async function freePort() {
  for (;;) {
    const port = FIRST_PORT + Math.floor(Math.random() * PORTS);
    if (given.has(port) || !await isFree(port) || !await isFree(port + BUS)) continue;
    given.add(port);
    return port;
  }
}

// Ends with this process even where that is killed, where the machine can do so.
let wrapper;

function commandOf(name, args) {
  if (wrapper === undefined) {
    const setpriv = ['setpriv', '--pdeathsig', 'KILL'];
    const { status } = spawnSync(setpriv[0], [...setpriv.slice(1), 'true'], { stdio: 'ignore' });
    wrapper = status === 0 ? setpriv : [];
  }
  const [command, ...rest] = [...wrapper, program(name), ...args];
  return [command, rest];
}

/** A running redis-server, valkey-server or a Sentinel of either. */
class ServerProcess {
  #process = null;
  #said = '';
  #control = null;

  /**
   * @param {object} options
   * @param {'redis' | 'valkey'} [options.kind]
   * @param {boolean} [options.sentinel]
   * @param {Record<string, any>} [options.config] what comes into its configuration, beyond port
   *   and folder; an array is a line for each
   * @param {string[]} [options.login] what `send` shows it: a password, or a user's name and that
   * @param {Clock} [options.clock] what it reads instead of the machine's
   */
  constructor({ kind = KIND, sentinel = false, config = {}, login = null, clock = null } = {}) {
    this.kind = kind;
    this.sentinel = sentinel;
    this.config = config;
    this.login = login;
    this.clock = clock;
    this.host = '127.0.0.1';
    this.port = null;
    this.frozen = false;
    this.folder = fs.mkdtempSync(path.join(os.tmpdir(), `holdfast-${kind}-`));
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
      fs.writeFileSync(this.#file, this.#configuration());
      if (await this.#run()) return this; // else another may have taken the port
    }
    throw new Error(`${this.kind} ended ${TRIES} times before it was ready:\n${this.#said}`);
  }

  /** Another port, which nobody else here is given. */
  reservePort() {
    return freePort();
  }

  /** Its configuration file, which a Sentinel and a CONFIG REWRITE write anew. */
  get #file() {
    return path.join(this.folder, 'server.conf');
  }

  #configuration() {
    const config = {
      port: this.port,
      bind: this.host,
      dir: this.folder,
      'enable-debug-command': this.sentinel ? undefined : 'yes',
      save: this.sentinel ? undefined : '""',
      ...this.config,
    };
    return Object.entries(config).filter(([, value]) => value !== undefined)
      .flatMap(([name, value]) => [value].flat().map((each) => `${name} ${each}\n`)).join('');
  }

  /** True when it is ready, or at least answers; false if it ends before. */
  async #run(ready = true) {
    const args = [this.#file, ...(this.sentinel ? ['--sentinel'] : [])];
    const child = spawn(...commandOf(`${this.kind}-server`, args), {
      env: { ...environment(), ...this.clock?.serverEnvironment() },
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
    this.ended = once(child, 'exit').then(() => {
      this.#process = null;
      this.#hangUp();
      if (this.clock !== null) forgetClock(child.pid);
    });
    await until(async () => !this.alive || await this.#answers(ready), `${this.kind} answers`);
    return this.alive;
  }

  async #answers(ready) {
    try {
      return await this.send('PING') === 'PONG';
    } catch (error) {
      this.#hangUp();
      // Any answer comes from one that is there; one asks who we are, another has data to load.
      return error instanceof ReplyError && (error.code !== 'LOADING' || !ready);
    }
  }

  /** A command on the tests' own connection to it. */
  send(...words) {
    // One that becomes a replica, or ceases to be one, closes it.
    if (this.#control === null || this.#control.broken) this.#control = this.connect(this.login);
    return this.#control.send(...words);
  }

  /** Another connection to it, which whoever asks for it closes. */
  connect(login = null) {
    const connection = new Connection({ port: this.port, host: this.host });
    // A refusal shows in the answer to what comes after it.
    if (login !== null) connection.send('AUTH', ...login).catch(() => {});
    return connection;
  }

  #hangUp() {
    this.#control?.close();
    this.#control = null;
  }

  /** What CONFIG SET changes, until it is started again. */
  async configSet(settings) {
    await this.send('CONFIG', 'SET', ...Object.entries(settings).flat());
  }

  /** One section of INFO, or all, as an object. */
  async info(...sections) {
    const text = await this.send('INFO', ...sections);
    return Object.fromEntries(text.split('\r\n').filter((line) => /^\w+:/.test(line))
      .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]));
  }

  /** SIGKILL; resolves when it is gone. */
  async kill() {
    if (!this.alive) return;
    this.signal('SIGKILL');
    await this.ended;
  }

  signal(name) {
    if (this.alive) this.#process.kill(name);
  }

  freeze() {
    this.frozen = true;
    this.signal('SIGSTOP');
  }

  thaw() {
    this.frozen = false;
    this.signal('SIGCONT');
  }

  /** A copy of the data that it has now, to start it from again. */
  async copy() {
    await this.send('SAVE');
    return fs.readFileSync(path.join(this.folder, 'dump.rdb'));
  }

  /**
   * Starts it again on the same port, after it was killed here if need be.
   *
   * @param {object} [options]
   * @param {boolean | Buffer} [options.data] false: without its data, as if it had been new; what a
   *   Cluster or Sentinel has told it stays. A copy: with what is in it, and nothing newer
   * @param {boolean} [options.configure] true: with what `config` says now, not what its file does
   * @param {boolean} [options.ready] false: does not wait until it has loaded its data
   */
  async restart({ data = true, configure = false, ready = true } = {}) {
    await this.kill();
    if (data !== true) this.#forget();
    if (data instanceof Buffer) this.#putBack(data);
    if (configure) fs.writeFileSync(this.#file, this.#configuration());
    // A system may hold a port for a moment longer than the process that had it.
    for (let i = 0; i < TRIES; i++) if (await this.#run(ready)) return;
    throw new Error(`${this.kind} did not start again:\n${this.#said}`);
  }

  #forget() {
    for (const name of ['dump.rdb', 'appendonlydir']) {
      fs.rmSync(path.join(this.folder, name), { recursive: true, force: true });
    }
  }

  // Where there is to be a log of commands, it reads nothing else; a log may begin with a copy.
  #putBack(copy) {
    const folder = path.join(this.folder, 'appendonlydir');
    fs.mkdirSync(folder);
    fs.writeFileSync(path.join(folder, 'appendonly.aof.1.base.rdb'), copy);
    fs.writeFileSync(path.join(folder, 'appendonly.aof.manifest'),
      'file appendonly.aof.1.base.rdb seq 1 type b\n');
  }

  /** Ends it without waiting for that: this process is about to end. */
  discard() {
    this.signal('SIGKILL');
    if (this.clock !== null && this.alive) forgetClock(this.pid);
    fs.rmSync(this.folder, { recursive: true, force: true });
  }

  async stop() {
    await this.kill();
    running.delete(this);
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Ends every server that is left. */
async function stopAll() {
  await Promise.all([...running].map((server) => server.stop()));
}

// Whoever is interrupted leaves no servers and folders behind either.
process.on('exit', () => {
  for (const server of running) server.discard();
});

module.exports = {
  ServerProcess, environment, forgetClock, freePort, libraries, library, program, running, stopAll,
};
