'use strict';

// The process of one who locks keys on a quorum. It ends when its parent lets go of it, or dies.

const { setTimeout: sleep } = require('node:timers/promises');

const { pairs } = require('./contenders');
const { load, measureOf } = require('./load');
const { OPEN } = require('./quorum-lockers');

// Before what is measured, so that what is sent to a frozen node already times out as it goes on to
// do; and after it, so that the next one need not share the processor with what still times out.
const LEAD_IN_SECONDS = 0.1;
const REST_MS = 200;
const FAILED_MOST = 0.5;
const CLOSE_MS = 2000;

/** `operation`, and how many there were and how many failed. */
function counted(operation) {
  const count = { all: 0, failed: 0, error: null };
  return {
    count,
    async operation(lane, n) {
      count.all++;
      try {
        await operation(lane, n);
      } catch (error) {
        count.failed++;
        count.error = error;
      }
    },
  };
}

/** One Measure, with the percentage of pairs that `failed`; `rate` is of those that did not. */
async function measure(locker, { inFlight, seconds }) {
  const own = pairs(locker, { contended: false, renewed: true, prefix: `bench-${process.pid}` });
  await load(counted(own).operation, { inFlight, seconds: LEAD_IN_SECONDS });
  const { operation, count } = counted(own);
  const { rate, ...figures } = measureOf([await load(operation, { inFlight, seconds })]);
  await sleep(REST_MS);
  const failed = count.failed / count.all;
  if (failed > FAILED_MOST) throw count.error;
  return { rate: rate * (1 - failed), ...figures, failed: 100 * failed };
}

async function main(name, ports) {
  let locker = null;
  process.on('disconnect', async () => {
    await Promise.race([locker?.close(), sleep(CLOSE_MS)]).catch(() => undefined);
    process.exit();
  });
  locker = await OPEN[name](ports);
  const steps = {
    async measure(how) {
      return { figures: await measure(locker, how) };
    },
    async settle() {
      await locker.settle();
      return {};
    },
  };
  process.on('message', async ({ step, ...how }) => {
    process.send(await steps[step](how).catch(({ message }) => ({ failed: message })));
  });
  await locker.settle();
  process.send({});
}

const [name, ...ports] = process.argv.slice(2);
main(name, ports.map(Number)).catch(({ message }) => {
  process.send({ failed: message }, () => process.exit());
});
