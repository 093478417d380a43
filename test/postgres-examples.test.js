'use strict';

// The programs in examples/ that stand on PostgreSQL, with the clients that people have there.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const path = require('node:path');
const { promisify } = require('node:util');
const { stopAll, usePostgres } = require('./postgres-servers');

const run = promisify(execFile);
const examples = path.join(__dirname, '..', 'examples');
const prisma = path.join(__dirname, '..', 'node_modules/prisma/build/index.js');

const said = [
  'paid: { order: \'order-7\', cents: 990 }',
  'again: { order: \'order-7\', cents: 990 }',
  'payments: 1',
  'too late: 22P02',
  'left: 30',
  '',
].join('\n');

after(stopAll);

describe('a payment that is booked once', function () {
  this.timeout(120_000);
  const scope = usePostgres();

  beforeEach(() => scope.server.query('DROP TABLE IF EXISTS payment, shelf'));

  async function outputOf(program) {
    const env = { ...process.env, HOLDFAST_URL: scope.url() };
    const { stdout, stderr } = await run(process.execPath, [path.join(examples, program)], { env });
    assert.equal(stderr, '');
    return stdout;
  }

  it('with pg', async () => {
    assert.equal(await outputOf('postgres-pg.js'), said);
  });

  it('with Drizzle', async () => {
    assert.equal(await outputOf('postgres-drizzle.js'), said);
  });

  it('with Prisma', async () => {
    // Generating needs nothing but the package; the engine that it would fetch is for migrations.
    await run(process.execPath, [prisma, 'generate'], {
      cwd: path.join(examples, 'postgres-prisma'),
      env: { ...process.env, PRISMA_SCHEMA_ENGINE_BINARY: '/bin/true', CHECKPOINT_DISABLE: '1' },
    });
    assert.equal(await outputOf('postgres-prisma/index.js'), said);
  });
});
