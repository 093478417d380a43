'use strict';

// Prints the sources of the addon for binding.gyp, one a line and sorted. The folders are the rooms
// of the layout; a room that has no file yet adds none. Nothing but Node is needed, since this also
// runs where the package is installed.
//
//   node script/sources.js c     the core, C
//   node script/sources.js cc    the binding, C++

const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const rooms = {
  c: ['util', 'core', 'driver', 'store', 'prim', 'pg', 'api'],
  cc: ['binding'],
};

/** The files below `folder` that end in `.extension`, relative to the root. */
function sources(folder, extension) {
  const absolute = path.join(root, folder);
  if (!fs.existsSync(absolute)) return [];
  return fs.readdirSync(absolute, { withFileTypes: true }).flatMap((entry) => {
    const name = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return sources(name, extension);
    return entry.name.endsWith(`.${extension}`) ? [name] : [];
  });
}

const kind = process.argv[2];
if (!Object.hasOwn(rooms, kind)) {
  console.error('usage: node script/sources.js c|cc');
  process.exit(2);
}
const found = rooms[kind].flatMap((room) => sources(`csrc/${room}`, kind)).sort();
for (const name of found) console.log(name);
