'use strict';

// With Prisma: a payment whose record is done in the very transaction that books it, and a write
// that a lock's fence guards.
//
//   cd examples/postgres-prisma && npx prisma generate
//   HOLDFAST_URL=postgres://localhost/shop node index.js

const { PrismaPg } = require('@prisma/adapter-pg');
const { open } = require('holdfast');
const { statements } = require('holdfast/postgres');
const { PrismaClient } = require('./client');

const url = process.env.HOLDFAST_URL ?? 'postgres://localhost/postgres';

/** Runs a statement, { text, values }, in a transaction of Prisma's, or outside of one. */
function execute(prisma, { text, values }) {
  return prisma.$queryRawUnsafe(text, ...values);
}

async function main() {
  const hf = await open(url);
  const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: url }) });
  await prisma.$executeRaw`
    CREATE TABLE IF NOT EXISTS payment (order_id text PRIMARY KEY, cents int)`;
  await prisma.$executeRaw`
    CREATE TABLE IF NOT EXISTS shelf (item text PRIMARY KEY, mugs int, fence bigint)`;
  await prisma.shelf.upsert({
    where: { item: 'mugs' }, update: {}, create: { item: 'mugs', mugs: 40, fence: 0 },
  });

  // However often it is asked for, and wherever a process dies: it is booked once, or not at all.
  const pay = (order, cents) => hf.once(`pay/${order}`, (run) => prisma.$transaction(async (tx) => {
    await tx.payment.create({ data: { orderId: order, cents } });
    const receipt = { order, cents };
    await execute(tx, statements.finishRecord(run, receipt));
    return receipt;
  }));
  console.log('paid:', await pay('order-7', 990));
  console.log('again:', await pay('order-7', 990));
  console.log('payments:', await prisma.payment.count());

  // The lock of the first was lost when the second took it: what it still writes is refused.
  const sell = (lock, mugs) => execute(prisma, statements.fencedUpdate('shelf',
    { set: { mugs }, where: { item: 'mugs' }, lock }));
  const early = await hf.lock('shelf/mugs');
  await early.release(); // as if it had been held up for too long
  await hf.withLock('shelf/mugs', (lock) => sell(lock, 30));
  await sell(early, 35).catch(({ meta }) =>
    console.log('too late:', meta.driverAdapterError.cause.originalCode));
  const shelf = await prisma.shelf.findUniqueOrThrow({ where: { item: 'mugs' } });
  console.log('left:', shelf.mugs);

  await prisma.$disconnect();
  await hf.close();
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
