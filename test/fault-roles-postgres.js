'use strict';

// What a child process of the fault tests can be told to do on tables of PostgreSQL: to draw from
// an account, to move money, and to book what must be booked once.

const { Client } = require('pg');
const { ConflictError, Holdfast } = require('../lib');
const { postgres, statements } = require('../lib/postgres');
const { seeded } = require('./fault-harness');

const PATIENT = { retries: 10_000 };
const AMOUNT = 100;

class Broke extends Error {}

/** The ways to draw an amount from an account that must not be overdrawn. */
const ways = {
  affectOne: (pg) => pg.affectOne`UPDATE account SET balance = balance - ${AMOUNT}
    WHERE id = 1 AND balance >= ${AMOUNT}`,
  forUpdate: (pg) => pg.transaction(async (tx) => {
    const [{ balance }] = await tx.forUpdate('account', { id: 1 });
    if (balance < AMOUNT) throw new Broke();
    await tx.query`UPDATE account SET balance = ${balance - AMOUNT} WHERE id = 1`;
  }),
  serializable: (pg) => pg.transaction(async (tx) => {
    const { rows: [{ balance }] } = await tx.query`SELECT balance FROM account WHERE id = 1`;
    if (balance < AMOUNT) throw new Broke();
    await tx.query`UPDATE account SET balance = ${balance - AMOUNT} WHERE id = 1`;
  }, { isolation: 'serializable', ...PATIENT }),
  updateVersioned: (pg) => pg.updateVersioned('account', {
    where: { id: 1 },
    set({ balance }) {
      if (balance < AMOUNT) throw new Broke();
      return { balance: balance - AMOUNT };
    },
    ...PATIENT,
  }),
};

/** Draws as often as it is told, all at once, and tells how often it got something. */
async function drawer({ url }, { say, serve }) {
  const pg = postgres(url, { max: 5 });
  await pg.query('SELECT 1');
  const draw = async (way) => {
    try {
      await ways[way](pg);
      return 1;
    } catch (error) {
      if (error instanceof Broke || error instanceof ConflictError) return 0;
      throw error;
    }
  };
  serve({
    async draw({ way, times }) {
      const drawn = await Promise.all(Array.from({ length: times }, () => draw(way)));
      return drawn.reduce((sum, each) => sum + each, 0);
    },
  });
  say('ready');
}

/** What may happen to whoever is killed, or whose connection is. */
function isExpected(error) {
  if (error instanceof TypeError || error instanceof RangeError) return false;
  return error.code !== 'HF_EINVAL';
}

/** Moves money from one account to another until it is killed. */
async function mover({ url, seed, accounts }, { say }) {
  const pg = postgres(url, { max: 3 });
  const random = seeded(seed);
  say('ready');
  async function move() {
    const [from, to] = [random.between(1, accounts), random.between(1, accounts)];
    const amount = random.between(1, 50);
    await pg.transaction(async (tx) => {
      await tx.affectOne`UPDATE account SET balance = balance - ${amount}
        WHERE id = ${from} AND balance >= ${amount}`;
      if (random.chance(0.2)) {
        await tx.transaction((part) => part.query('SELECT 1 / 0')).catch(() => {});
      }
      await tx.affectOne`UPDATE account SET balance = balance + ${amount} WHERE id = ${to}`;
    });
  }
  const lane = async () => {
    for (;;) {
      try {
        await move();
        say('step');
      } catch (error) {
        if (!isExpected(error)) say('broken', { message: error.stack });
      }
    }
  };
  await Promise.all(Array.from({ length: 4 }, lane));
}

/** A client of `pg`, anew where the last one was cut off. */
function clientOf(url) {
  let current = null;
  return {
    async get() {
      if (current !== null) return current;
      const client = new Client({ connectionString: url, application_name: 'holdfast-booker' });
      const forget = () => { if (current === client) current = null; };
      client.on('error', forget);
      client.on('end', forget);
      await client.connect();
      current = client;
      return client;
    },
    drop() {
      current?.end().catch(() => {});
      current = null;
    },
  };
}

/** Books operations, each in the transaction that finishes its record, until it is killed. */
async function booker({ url, plain, seed, ops, lease }, { say }) {
  const hf = new Holdfast(url); // its first connection may be cut off, too
  const pg = postgres(hf);
  const random = seeded(seed);

  const byTransaction = (op) => hf.once(op, { lease, wait: 0 }, (run) =>
    pg.transaction(async (tx) => {
      say('step');
      await tx.query`INSERT INTO booking (op, run) VALUES (${op}, ${run.token})`;
      say('step');
      await tx.finishRecord(run, { run: run.token });
      say('step');
      return { run: run.token };
    }));
  const byClient = (op, own) => hf.once(op, { lease, wait: 0 }, async (run) => {
    const client = await own.get();
    try {
      await client.query('BEGIN');
      say('step');
      await client.query('INSERT INTO booking (op, run) VALUES ($1, $2)', [op, run.token]);
      say('step');
      await client.query(statements.finishRecord(run, { run: run.token }));
      say('step');
      await client.query('COMMIT');
      return { run: run.token };
    } catch (error) {
      own.drop(); // with whatever it was about to do
      throw error;
    }
  });

  const lane = async () => {
    const own = clientOf(plain);
    for (;;) {
      const op = `op-${random.between(1, ops)}`;
      try {
        const { run } = await (random.chance(0.5) ? byTransaction(op) : byClient(op, own));
        say('booked', { op, run });
      } catch (error) {
        if (!isExpected(error)) say('broken', { message: error.stack });
      }
    }
  };
  say('ready');
  await Promise.all(Array.from({ length: 3 }, lane));
}

module.exports = { booker, drawer, mover };
