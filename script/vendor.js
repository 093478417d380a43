'use strict';

// Copies into deps/ what the addon compiles of others' sources, with its licence, so that a package
// made by `npm pack` builds where it is installed. deps/ is no part of the repository. script/build
// runs this as well as npm does (prepack), which .npmrc may keep from running anything.

const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const from = path.join(root, 'node_modules/hiredis-src/deps/hiredis');
const to = path.join(root, 'deps/hiredis');

// The parser and what it includes.
const files = ['COPYING', 'alloc.c', 'alloc.h', 'fmacros.h', 'read.c', 'read.h', 'sds.c', 'sds.h',
  'sdsalloc.h', 'win32.h'];

fs.mkdirSync(to, { recursive: true });
for (const name of fs.readdirSync(to)) {
  if (!files.includes(name)) fs.rmSync(path.join(to, name), { recursive: true });
}
for (const name of files) {
  const source = fs.readFileSync(path.join(from, name));
  const copy = path.join(to, name);
  // A file that is the same stays as old as it is, and nothing is compiled again for it.
  if (fs.existsSync(copy) && fs.readFileSync(copy).equals(source)) continue;
  fs.writeFileSync(copy, source);
}
