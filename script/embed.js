'use strict';

// Writes what runs inside the servers into C files, so that the library carries it: the scripts of
// Redis, csrc/store/redis/*.lua, and the schema of PostgreSQL, csrc/store/postgres/schema.sql. The
// results are committed: a build then needs nothing but a compiler.
//
//   node script/embed.js           writes them
//   node script/embed.js --check   fails if what is there is not what it would write
//
// A line `--@ name` of Lua stands for the lines of name.part.lua. Comments and blank lines stay
// behind.

const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const scripts = 'csrc/store/redis';
const schema = 'csrc/store/postgres/schema.sql';

const read = (name) => fs.readFileSync(path.join(root, name), 'utf8');

function quote(line) {
  return `    "${line.replace(/[\\"]/g, '\\$&')}\\n"`;
}

/** A C file that holds only texts. */
function file(source, header, texts) {
  return [
    `/* Written by script/embed.js from ${source}: change that. */`,
    `#include "${header}"`,
    '',
    '/* Longer than C99 says a compiler must take; those that we know do. */',
    '#pragma GCC diagnostic ignored "-Woverlength-strings"',
    '',
    '/* clang-format off */',
    texts,
    '',
  ].join('\n');
}

/** The lines of a script that mean something, with the parts that it names in their places. */
function lua(name) {
  return read(`${scripts}/${name}`).split('\n').flatMap((line) => {
    const part = /^--@ (\w+)$/.exec(line);
    if (part !== null) return lua(`${part[1]}.part.lua`);
    const text = line.replace(/\s+--\s.*$|^\s*--.*$/, '').trimEnd();
    return text === '' ? [] : [text];
  });
}

function redisScripts() {
  const names = fs.readdirSync(path.join(root, scripts))
    .filter((name) => /^\w+\.lua$/.test(name))
    .map((name) => name.slice(0, -'.lua'.length))
    .sort();
  const texts = names.map((name) => [
    `const char hf__redis_lua_${name}[] =`,
    `${lua(`${name}.lua`).map(quote).join('\n')};`,
  ].join('\n'));
  return file(scripts, 'store/redis-scripts.h', texts.join('\n\n'));
}

/** The statements of a file of SQL: a semicolon ends one, but within quotes and dollar quotes. */
function statements(sql) {
  const token = new RegExp([
    '--[^\\n]*', '/\\*[^]*?\\*/', '\'(?:[^\']|\'\')*\'', '"[^"]*"', '\\$(\\w*)\\$[^]*?\\$\\1\\$',
    ';', '[^-/\'"$;]+', '[-/$]',
  ].join('|'), 'g');
  const found = [];
  let one = '';
  for (const [text] of sql.matchAll(token)) {
    if (text === ';') {
      found.push(one);
      one = '';
    } else if (!/^(--|\/\*)/.test(text)) {
      one += text;
    }
  }
  if (one.trim() !== '') throw new Error(`${schema}: the last statement has no end: ${one}`);
  return found;
}

/** Without the comments and blank lines of function bodies, too. */
function sqlLines(statement) {
  return statement.split('\n').map((line) => line.replace(/^\s*--.*$|\s--\s.*$/, '').trimEnd())
    .filter((line) => line !== '');
}

function postgresSchema() {
  const texts = statements(read(schema)).map((one) => sqlLines(one).map(quote).join('\n'));
  return file(schema, 'store/postgres-schema.h',
    `const char *const hf__postgres_schema[] = {\n${texts.join(',\n\n')},\n\n    0,\n};`);
}

const targets = [
  { name: 'csrc/store/redis-scripts.c', make: redisScripts },
  { name: 'csrc/store/postgres-schema-sql.c', make: postgresSchema },
];

const checks = process.argv[2] === '--check';
for (const { name, make } of targets) {
  const text = make();
  if (!checks) {
    fs.writeFileSync(path.join(root, name), text);
  } else if (!fs.existsSync(path.join(root, name)) || read(name) !== text) {
    console.error(`${name} is not what its sources say: run\nnode script/embed.js`);
    process.exitCode = 1;
  }
}
