'use strict';

// Ways in which a Redis server can tell a client that waits for a lease that it is free, each with
// the scripts that it needs. They differ in nothing else: a take is SET NX PX and a fence, a
// release a GET and a DEL, and whoever is refused asks again when it is told to, or when the time
// of the holder is up.

const { createHash, randomBytes } = require('node:crypto');
const { setTimeout: sleep } = require('node:timers/promises');

const { RespConnection } = require('./resp-connection');

const TTL_MS = 30000;
const FENCE_MS = 86400000;

// KEYS: the lease, its fence, who waits. ARGV: token, ttl, who asks. -> fence, or 0 and the time
// that the holder has left.
const TAKE = `
  if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
    -- register
    return {0, redis.call('PTTL', KEYS[1])}
  end
  local fence = (tonumber(redis.call('GET', KEYS[2])) or 0) + 1
  redis.call('SET', KEYS[2], fence, 'PX', ${FENCE_MS})
  -- admit
  return {fence, 0}`;
// KEYS as above. ARGV: token -> whether it was held.
const DROP = `
  if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
  redis.call('DEL', KEYS[1])
  -- wake
  return 1`;
// KEYS as above. ARGV: token, ttl -> whether it is held.
const KEEP = `
  if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])`;

// A note for each that was refused, which lives as long as the lease that it waits for; whoever
// releases reads the notes, and publishes to the inbox of each.
const NOTED = {
  register: `
    local left = redis.call('PTTL', KEYS[1])
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    redis.call('ZADD', KEYS[3], now + math.max(left, 1), ARGV[3])
    redis.call('PEXPIRE', KEYS[3], math.max(left, 1))`,
  admit: 'if redis.call(\'EXISTS\', KEYS[3]) == 1 then redis.call(\'ZREM\', KEYS[3], ARGV[3]) end',
  wake: `
    if redis.call('EXISTS', KEYS[3]) == 1 then
      for _, who in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
        redis.call('PUBLISH', who, KEYS[3])
      end
    end`,
};

// The same, but only the first whose inbox is open hears of it. That is no way to build a lock, as
// the first may be a process that is busy with something else: it shows what telling the rest
// costs.
const NOTED_FIRST = {
  ...NOTED,
  wake: `
    for _, who in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
      redis.call('ZREM', KEYS[3], who)
      if redis.call('PUBLISH', who, KEYS[3]) > 0 then break end
    end`,
};

function scriptOf(text, parts = {}) {
  const whole = text.replace(/-- (register|admit|wake)/g, (_, part) => parts[part] ?? '');
  return { whole, hash: createHash('sha1').update(whole).digest('hex') };
}

function way(parts, tracking = null) {
  return {
    take: scriptOf(TAKE, parts),
    drop: scriptOf(DROP, parts),
    keep: scriptOf(KEEP),
    subscribes: parts !== undefined,
    tracking,
  };
}

const NOBODY = 'nobody is told';
const PUBSUB = 'pub/sub, if noted';
const FIRST = 'pub/sub, to one';
const ALWAYS = 'pub/sub, always';
const PUSHED = 'tracking, RESP3';
const REDIRECTED = 'tracking, REDIRECT';

const WAYS = {
  [PUBSUB]: way(NOTED),
  [PUSHED]: way(undefined, 'RESP3'),
  [REDIRECTED]: way(undefined, 'REDIRECT'),
  [FIRST]: way(NOTED_FIRST),
  [ALWAYS]: way({ wake: 'redis.call(\'PUBLISH\', KEYS[1], 1)' }),
  [NOBODY]: way(),
};
/** Those that tell whoever waits, and only them. */
const WAKING = [PUBSUB, PUSHED, REDIRECTED];

/** What one process would have: its connections, and those in it who wait. */
class Waker {
  #way;
  #id = randomBytes(8).toString('hex');
  #commands = null;
  #messages = null;
  #waiting = new Map();

  /** How many hints came. */
  woken = 0;

  constructor(name) {
    this.#way = WAYS[name];
  }

  static async open(name, port) {
    const waker = new Waker(name);
    await waker.#connect(port);
    return waker;
  }

  async #connect(port) {
    const { take, drop, keep, subscribes, tracking } = this.#way;
    const commands = await RespConnection.open(port, (message) => this.#told(message));
    this.#commands = commands;
    for (const { whole } of [take, drop, keep]) await commands.ask('SCRIPT', 'LOAD', whole);
    // OPTIN: only what a waiter reads is tracked, not what every take does.
    if (tracking === 'RESP3') {
      await commands.ask('HELLO', 3);
      await commands.ask('CLIENT', 'TRACKING', 'ON', 'OPTIN', 'NOLOOP');
    }
    if (!subscribes && tracking !== 'REDIRECT') return;
    this.#messages = await RespConnection.open(port, (message) => this.#told(message));
    if (tracking === 'REDIRECT') {
      const id = await this.#messages.ask('CLIENT', 'ID');
      await commands.ask('CLIENT', 'TRACKING', 'ON', 'REDIRECT', id, 'OPTIN', 'NOLOOP');
    }
    await this.#messages.ask('SUBSCRIBE', subscribes ? this.#id : '__redis__:invalidate');
  }

  ping() {
    return this.#commands.ask('PING');
  }

  ask(...words) {
    return this.#commands.ask(...words);
  }

  /**
   * Resolves with what release() takes.
   *
   * @param {string} key
   * @param {{ safe?: boolean }} [how] `safe` false: asks again only when it is told to
   */
  async acquire(key, { safe = true } = {}) {
    const token = randomBytes(16).toString('hex');
    for (let armed = false; ; armed = true) {
      const told = new Promise((resolve) => {
        this.#waiting.set(key, resolve);
      });
      const [fence, left] = await this.#take(key, token, armed);
      if (fence > 0) {
        this.#waiting.delete(key);
        return { key, token };
      }
      // What is tracked is what was read when it was asked for.
      if (this.#way.tracking === null || armed) await this.#hint(told, safe ? left : null);
    }
  }

  async release({ key, token }) {
    if (await this.#run(this.#way.drop, key, token) !== 1) throw new Error('it was not held');
  }

  renew({ key, token }) {
    return this.#run(this.#way.keep, key, token, TTL_MS);
  }

  close() {
    this.#commands.close();
    this.#messages?.close();
  }

  #take(key, token, armed) {
    if (armed && this.#way.tracking !== null) {
      // Read for this alone: of a script the server would track all keys, the fence too, and tell
      // of each take besides.
      this.#commands.ask('CLIENT', 'CACHING', 'YES');
      this.#commands.ask('EXISTS', key);
    }
    return this.#run(this.#way.take, key, token, TTL_MS, this.#id);
  }

  #run({ hash }, key, ...args) {
    return this.#commands.ask('EVALSHA', hash, 3, key, `${key}:s`, `${key}:w`, ...args);
  }

  async #hint(told, left) {
    if (left === null) {
      await told;
      return;
    }
    const settled = new AbortController();
    const timer = sleep(left + 1, undefined, { signal: settled.signal });
    await Promise.race([told, timer]);
    settled.abort();
    timer.catch(() => undefined); // it is not waited for any more
  }

  // ['message', channel, key:w], ['message', '__redis__:invalidate', [key]] or
  // ['invalidate', [key]]
  #told(message) {
    const about = message.at(-1);
    this.woken += 1;
    for (const name of Array.isArray(about) ? about : [about]) {
      const key = name.replace(/:w$/, '');
      this.#waiting.get(key)?.();
      this.#waiting.delete(key);
    }
  }
}

/** As many of one way as there are processes, or one of each way. */
function openWakers(names, port) {
  return Promise.all(names.map((name) => Waker.open(name, port)));
}

/** One of each way as lockers that keep out of each other's way. */
async function openAsLockers(port) {
  const wakers = await openWakers(WAKING, port);
  return Object.fromEntries(WAKING.map((name, i) => [name, {
    acquire: (key) => wakers[i].acquire(`${name}:${key}`),
    release: (lock) => wakers[i].release(lock),
    ping: () => wakers[i].ping(),
    close: () => wakers[i].close(),
  }]));
}

module.exports = { openWakers, openAsLockers, WAKING, FIRST, ALWAYS, NOBODY };
