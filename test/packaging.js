'use strict';

// Packs the package as it would be published, installs the tarball into an empty folder with its
// install script allowed, and uses it there: by require, by import, from TypeScript in every module
// mode, and as a command. Prints each check and `N passed, N failed`.
//
// The install script compiles the addon, so this takes as long as a user's `npm i holdfast`.

const assert = require('node:assert');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { nodeDir } = require('../script/node-headers');

const root = path.join(__dirname, '..');
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-package-'));
const app = path.join(folder, 'app');
const installed = path.join(app, 'node_modules/holdfast');
const results = { passed: 0, failed: 0 };

// As a user's shell: nothing of the `npm test` that this runs in, such as its ignore-scripts.
const env = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^npm_|^NODE_ENV$|^HOLDFAST_/i.test(name)));
env.JOBS = '2';
const headers = nodeDir();
if (headers) env.npm_config_nodedir = headers;

/** Runs a command in `cwd` and returns its output; a failure carries all that it printed. */
function run(cwd, command, ...args) {
  try {
    return execFileSync(command, args, { cwd, env, encoding: 'utf8', stdio: 'pipe' });
  } catch (error) {
    throw new Error(`${path.basename(command)} ${args.join(' ')}\n${error.stdout}${error.stderr}`,
      { cause: error });
  }
}

function check(title, test) {
  try {
    test();
    results.passed += 1;
    console.log(`  ok      ${title}`);
  } catch (error) {
    results.failed += 1;
    console.log(`  FAILED  ${title}\n${error.message.replaceAll(/^/gm, '    ')}`);
  }
}

/** Compiles the consumer `file` in the app with `options`, as strictly as TypeScript can. */
function compile(file, ...options) {
  run(app, process.execPath, path.join(root, 'node_modules/typescript/bin/tsc'), '--noEmit',
    '--strict', '--target', 'es2022', '--types', 'node', ...options, file);
}

const consumer = `
import { open, Holdfast, type Lock, HoldfastError } from 'holdfast';
import { idempotency } from 'holdfast/express';
import { postgres, type AdvisoryLock } from 'holdfast/postgres';
import Redlock, { type ExecutionResult } from 'holdfast/redlock';

export const advisory = (): Promise<AdvisoryLock> => postgres('postgres://host/db').advisoryLock(1);
export const redlock: Redlock = new Redlock(['redis://127.0.0.1']);
export const released = async (): Promise<ExecutionResult> =>
  (await redlock.acquire(['key'], 1000)).release();

export async function use(): Promise<number | null> {
  const hf: Holdfast = await open('memory:');
  const lock: Lock = await hf.lock('key', { ttl: '5s' });
  const { fence } = lock;
  const broken: boolean = new Error() instanceof HoldfastError;
  // @ts-expect-error a key is a string
  void (() => hf.lock(1));
  await lock.release();
  return broken || typeof idempotency !== 'function' ? null : fence;
}
`;

const program = `
const hf = await open('memory:');
const lock = await hf.lock('key');
if (!lock.held || lock.fence < 1) throw new Error('not held');
if (!await lock.release()) throw new Error('not released');
await hf.close();
if (typeof idempotency !== 'function') throw new Error('no idempotency');
console.log('done');
`;

function packAndInstall() {
  const [{ filename, files, bundled }] = JSON.parse(
    run(root, 'npm', 'pack', '--json', '--ignore-scripts=false', '--pack-destination', folder));
  const names = files.map((file) => file.path);

  check('the tarball holds what is used, and no more', () => {
    const allowed = /^(lib|types|bin|csrc|docs|deps\/hiredis)\/|^node_modules\/(node-addon-api|node-gyp-build)\//;
    const single = ['package.json', 'binding.gyp', 'script/sources.js', 'README.md', 'LICENSE',
      'CHANGELOG.md', 'SECURITY.md'];
    const extra = names.filter((name) => !allowed.test(name) && !single.includes(name));
    assert.deepStrictEqual(extra, []);
    assert.deepStrictEqual(single.filter((name) => !names.includes(name)), []);
  });

  check('it holds of hiredis the parser and the licence, as npm brings them', () => {
    const packed = names.filter((name) => name.startsWith('deps/'));
    assert.deepStrictEqual(packed.map((name) => path.basename(name)).sort(), ['COPYING', 'alloc.c',
      'alloc.h', 'fmacros.h', 'read.c', 'read.h', 'sds.c', 'sds.h', 'sdsalloc.h', 'win32.h']);
    for (const name of packed) {
      const source = fs.readFileSync(path.join(root, 'node_modules/hiredis-src', name));
      assert.ok(fs.readFileSync(path.join(root, name)).equals(source), name);
    }
  });

  check('only the two build helpers are bundled', () => {
    assert.deepStrictEqual([...bundled].sort(), ['node-addon-api', 'node-gyp-build']);
  });

  check('it installs into an empty folder and builds', () => {
    fs.mkdirSync(app);
    fs.writeFileSync(path.join(app, 'package.json'), '{ "name": "app", "private": true }\n');
    run(app, 'npm', 'install', '--ignore-scripts=false', '--no-audit', '--no-fund',
      path.join(folder, filename));
    assert.ok(fs.existsSync(path.join(installed, 'build/Release/holdfast.node')));
  });

  check('the addon shows only its entry, and takes nothing from the OpenSSL of Node', () => {
    // Weak ones are the standard library's templates.
    const symbols = (which) => run(app, 'nm', '-D', which,
      path.join(installed, 'build/Release/holdfast.node'))
      .split('\n').filter((line) => !/ [wWvV] /.test(line)).map((line) => line.split(' ').at(-1));
    const shown = symbols('--defined-only').filter((name) => !/^$|^napi_register_module|^node_api_module/.test(name));
    assert.deepStrictEqual(shown, []);
    const taken = symbols('--undefined-only').filter((name) => !/^(napi|node_api|uv)_/.test(name));
    assert.deepStrictEqual(taken.filter((name) => /OPENSSL|SSL_|TLS_|X509|EVP_|BIO_|^redis|^sds/.test(name)), []);
  });
}

function useFromJavaScript() {
  check('require loads it', () => {
    const code = `const { open } = require('holdfast');
      const { idempotency } = require('holdfast/express');
      const { postgres, advisoryId } = require('holdfast/postgres');
      const Redlock = require('holdfast/redlock');
      if (typeof postgres !== 'function' || typeof advisoryId('a') !== 'bigint') throw new Error();
      if (Redlock.default !== Redlock) throw new Error('not one class');
      (async () => {${program}})();`;
    assert.strictEqual(run(app, process.execPath, '-e', code), 'done\n');
  });

  check('import { open } loads it', () => {
    const code = `import { open } from 'holdfast';
      import { idempotency } from 'holdfast/express';
      import { postgres } from 'holdfast/postgres';
      import Redlock, { ExecutionError } from 'holdfast/redlock';
      if (typeof postgres !== 'function') throw new Error('no postgres');
      if (new ExecutionError('', []) === new Redlock(['memory:'])) throw new Error('the same');
      ${program}`;
    const output = run(app, process.execPath, '--input-type=module', '-e', code);
    assert.strictEqual(output, 'done\n');
  });

  check('both see the same module', () => {
    const code = `import * as imported from 'holdfast'; import { createRequire } from 'node:module';
      const required = createRequire(import.meta.url)('holdfast');
      const names = Object.keys(required).filter((name) => imported[name] !== required[name]);
      console.log(JSON.stringify(names));`;
    fs.writeFileSync(path.join(app, 'same.mjs'), code);
    assert.strictEqual(run(app, process.execPath, 'same.mjs'), '[]\n');
  });

  check('its package.json can be required, its inside cannot', () => {
    const { version: wanted } = require('../package.json');
    const output = run(app, process.execPath, '-p', 'require("holdfast/package.json").version');
    assert.strictEqual(output.trim(), wanted);
    assert.throws(() => run(app, process.execPath, '-e', 'require("holdfast/lib/index.js")'),
      /ERR_PACKAGE_PATH_NOT_EXPORTED/);
  });

  check('the command runs', () => {
    assert.match(run(app, path.join(app, 'node_modules/.bin/holdfast'), '--help'), /Usage: holdfast[^]*prove/);
  });
}

function useFromTypeScript() {
  // The declarations that an application with TypeScript and Express has.
  fs.symlinkSync(path.join(root, 'node_modules/@types'), path.join(app, 'node_modules/@types'));
  for (const extension of ['cts', 'mts', 'ts']) {
    fs.writeFileSync(path.join(app, `use.${extension}`), consumer);
  }
  for (const mode of ['node16', 'nodenext']) {
    const options = ['--module', mode, '--moduleResolution', mode];
    check(`types resolve: ${mode}, CommonJS`, () => compile('use.cts', ...options));
    check(`types resolve: ${mode}, ESM`, () => compile('use.mts', ...options));
  }
  check('types resolve: bundler', () => {
    compile('use.ts', '--module', 'esnext', '--moduleResolution', 'bundler');
  });
}

/** As on a machine that has no libpq: the tools that would find it do not. */
function useWithoutLibpq() {
  const shims = path.join(folder, 'shims');
  fs.mkdirSync(shims);
  const shim = (name, text) =>
    fs.writeFileSync(path.join(shims, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  shim('pg_config', 'exit 1');
  shim('pkg-config', `case "$*" in *libpq*) exit 1 ;; esac
PATH=\${PATH#*:} exec pkg-config "$@"`);
  env.PATH = `${shims}:${env.PATH}`;

  check('without libpq it builds, and a postgres: URL says what to install', () => {
    run(app, 'npm', 'rebuild', '--ignore-scripts=false', '--build-from-source', 'holdfast');
    const libraries = run(app, 'ldd', path.join(installed, 'build/Release/holdfast.node'));
    assert.doesNotMatch(libraries, /libpq/);
    const code = `const { open } = require('holdfast');
      const { postgres } = require('holdfast/postgres');
      (async () => {
        for (const use of [open, postgres]) {
          let said;
          try {
            await use('postgres://host/db');
          } catch (error) {
            said = error;
          }
          if (said?.code !== 'HF_ENOTSUP' || !/libpq-dev/.test(said.message)) throw said ?? use;
        }
        const hf = await open('memory:');
        await hf.close();
        console.log('done');
      })();`;
    assert.strictEqual(run(app, process.execPath, '-e', code), 'done\n');
  });
}

try {
  check('the lock file names no registry', () => {
    const lock = fs.readFileSync(path.join(root, 'package-lock.json'), 'utf8');
    assert.doesNotMatch(lock, /"resolved": "https?:/);
  });
  packAndInstall();
  useFromJavaScript();
  useFromTypeScript();
  useWithoutLibpq();
} finally {
  fs.rmSync(folder, { recursive: true, force: true });
  console.log(`${results.passed} passed, ${results.failed} failed`);
  process.exitCode = results.failed > 0 ? 1 : 0;
}
