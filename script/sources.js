'use strict';

// Prints what binding.gyp is to compile and to link, one a line. The folders are the rooms of the
// layout; a room that has no file yet adds none. Nothing but Node is needed, since this also runs
// where the package is installed.
//
//   node script/sources.js c          the core, C, sorted
//   node script/sources.js cc         the binding, C++, sorted
//   node script/sources.js tls        the files of the core that use OpenSSL, sorted
//   node script/sources.js deps       the folder that holds hiredis/
//   node script/sources.js hiredis    the files of hiredis that its parser needs
//   node script/sources.js openssl    how OpenSSL is linked

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const rooms = ['util', 'core', 'driver', 'store', 'prim', 'pg', 'api'];
const usesOpenSsl = /^csrc\/driver\/redis\/tls[^/]*\.c$/;

/** The files below `folder` that end in `.extension`, relative to the root. */
function sources(folder, extension) {
  const absolute = path.join(root, folder);
  if (!fs.existsSync(absolute)) return [];
  return fs.readdirSync(absolute, { withFileTypes: true }).flatMap((entry) => {
    const name = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return sources(name, extension);
    return entry.name.endsWith(`.${extension}`) ? [name] : [];
  }).sort();
}

const core = () => sources('csrc', 'c').filter((name) => rooms.includes(name.split('/')[1]));

/** A package carries hiredis in deps/, put there by script/vendor.js; a clone has it from npm. */
function deps() {
  return fs.existsSync(path.join(root, 'deps/hiredis')) ? 'deps' : 'node_modules/hiredis-src/deps';
}

/**
 * OpenSSL's archives where the compiler finds them: then the addon has a copy of its own, which
 * neither Node's nor the system's can disturb. Else its shared libraries, in place of which Node
 * gives the addon the OpenSSL that it carries itself.
 */
function openssl() {
  const compiler = process.env.CC || 'cc';
  const found = ['libssl.a', 'libcrypto.a'].every((name) => {
    const { stdout } = spawnSync(`${compiler} -print-file-name=${name}`,
      { shell: true, encoding: 'utf8' });
    return path.isAbsolute((stdout ?? '').trim());
  });
  return found ? ['-l:libssl.a', '-l:libcrypto.a', '-ldl', '-pthread'] : ['-lssl', '-lcrypto'];
}

const answers = {
  c: () => core().filter((name) => !usesOpenSsl.test(name)),
  cc: () => sources('csrc/binding', 'cc'),
  tls: () => core().filter((name) => usesOpenSsl.test(name)),
  deps: () => [deps()],
  hiredis: () => ['alloc', 'read', 'sds'].map((name) => `${deps()}/hiredis/${name}.c`),
  openssl,
};

const kind = process.argv[2];
if (!Object.hasOwn(answers, kind)) {
  console.error(`usage: node script/sources.js ${Object.keys(answers).join('|')}`);
  process.exit(2);
}
for (const line of answers[kind]()) console.log(line);
