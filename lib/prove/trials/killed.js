'use strict';

// A process takes a lock and is killed with SIGKILL, as happens when memory runs out. Nobody is
// left to release it. The next process must get in, but not before the dead one's time has ended:
// until then nobody can know that it is dead and not merely slow.

const { naiveLock } = require('../naive-lock');
const { seconds } = require('../words');

const TTL_MS = 2000;
const PATIENCE_MS = 3 * TTL_MS; // how long the naive code's next process stands at the door
const WAIT_MS = 20_000;
// A lease counts as ended this much before its deadline, for clocks that run apart.
const MARGIN_MS = TTL_MS / 100 + 2;

const forever = () => new Promise(() => {});

/** Milliseconds of a clock that every process of this machine shares. */
const now = () => Number(process.hrtime.bigint()) / 1e6;

const acts = {
  async naiveHolder({ hf, notify, sink, key }) {
    await naiveLock(hf, key);
    sink.append({ what: 'in', pid: process.pid });
    await notify('in');
    await forever();
  },

  async naiveNext({ hf, sink, key }) {
    if (!await naiveLock(hf, key, { patience: PATIENCE_MS })) return null;
    sink.append({ what: 'in', pid: process.pid });
    return now();
  },

  async redlockHolder({ rival, notify, sink, key }) {
    const asked = now();
    await rival.hold(key, TTL_MS, async () => {
      sink.append({ what: 'in', pid: process.pid });
      await notify('in', asked + TTL_MS - MARGIN_MS);
      await forever();
    });
  },

  async redlockNext({ rival, sink, key }) {
    const lock = await rival.take(key, TTL_MS);
    const at = now();
    sink.append({ what: 'in', pid: process.pid });
    await rival.release(lock);
    return at;
  },

  async holdfastHolder({ hf, notify, sink, key }) {
    const asked = now();
    const lock = await hf.lock(key, { ttl: TTL_MS, wait: WAIT_MS });
    sink.append({ what: 'in', pid: process.pid, fence: lock.fence });
    await notify('in', asked + TTL_MS - MARGIN_MS);
    await forever();
  },

  async holdfastNext({ hf, sink, key }) {
    const lock = await hf.lock(key, { ttl: TTL_MS, wait: WAIT_MS });
    const at = now();
    sink.append({ what: 'in', pid: process.pid, fence: lock.fence });
    await lock.release();
    return at;
  },
};

async function play(stage, side) {
  const [holder, next] = await stage.start(2);
  const wishes = { sink: stage.sink(side).file, key: stage.key(side, 'lock') };
  const held = holder.report('in');
  const acting = holder.perform(`${side}Holder`, wishes);
  const notBefore = await Promise.race([held, acting]);
  const waiting = next.perform(`${side}Next`, wishes);
  const killedAt = now();
  await holder.kill();
  const at = await waiting.catch((error) => {
    if (error.code !== 'HF_ETIMEDOUT') throw error;
    return null;
  });
  const patience = side === 'naive' ? PATIENCE_MS : WAIT_MS;
  await stage.dismiss([next]);
  const [first, second] = stage.sink(side).read();
  return {
    ttlMs: TTL_MS,
    gotIn: at !== null,
    tooEarly: at !== null && notBefore != null && at < notBefore,
    waitedMs: Math.round(at === null ? patience : at - killedAt),
    fences: [first, second].filter((effect) => effect?.fence != null).map(({ fence }) => fence),
  };
}

module.exports = {
  name: 'killed',
  title: `A holder of a lock with a TTL of ${TTL_MS / 1000} s, killed with SIGKILL`,
  code: {
    naive: 'create(lock), work',
    redlock: 'acquire(key), extend, work',
    holdfast: 'lock(key, { ttl }), work',
  },
  acts,

  run(stage) {
    return stage.onBothSides((side) => play(stage, side));
  },

  check({ gotIn, tooEarly, waitedMs, fences }) {
    const broken = [];
    if (!gotIn) broken.push(`the lock was still taken ${seconds(waitedMs)} later`);
    if (tooEarly) broken.push('the next process got in before the time of the dead one had ended');
    if (fences.length === 2 && fences[1] <= fences[0]) broken.push('the fence did not grow');
    return broken;
  },

  tell({ gotIn, tooEarly, waitedMs }) {
    return [
      ['the next process', gotIn ? `got in after ${seconds(waitedMs)}` :
        `still locked out after ${seconds(waitedMs)}`],
      ['and too early', tooEarly ? 'yes' : 'no'],
    ];
  },
};
