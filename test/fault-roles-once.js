'use strict';

// What a child process of the fault tests can be told to do once: operations, and the checkouts of
// a shop. Their effects are lines in a file that is only appended to.

const fs = require('node:fs');
const { EventEmitter, once } = require('node:events');
const { setTimeout: sleep } = require('node:timers/promises');
const { open } = require('../lib');
const { seeded } = require('./fault-harness');

const PAUSE_MS = 12; // at most, before and after an effect

/** What takes effect: a line in the sink, which is there as soon as this returns. */
function sinkOf(path, say) {
  const file = fs.openSync(path, 'a');
  return (op, { token, attempt }) => {
    const line = { type: 'effect', op, run: token, attempt, worker: process.pid };
    fs.writeSync(file, `${JSON.stringify(line)}\n`);
    say('step');
  };
}

/** A process that runs operations, as many at a time as it is told to. */
async function operator({ url, sink, seed, lease }, { say, serve }) {
  const hf = await open(url);
  const random = seeded(seed);
  const effect = sinkOf(sink, say);
  const gate = new EventEmitter().setMaxListeners(0);
  const pause = () => sleep(random.between(0, PAUSE_MS));

  const runOnce = ({ op, onCrash, wait = '60s' }, work) =>
    hf.once(op, { lease, onCrash, wait, detail: true }, work);

  serve({
    run: (args) => runOnce(args, async (run) => {
      say('step');
      await pause();
      effect(args.op, run);
      await pause();
      say('step');
      return { run: run.token };
    }),
    // Comes to its end only when the gate opens.
    runGated: (args) => runOnce(args, async (run) => {
      effect(args.op, run);
      await once(gate, 'open');
      return { run: run.token };
    }),
    openGate: () => gate.emit('open'),
    record: ({ op }) => hf.record(op),
    forget: ({ op }) => hf.forget(op),
    put: ({ key, value }) => hf.kv.put(key, value),
  });
  say('ready');
}

/** A shop whose checkouts are idempotent, under each policy. */
async function shop({ url, sink, seed, lease }, { say, serve }) {
  const express = require('express');
  const { idempotency } = require('../lib/express');
  const hf = await open(url);
  const random = seeded(seed);
  const effect = sinkOf(sink, say);
  const pause = () => sleep(random.between(0, PAUSE_MS));
  const app = express();
  app.use(express.json());
  for (const onCrash of ['retry', 'fail']) {
    app.post(`/${onCrash}/checkout`, idempotency(hf, { onCrash, lease }), async (req, res) => {
      const run = req.idempotency;
      res.on('close', () => {
        if (res.statusCode !== 201) say('lost-run', { op: req.body.op, run: run.token });
      });
      say('step');
      await pause();
      effect(req.body.op, run);
      await pause();
      say('step');
      res.status(201).json({ run: run.token, charged: req.body.amount });
    });
  }
  const server = app.listen(0, '127.0.0.1', () => say('ready', { port: server.address().port }));
  serve({ put: ({ key, value }) => hf.kv.put(key, value) });
}

module.exports = { operator, shop };
