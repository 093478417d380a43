'use strict';

// Writes the scripts that run inside Redis, csrc/store/redis/*.lua, into redis-scripts.c beside
// that folder, so that the library carries them. The result is committed: a build then needs
// nothing but a compiler.
//
//   node script/embed-lua.js           writes it
//   node script/embed-lua.js --check   fails if what is there is not what it would write
//
// A line `--@ name` stands for the lines of name.part.lua. Comments and blank lines stay behind.

const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const folder = path.join(root, 'csrc/store/redis');
const target = path.join(root, 'csrc/store/redis-scripts.c');

/** The lines of a file that mean something, with the parts that it names in their places. */
function lines(file) {
  return fs.readFileSync(path.join(folder, file), 'utf8').split('\n').flatMap((line) => {
    const part = /^--@ (\w+)$/.exec(line);
    if (part !== null) return lines(`${part[1]}.part.lua`);
    const text = line.replace(/\s+--\s.*$|^\s*--.*$/, '').trimEnd();
    return text === '' ? [] : [text];
  });
}

function quote(line) {
  return `    "${line.replace(/[\\"]/g, '\\$&')}\\n"`;
}

function generate() {
  const names = fs.readdirSync(folder)
    .filter((file) => /^\w+\.lua$/.test(file))
    .map((file) => file.slice(0, -'.lua'.length))
    .sort();
  const scripts = names.map((name) => [
    `const char hf__redis_lua_${name}[] =`,
    `${lines(`${name}.lua`).map(quote).join('\n')};`,
  ].join('\n'));
  return [
    '/* Written by script/embed-lua.js from the files of csrc/store/redis: change those. */',
    '#include "store/redis-scripts.h"',
    '',
    '/* Longer than C99 says a compiler must take; those that we know do. */',
    '#pragma GCC diagnostic ignored "-Woverlength-strings"',
    '',
    '/* clang-format off */',
    scripts.join('\n\n'),
    '',
  ].join('\n');
}

const text = generate();
if (process.argv[2] !== '--check') {
  fs.writeFileSync(target, text);
} else if (!fs.existsSync(target) || fs.readFileSync(target, 'utf8') !== text) {
  console.error('csrc/store/redis-scripts.c is not what csrc/store/redis/*.lua say: run');
  console.error('node script/embed-lua.js');
  process.exit(1);
}
