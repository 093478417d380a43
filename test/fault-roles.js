'use strict';

// What a child process of the fault tests can be told to do with locks.

const fs = require('node:fs');
const path = require('node:path');
const { EventEmitter, once } = require('node:events');
const { subscribe } = require('node:diagnostics_channel');
const { setTimeout: sleep, setImmediate: turn } = require('node:timers/promises');
const { Worker } = require('node:worker_threads');
const { open } = require('../lib');

/** What can be said of a lock in one instant. */
function stateOf(lock) {
  let refusal = null;
  try {
    lock.assertHeld();
  } catch (error) {
    refusal = error.name;
  }
  return { held: lock.held, remaining: lock.remaining(), refusal };
}

/** Until when the holder may rely on the lock: read in this order, it is never too late. */
function reliedUntil(lock, now) {
  const at = now();
  return at + lock.remaining();
}

/** Keeps JavaScript busy for `ms`, and as long as the file is missing, if one is given. */
function block(ms, file, now) {
  const end = now() + ms;
  const due = () => now() >= end && (file === undefined || fs.existsSync(file));
  while (!due());
}

/** A process that does one thing after the other, as it is told. */
function agent(_args, { say, now, serve, plain }) {
  const locks = new Map();
  const closing = new EventEmitter();
  let hf;
  let attempts = 0;

  async function take(name, ask) {
    const asked = now();
    const lock = await ask();
    if (lock === null) return null;
    locks.set(name, lock);
    return {
      asked, t: now(), until: reliedUntil(lock, now), token: lock.token, fence: lock.fence,
    };
  }

  async function contend({ name, key, options }) {
    for (;;) {
      const taken = await take(name, () => hf.tryLock(key, options));
      if (taken !== null) return taken;
      attempts += 1;
    }
  }

  // Ends, in several ways, with whatever is held. The answer must not come back first.
  const endings = {
    exit: () => process.exit(0),
    throw: () => setImmediate(() => { throw new Error('thrown on purpose'); }),
    reject: () => setImmediate(() => Promise.reject(new Error('rejected on purpose'))),
  };

  serve({
    open: async ({ url, options }) => { hf = await open(url, options); },
    close: (options) => hf.close(options),
    lock: ({ name, key, options }) => take(name ?? key, () => hf.lock(key, options)),
    tryLock: ({ name, key, options }) => take(name ?? key, () => hf.tryLock(key, options)),
    contend: ({ name, key, options }) => contend({ name: name ?? key, key, options }),
    attempts: () => attempts,
    state: ({ name }) => stateOf(locks.get(name)),
    states: () => [...locks.values()].map(stateOf),
    release: async ({ name }) => ({ t: now(), held: await locks.get(name).release() }),
    put: ({ key, value }) => hf.kv.put(key, value),
    loss: ({ name }) => new Promise((resolve) => {
      const { signal } = locks.get(name);
      const tell = () => resolve(plain(signal.reason));
      if (signal.aborted) tell();
      else signal.addEventListener('abort', tell);
    }),
    // The loop turns between `from` and the block: what was posted to it before has been read. It
    // does not turn between the block and the look.
    block: async ({ ms, file, name }) => {
      const from = now();
      await turn();
      await turn();
      block(ms, file, now);
      return { from, ...stateOf(locks.get(name)) };
    },
    watchRenewals: ({ name }) => {
      subscribe('holdfast:lock', ({ event, token }) => {
        const lock = locks.get(name);
        if (event === 'renewed' && token === lock?.token) {
          say('renewed', { until: reliedUntil(lock, now) });
        }
      });
    },
    end: ({ how, key, options }) => {
      if (key === undefined) endings[how]();
      else hf.lock(key, options).then(endings[how]);
    },
    onSigterm: ({ timeout }) => {
      process.once('SIGTERM', async () => {
        say('closing');
        closing.emit('closing');
        await hf.close({ timeout });
        process.stdin.destroy();
      });
    },
    workUntilClosing: ({ key }) => hf.withLock(key, { ttl: '24h' }, async (lock) => {
      say('working', { fence: lock.fence });
      await once(closing, 'closing');
      await sleep(50);
      return lock.held;
    }),
  });
}

/** Opens a store, uses it or not, and has nothing more to do. */
async function opener({ url, use }, { say }) {
  const hf = await open(url);
  if (use) await hf.withLock('used', () => hf.kv.put('used', 1));
  say('opened');
}

/** Counts up a number in a file, by reading and then writing it, each time under the lock. */
async function counter({ url, file, log, rounds }, { say }) {
  const hf = await open(url);
  for (let i = 0; i < rounds; i++) {
    await hf.withLock('counter', { wait: Infinity }, async (lock) => {
      const value = Number(fs.readFileSync(file, 'utf8'));
      // Others get every chance to come in between.
      await turn();
      fs.writeFileSync(file, String(value + 1));
      fs.appendFileSync(log, `${lock.fence}\n`);
    });
  }
  await hf.close();
  say('counted');
}

const CHILD = path.join(__dirname, 'fault-child.js');

/** Threads that come and go, on one store. */
function threads(_args, { say, serve }) {
  const workers = new Set();
  let total = 0;
  serve({
    spawn: (args) => new Promise((resolve, reject) => {
      const worker = new Worker(CHILD, { workerData: { role: 'churn', args } });
      const id = ++total;
      workers.add(Object.assign(worker, { id }));
      worker.on('error', (error) => {
        say('failed', { id, message: error.stack });
        reject(error);
      });
      worker.on('message', () => resolve(id));
      worker.on('exit', () => workers.delete(worker));
      if (args.impatient) resolve(id);
    }),
    terminate: async ({ id }) => {
      for (const worker of workers) {
        if (worker.id === id) await worker.terminate();
      }
    },
    exit: () => process.exit(0),
  });
}

/** One such thread: takes, works, waits, and never comes to an end. */
async function churn({ url, keys, ttl, seed }) {
  const { parentPort } = require('node:worker_threads');
  const { seeded } = require('./fault-harness');
  const random = seeded(seed);
  const hf = await open(url);
  const lane = async () => {
    for (;;) {
      const key = random.pick(keys);
      await hf.withLock(key, { ttl, wait: '60s' }, async () => {
        await hf.kv.increment('sum', 1);
        if (random.chance(0.3)) await sleep(random.between(0, 5));
      });
      if (random.chance(0.2)) {
        await hf.once(`once-${random.between(0, 50)}`, { lease: ttl, wait: '60s' }, () => sleep(1));
      }
    }
  };
  parentPort.postMessage('ready');
  await Promise.all([lane(), lane(), lane()]);
}

module.exports = { agent, opener, counter, threads, churn };
