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
//   node script/sources.js libpq-flags, libpq-defines, libpq
//                                     how files are compiled with libpq, and how it is linked; the
//                                     define says that it is not there

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const rooms = ['util', 'core', 'driver', 'store', 'prim', 'pg', 'api'];
const usesLibpq = /^csrc\/((driver|store)\/postgres(?!-absent)|pg\/)/;
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

function output(command, ...args) {
  const { status, stdout } = spawnSync(command, args, { encoding: 'utf8' });
  return status === 0 ? stdout.trim().split(/\s+/).filter(Boolean) : null;
}

/** Where libpq is, by pkg-config or its own tool; null if it is not there with its headers. */
function libpq() {
  const flags = output('pkg-config', '--cflags', 'libpq');
  const libraries = output('pkg-config', '--libs', 'libpq');
  if (flags && libraries) return { flags, libraries };
  const headers = output('pg_config', '--includedir')?.[0];
  if (headers === undefined || !fs.existsSync(path.join(headers, 'libpq-fe.h'))) return null;
  return { flags: [`-I${headers}`], libraries: [`-L${output('pg_config', '--libdir')}`, '-lpq'] };
}

/** What is compiled by the addon's own rules. */
function plain() {
  const left = libpq() ? usesOpenSsl : new RegExp(`${usesOpenSsl.source}|${usesLibpq.source}`);
  return core().filter((name) => !left.test(name));
}

const answers = {
  c: plain,
  cc: () => sources('csrc/binding', 'cc'),
  tls: () => core().filter((name) => usesOpenSsl.test(name)),
  deps: () => [deps()],
  hiredis: () => ['alloc', 'read', 'sds'].map((name) => `${deps()}/hiredis/${name}.c`),
  openssl,
  'libpq-flags': () => libpq()?.flags ?? [],
  'libpq-defines': () => (libpq() ? [] : ['HF_WITHOUT_LIBPQ']),
  libpq: () => libpq()?.libraries ?? [],
};

const kind = process.argv[2];
if (!Object.hasOwn(answers, kind)) {
  console.error(`usage: node script/sources.js ${Object.keys(answers).join('|')}`);
  process.exit(2);
}
for (const line of answers[kind]()) console.log(line);
