'use strict';

// Where the headers of this very Node are installed, as node-gyp's --nodedir wants it: most
// distributions of Node bring them beside the program. Prints nothing where they are missing or of
// another version; node-gyp then downloads them.
//
//   node script/node-headers.js        prints the folder
//   node script/node-headers.js gyp    prints it as an option of node-gyp

const fs = require('node:fs');
const path = require('node:path');

/** The folder whose include/node holds the headers of the running Node, or null. */
function nodeDir() {
  const folder = path.dirname(path.dirname(fs.realpathSync(process.execPath)));
  const header = path.join(folder, 'include/node/node_version.h');
  if (!fs.existsSync(header)) return null;
  const text = fs.readFileSync(header, 'utf8');
  const number = (name) => new RegExp(`#define NODE_${name}_VERSION (\\d+)`).exec(text)?.[1];
  const version = ['MAJOR', 'MINOR', 'PATCH'].map(number).join('.');
  return version === process.versions.node ? folder : null;
}

module.exports = { nodeDir };

if (require.main === module) {
  const folder = nodeDir();
  if (folder) console.log(process.argv[2] === 'gyp' ? `--nodedir=${folder}` : folder);
}
