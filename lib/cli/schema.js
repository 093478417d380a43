'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { EXIT, UsageError } = require('./exit');

const FILES = { postgres: path.join(__dirname, '../../csrc/store/postgres/schema.sql') };
const SCHEMA = 'holdfast';
const NAME = /^[a-z_][a-z0-9_]{0,39}$/;

const help = `Usage: holdfast schema postgres [options]

Prints the SQL that makes what the PostgreSQL store needs: a schema with its tables and functions.
Holdfast makes it by itself at first use where its user may; this is for teams that run migrations
themselves. It can be run again, and by several at once.

Options
  --schema NAME the schema's name, as the option \`schema\` of open(); default ${SCHEMA}
  --role NAME   also grants this role what it needs to use it
  -h, --help    show this

Examples
  holdfast schema postgres | psql "$DATABASE_URL"
  holdfast schema postgres --role shop > migrations/0001-holdfast.sql`;

function grants(schema, role) {
  const quoted = `"${role.replaceAll('"', '""')}"`;
  return [
    `GRANT USAGE ON SCHEMA ${schema} TO ${quoted};`,
    `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ${schema} TO ${quoted};`,
    `GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA ${schema} TO ${quoted};`,
    `GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ${schema} TO ${quoted};`,
    '',
  ].join('\n');
}

async function run({ store, schema = SCHEMA, role, url, json }, { stdout }) {
  if (store === undefined) throw new UsageError('of which store? There is: postgres');
  if (!Object.hasOwn(FILES, store)) throw new UsageError(`there is no schema of '${store}'`);
  if (url !== undefined) throw new UsageError('it asks no server: --url has no meaning here');
  if (json) throw new UsageError('it prints SQL: --json has no meaning here');
  if (!NAME.test(schema)) {
    throw new UsageError('--schema takes a name of up to 40 small letters, digits and _');
  }
  if (role === '') throw new UsageError('--role takes the name of a role');
  const text = fs.readFileSync(FILES[store], 'utf8').replaceAll(/\bholdfast\b/g, schema);
  const end = role === undefined ? '' : `\n${grants(schema, role)}`;
  stdout.write(`BEGIN;\n\n${text}${end}\nCOMMIT;\n`);
  return EXIT.OK;
}

module.exports = {
  summary: 'print the SQL that a store needs',
  help,
  options: { schema: { type: 'string' }, role: { type: 'string' } },
  positionals: ['store'],
  run,
};
