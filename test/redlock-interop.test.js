'use strict';

// Processes with redlock 4, redlock 5 and holdfast/redlock share three servers, and exclude each
// other.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const redlock5 = require('redlock').default;
const redlock4 = require('redlock4');
const drop = require('holdfast/redlock');
const { endChildren, start, until, useFolder } = require('./helpers');
const { QUICK, useServers } = require('./redlock-harness');
const { stopAll } = require('./redis-servers');

after(stopAll);

const theirs = [['redlock 5', redlock5], ['redlock 4', redlock4]];
const PATIENT = { ...QUICK, retryCount: -1 };

describe('a fleet of redlock and holdfast/redlock', () => {
  const scope = useServers(3);

  for (const [name, Theirs] of theirs) {
    it(`${name}: its lock excludes ours, of one resource and of several`, async () => {
      const other = await scope.connected(Theirs, QUICK);
      const ours = await scope.connected(drop, QUICK);
      const lock = await other.acquire(['a', 'b'], 60_000);
      await scope.has('b', lock.value);
      for (const resources of [['a'], ['b'], ['c', 'a']]) {
        await assert.rejects(ours.acquire(resources, 60_000), { name: 'ExecutionError' });
        await assert.rejects(ours.lock(resources, 60_000), { name: 'LockError' });
      }
      await scope.gone('c');
      await other.release(lock);
      const mine = await ours.acquire(['a', 'b'], 60_000);
      await mine.release();
    });

    it(`${name}: our lock excludes its, of one resource and of several`, async () => {
      const other = await scope.connected(Theirs, QUICK);
      const ours = await scope.connected(drop, QUICK);
      let lock = await ours.acquire(['a', 'b'], 1000);
      lock = await lock.extend(60_000);
      await scope.has('b', lock.value);
      for (const resources of [['a'], ['b'], ['c', 'a']]) {
        await assert.rejects(other.acquire(resources, 60_000));
      }
      await lock.release();
      await scope.gone('a', 'b');
      await other.release(await other.acquire(['a', 'b'], 60_000));
    });

    it(`${name}: while one server is down, too`, async () => {
      const ours = await scope.connected(drop, { ...QUICK, retryCount: 0 });
      scope.servers[2].freeze();
      try {
        const lock = await ours.acquire(['a'], 60_000);
        const up = scope.servers.slice(0, 2);
        const values = await Promise.all(up.map((each) => each.send('GET', 'a')));
        assert.deepEqual(values, [lock.value, lock.value]);
        await lock.release();
        for (const server of up) {
          await server.send('SET', 'a', 'another\'s', 'NX', 'PX', 60_000);
        }
        await assert.rejects(ours.acquire(['a'], 60_000), { name: 'ExecutionError' });
      } finally {
        scope.servers[2].thaw();
      }
    });

    it(`${name}: who waits has it after the other, both ways`, async () => {
      const other = await scope.connected(Theirs, PATIENT);
      const ours = await scope.connected(drop, PATIENT);
      const lock = await other.acquire(['a'], 60_000);
      const refused = new Promise((resolve) => { ours.once('error', resolve); });
      const waiting = ours.acquire(['a'], 60_000);
      await refused;
      await other.release(lock);
      const mine = await waiting;
      await scope.has('a', mine.value);
      const after = other.acquire(['a'], 60_000);
      await assert.rejects(scope.redlock(drop, QUICK).acquire(['a'], 1000));
      await mine.release();
      await other.release(await after);
    });

    it(`${name}: neither harms a lock of the other when its own is over`, async () => {
      const other = await scope.connected(Theirs, { ...QUICK, retryCount: 0 });
      const ours = await scope.connected(drop, { ...QUICK, retryCount: 0 });
      const short = await ours.acquire(['a'], 60);
      await scope.gone('a');
      const lock = await other.acquire(['a'], 60_000);
      await assert.rejects(short.release(), { name: 'ExecutionError' });
      await assert.rejects(short.extend(1000), { name: 'ExecutionError' });
      await scope.has('a', lock.value);
      await other.release(lock);

      const shorter = await other.acquire(['b'], 60);
      await scope.gone('b');
      const mine = await ours.acquire(['b'], 60_000);
      await assert.rejects(other.release(shorter));
      await scope.has('b', mine.value);
      await mine.release();
    });
  }

  describe('in processes of their own', () => {
    const folder = useFolder();
    endChildren();

    const load = (name) => `require(${JSON.stringify(require.resolve(name))})`;
    const classes = {
      drop: load('holdfast/redlock'), 4: load('redlock4'), 5: `${load('redlock')}.default`,
    };

    // Each writes a line when it has the lock and one before it gives it back.
    const program = (which) => `
      const { Redis } = ${load('ioredis')};
      const fs = require('node:fs');
      const Redlock = ${classes[which]};
      const clients = process.env.PORTS.split(',').map((port) => new Redis(Number(port)));
      const redlock = new Redlock(clients, {
        retryCount: ${which === 5 ? 0 : -1}, retryDelay: 10, retryJitter: 10,
      });
      redlock.on('error', () => {});
      const sink = fs.openSync(process.env.SINK, 'a');
      const write = (what) => fs.writeSync(sink, what + ' ${which} ' + process.pid + '\\n');
      const work = async () => {
        write('in');
        await new Promise(setImmediate);
        write('out');
      };
      // While it tries again by itself, redlock 5 keeps the votes of a minority, which are then in
      // the way of everybody, itself too, until their time is over.
      const acquire = (resources) => redlock.acquire(resources, 20_000).catch(async () => {
        await new Promise((resolve) => { setTimeout(resolve, 20 * Math.random()); });
        return acquire(resources);
      });
      for (let i = 0; i < Number(process.env.TURNS); i++) {
        const resources = i % 3 === 0 ? ['shared', 'more'] : ['shared'];
        if (i % 2 === 0 && ${which === 'drop'}) {
          await redlock.using(resources, 20_000, work);
        } else {
          const lock = await acquire(resources);
          await work();
          await redlock.release(lock);
        }
      }
      await redlock.quit();
      say('done');
      process.exit();
    `;

    it('six of them take turns, and no two are in it together', async function () {
      this.timeout(120_000);
      const sink = path.join(folder.path, 'sink');
      const turns = 25;
      const kinds = [5, 4, 'drop', 5, 'drop', 'drop'];
      const env = {
        SINK: sink, TURNS: String(turns), PORTS: scope.servers.map(({ port }) => port).join(),
      };
      const children = kinds.map((which) => start(program(which), '', env));
      for (const child of children) {
        await child.hear('done');
        assert.deepEqual(await child.ended, { code: 0, signal: null });
        assert.equal(child.stderr, '');
      }
      const lines = fs.readFileSync(sink, 'utf8').trim().split('\n');
      assert.equal(lines.length, 2 * turns * kinds.length);
      for (let i = 0; i < lines.length; i += 2) {
        assert.match(lines[i], /^in /);
        assert.equal(lines[i + 1], lines[i].replace(/^in/, 'out'), `line ${i + 1}`);
      }
      // They were in it by turns, not one after the other: else nothing has been shown.
      const handOvers = (lines.join('\n').match(/out drop \d+\nin [45] /g) ?? []).length;
      assert.ok(handOvers > 0);
      await until(async () => (await scope.all('EXISTS', 'shared', 'more')).every((n) => n === 0),
        'all has been given back');
    });
  });
});
