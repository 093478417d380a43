'use strict';

// Fails on an #include that crosses the layers of csrc/. A room includes from itself, from the
// rooms it names below and from what those name; the libraries of a room are for it and for the
// rooms above it, but a client library stays with the driver and the store of its own name.
//
//   node script/check-layers.js               checks csrc/ and examples/
//   node script/check-layers.js --self-test   shows that each rule catches what it forbids

const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const LIBC = 'libc';
const CXX = 'the C++ library';

// What each room may include: `rooms` are prefixes of paths below csrc/.
const layers = {
  include: { rooms: [], libraries: [LIBC] },
  util: { rooms: ['util/'], libraries: [LIBC] },
  core: { rooms: ['core/', 'util/'], libraries: [LIBC, 'libuv'] },
  driver: { rooms: ['driver/', 'core/', 'util/'], libraries: [LIBC, 'libuv'] },
  store: { rooms: ['store/', 'driver/', 'core/', 'util/'], libraries: [LIBC, 'libuv'] },
  prim: { rooms: ['prim/', 'core/', 'util/'], libraries: [LIBC, 'libuv'] },
  pg: { rooms: ['pg/', 'driver/', 'core/', 'util/'], libraries: [LIBC, 'libuv', 'libpq'] },
  api: {
    rooms: ['api/', 'prim/', 'pg/', 'store/registry.h', 'core/', 'util/'],
    libraries: [LIBC, 'libuv'],
  },
  binding: { rooms: ['binding/'], libraries: [LIBC, CXX, 'libuv', 'Node-API'] },
  examples: { rooms: [], libraries: [LIBC, 'libuv'] },
};

// Client libraries, and the files of driver/ and store/ that may use them.
const clients = {
  SQLite: /^csrc\/(driver|store)\/sqlite/,
  hiredis: /^csrc\/driver\/redis\//,
  libpq: /^csrc\/(driver|store)\/postgres/,
  // binding.gyp compiles these files apart from the others, to keep Node's OpenSSL from them.
  OpenSSL: /^csrc\/driver\/redis\/tls[^/]*\.c$/,
};

const headers = [
  { library: 'libuv', pattern: /^uv(\/[\w-]+)?\.h$/ },
  { library: 'Node-API', pattern: /^(napi|node_api|js_native_api)\.h$/ },
  { library: 'SQLite', pattern: /^sqlite3(ext)?\.h$/ },
  // Only its parser is compiled.
  { library: 'hiredis', pattern: /^hiredis\/(alloc|read|sds)\.h$/ },
  { library: 'libpq', pattern: /^(libpq-fe|libpq\/[\w-]+|postgres_ext)\.h$/ },
  { library: 'OpenSSL', pattern: /^openssl\// },
  { library: CXX, pattern: /^[a-z_]+$/ },
  { library: LIBC, pattern: /^(sys|linux|net|netinet|arpa|bits|asm)\/[\w-]+\.h$/ },
  {
    library: LIBC,
    pattern: new RegExp(`^(${[
      'assert', 'complex', 'ctype', 'errno', 'fenv', 'float', 'inttypes', 'iso646', 'limits',
      'locale', 'math', 'setjmp', 'signal', 'stdalign', 'stdarg', 'stdatomic', 'stdbool',
      'stddef', 'stdint', 'stdio', 'stdlib', 'stdnoreturn', 'string', 'strings', 'tgmath',
      'threads', 'time', 'uchar', 'wchar', 'wctype', 'dirent', 'dlfcn', 'endian', 'byteswap',
      'fcntl', 'fnmatch', 'ftw', 'getopt', 'glob', 'grp', 'ifaddrs', 'libgen', 'link', 'mntent',
      'netdb', 'paths', 'poll', 'pthread', 'pwd', 'regex', 'sched', 'search', 'semaphore',
      'spawn', 'sysexits', 'syslog', 'termios', 'unistd', 'utime', 'malloc', 'execinfo',
    ].join('|')})\\.h$`),
  },
];

/** The library of the header `name` in angle brackets, or undefined. */
function libraryOf(name) {
  return headers.find(({ pattern }) => pattern.test(name))?.library;
}

/**
 * Why `file` (a path from the root, such as csrc/core/op.c) may not include what `spelled` says
 * (with its brackets or quotes), or null where it may.
 */
function violation(file, spelled, exists = (name) => fs.existsSync(path.join(root, name))) {
  const layer = file.startsWith('csrc/') ? file.split('/')[1] : file.split('/')[0];
  const rules = layers[layer];
  if (!rules) return `${layer}/ is not a room of the layout`;
  const name = spelled.slice(1, -1);

  if (spelled.startsWith('<')) {
    const library = libraryOf(name);
    if (!library) return `<${name}> belongs to no library that script/check-layers.js knows`;
    if (rules.libraries.includes(library)) return null;
    if (Object.hasOwn(clients, library) && clients[library].test(file)) return null;
    return `${layer}/ may use ${rules.libraries.join(', ')}; <${name}> is ${library}`;
  }

  if (name === 'holdfast.h') return null;
  if (!exists(`csrc/${name}`)) {
    return `"${name}" is not a path below csrc/: write "room/file.h", or "holdfast.h"`;
  }
  if (rules.rooms.some((room) => name.startsWith(room))) return null;
  return `${layer}/ may include from ${rules.rooms.join(', ') || 'no room'}${
    rules.rooms.length > 0 ? ' and ' : ' but '}holdfast.h; not "${name}"`;
}

/** The C and C++ files below `folder`, as paths from the root. */
function filesOf(folder) {
  const absolute = path.join(root, folder);
  if (!fs.existsSync(absolute)) return [];
  return fs.readdirSync(absolute, { withFileTypes: true }).flatMap((entry) => {
    const name = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return filesOf(name);
    return /\.(c|h|cc)$/.test(entry.name) ? [name] : [];
  }).sort();
}

/** Checks every include of every file; prints what is wrong and returns the number of it. */
function checkTree() {
  let wrong = 0;
  const files = [...filesOf('csrc'), ...filesOf('examples')];
  for (const file of files) {
    const lines = fs.readFileSync(path.join(root, file), 'utf8').split('\n');
    lines.forEach((line, index) => {
      const match = /^\s*#\s*include\s*(<[^>]*>|"[^"]*")/.exec(line);
      const why = match && violation(file, match[1]);
      if (!why) return;
      wrong += 1;
      console.log(`${file}:${index + 1}: ${why}`);
    });
  }
  if (wrong === 0) console.log(`${files.length} files keep to their layers`);
  return wrong;
}

/** One allowed and one forbidden include or more for every room and every rule. */
function selfTest() {
  const allowed = [
    ['csrc/include/holdfast.h', '<stdint.h>'],
    ['csrc/util/list.c', '"util/list.h"'],
    ['csrc/util/clock.c', '<time.h>'],
    ['csrc/core/engine.c', '<uv.h>'],
    ['csrc/core/engine.c', '"util/list.h"'],
    ['csrc/core/error.c', '"holdfast.h"'],
    ['csrc/driver/sqlite.c', '<sqlite3.h>'],
    ['csrc/driver/sqlite/vfs.c', '<sqlite3.h>'],
    ['csrc/driver/redis/reply.c', '<hiredis/read.h>'],
    ['csrc/driver/redis/tls.c', '<openssl/ssl.h>'],
    ['csrc/driver/redis/tls-verify.c', '<openssl/x509.h>'],
    ['csrc/store/sqlite.c', '"driver/sqlite.h"'],
    ['csrc/store/redis/takes.c', '"driver/redis/redis.h"'],
    ['csrc/prim/lock.c', '"core/store.h"'],
    ['csrc/pg/listen.c', '"driver/postgres.h"'],
    ['csrc/api/open.c', '"store/registry.h"'],
    ['csrc/binding/lock.cc', '<napi.h>'],
    ['csrc/binding/lock.cc', '<memory>'],
    ['examples/lock.c', '<uv.h>'],
  ];
  const forbidden = [
    ['csrc/include/holdfast.h', '<uv.h>'],
    ['csrc/include/holdfast.h', '"core/op.h"'],
    ['csrc/util/list.c', '<uv.h>'],
    ['csrc/util/list.c', '"core/op.h"'],
    ['csrc/core/engine.c', '<sqlite3.h>'],
    ['csrc/core/engine.c', '"prim/lock.h"'],
    ['csrc/core/engine.c', '"store/registry.h"'],
    ['csrc/driver/sqlite.c', '"store/sqlite.h"'],
    ['csrc/driver/redis.c', '<sqlite3.h>'],
    ['csrc/driver/sqlite.c', '<hiredis/read.h>'],
    ['csrc/driver/redis/reply.c', '<hiredis/async.h>'],
    ['csrc/driver/redis/reply.c', '<read.h>'],
    ['csrc/driver/redis/conn.c', '<openssl/ssl.h>'],
    ['csrc/driver/redis/tls.h', '<openssl/ssl.h>'],
    ['csrc/driver/postgres/tls.c', '<openssl/ssl.h>'],
    ['csrc/store/redis.c', '<hiredis/read.h>'],
    ['csrc/store/redis.c', '<openssl/ssl.h>'],
    ['csrc/store/memory.c', '<sqlite3.h>'],
    ['csrc/store/sqlite.c', '"prim/lock.h"'],
    ['csrc/prim/lock.c', '"store/sqlite.h"'],
    ['csrc/prim/lock.c', '"driver/sqlite.h"'],
    ['csrc/prim/lock.c', '<sqlite3.h>'],
    ['csrc/pg/listen.c', '"prim/lock.h"'],
    ['csrc/api/open.c', '"store/sqlite.h"'],
    ['csrc/api/open.c', '"driver/sqlite.h"'],
    ['csrc/binding/lock.cc', '"core/op.h"'],
    ['csrc/binding/lock.cc', '<sqlite3.h>'],
    ['csrc/core/op.c', '<memory>'],
    ['csrc/core/op.c', '<curl/curl.h>'],
    ['csrc/elsewhere/op.c', '<stdio.h>'],
    ['examples/lock.c', '"core/op.h"'],
    ['examples/lock.c', '<sqlite3.h>'],
  ];
  const everywhere = () => true;
  for (const [file, include] of allowed) {
    assert.strictEqual(violation(file, include, everywhere), null, `${file}: ${include}`);
  }
  for (const [file, include] of forbidden) {
    assert.ok(violation(file, include, everywhere), `${file} may include ${include}, and must not`);
  }
  assert.match(violation('csrc/core/op.c', '"op.h"', () => false), /not a path below csrc/);
  console.log(`${allowed.length + forbidden.length + 1} includes judged as they should be`);
}

if (process.argv.includes('--self-test')) selfTest();
else process.exitCode = checkTree() > 0 ? 1 : 0;
