'use strict';

// The documentation does what it says. In Markdown, a comment before a block or table says what it
// is held to:
//
//   <!-- run -->                   the program below runs, and prints what a comment behind a
//                                  console.log says
//   <!-- from examples/x.js -->    the lines below are lines of that example
//   <!-- prints examples/x.js -->  the lines below are lines that the example prints
//   <!-- options X -->             the table names the members of X
//   <!-- codes -->, <!-- classes -->, <!-- events CHANNEL -->   likewise, of errors and telemetry
//
// A link to a test carries the test's title: [words](test/x.test.js "title").

const assert = require('node:assert/strict');
const { execFile, spawn } = require('node:child_process');
const diagnostics = require('node:diagnostics_channel');
const { once } = require('node:events');
const fs = require('node:fs');
const path = require('node:path');
const { promisify } = require('node:util');
const ts = require('typescript');
const holdfast = require('..');
const postgres = require('../lib/postgres');
const { codes } = require('../lib/binding');
const { start, endChildren, until, useFolder } = require('./helpers');
const { startQuorum, startServer, stopAll } = require('./redis-servers');

const run = promisify(execFile);
const root = path.join(__dirname, '..');
const read = (name) => fs.readFileSync(path.join(root, name), 'utf8');

const pages = ['README.md', ...fs.readdirSync(path.join(root, 'docs'))
  .filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`)];
// Pages whose programs and tables are marked; the others are held to their links and syntax only.
const examples = ['locks', 'once', 'values'].map((name) => `examples/${name}.js`);

/** The marked blocks of all pages: { page, mark, argument, body }, where a body is its lines. */
function marked(wanted) {
  const form = /^<!-- (\w+)(?: (.+?))? -->\n((?:```[\s\S]*?^```)|(?:\|.*\n)+)/gm;
  return pages.flatMap((page) => [...read(page).matchAll(form)]
    .map(([, mark, argument, body]) => ({ page, mark, argument, body: body.trim().split('\n') }))
    .filter(({ mark }) => mark === wanted));
}

/** The lines within a fence. */
const inner = ({ body }) => body.slice(1, -1);

/** The first column of a table: what stands there as code, one name or several. */
function firstColumn({ body }) {
  return body.slice(2).flatMap((row) => {
    const [first] = /^\| (?:`[^`]+`(?:, )?)+/.exec(row) ?? [];
    return first?.match(/`[^`]+`/g).map((name) => /^`'?([\w.]+)'?`$/.exec(name)?.[1] ?? row) ?? row;
  });
}

const withoutIndent = (lines) => lines.map((line) => line.trim()).filter((line) => line !== '');

/** Whether `lines` stand together in `text`, however far they are indented. */
function assertTogether(text, lines, where) {
  const all = withoutIndent(text.split('\n')).join('\n');
  const part = withoutIndent(lines).join('\n');
  assert.ok(part.length > 0, `${where}: an empty block`);
  assert.ok(`\n${all}\n`.includes(`\n${part}\n`), `${where}: not there any more:\n${part}`);
}

/** The declarations of the package, as TypeScript reads them. */
function declarations() {
  const files = ['types/index.d.ts', 'types/postgres.d.ts']
    .map((name) => ts.createSourceFile(name, read(name), ts.ScriptTarget.Latest));
  return new Map(files.flatMap(({ statements }) => [...statements])
    .filter((each) => ts.isInterfaceDeclaration(each) || ts.isTypeAliasDeclaration(each))
    .map((each) => [each.name.text, each]));
}

/** The names of all members that a type may have. */
function memberNames(type, known) {
  if (type.members) return type.members.map((member) => member.name.text).sort();
  if (type.typeName) return memberNames(known.get(type.typeName.text), known);
  const parts = type.types ?? [type.type];
  return [...new Set(parts.flatMap((part) => memberNames(part, known)))].sort();
}

describe('examples', function () {
  this.timeout(60000);
  endChildren();
  const folder = useFolder();
  const printed = new Map();

  async function outputOf(example) {
    if (!printed.has(example)) {
      const { stdout, stderr } = await run(process.execPath, [path.join(root, example)]);
      assert.equal(stderr, '');
      printed.set(example, stdout);
    }
    return printed.get(example);
  }

  for (const example of examples) {
    it(`${example} runs, and prints what the documentation says`, async () => {
      const output = await outputOf(example);
      const blocks = marked('prints').filter(({ argument }) => argument === example);
      assert.ok(blocks.length > 0, 'no page shows what it prints');
      for (const block of blocks) assertTogether(output, inner(block), block.page);
    });
  }

  // Those of postgres in test/postgres-examples.test.js.
  const withServers = ['express', 'postgres-drizzle', 'postgres-pg', 'quorum', 'redis', 'redlock']
    .map((name) => `examples/${name}.js`);

  it('are all run here', () => {
    const there = fs.readdirSync(path.join(root, 'examples')).filter((name) => /\.js$/.test(name));
    assert.deepEqual(there.map((name) => `examples/${name}`).sort(),
      [...examples, ...withServers].sort());
  });

  it('examples/redis.js refuses who comes too late', async () => {
    const server = await startServer();
    try {
      const { stdout } = await run(process.execPath, [path.join(root, 'examples/redis.js')], {
        env: { ...process.env, HOLDFAST_URL: server.url() },
      });
      assert.equal(stdout, 'sells 10: true\nsells 5, too late: false\nleft: 30\n');
    } finally {
      await stopAll();
    }
  });

  it('examples/quorum.js writes under a lock over three nodes', async () => {
    const quorum = await startQuorum();
    try {
      const nodes = quorum.servers.map((server) => server.url());
      const program = path.join(root, 'examples/quorum.js');
      const { stdout } = await run(process.execPath, [program, ...nodes]);
      assert.equal(stdout, 'written: true\nnodes that vote: 3\n');
    } finally {
      await stopAll();
    }
  });

  it('examples/express.js answers a repetition with the first answer', async () => {
    const shop = spawn(process.execPath, [path.join(root, 'examples/express.js')], {
      env: { ...process.env, PORT: '0', HOLDFAST_URL: `sqlite:${folder.path}/shop.db` },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      let said = '';
      shop.stdout.setEncoding('utf8').on('data', (text) => { said += text; });
      const port = await until(() => /port (\d+)/.exec(said)?.[1], 'the shop listens');
      const buy = () => fetch(`http://127.0.0.1:${port}/checkout`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'idempotency-key': 'order-7' },
        body: '{"cents":990}',
      });
      const first = await buy();
      const second = await buy();
      assert.equal(first.status, 201);
      assert.equal(await second.text(), await first.text());
      assert.equal(second.headers.get('idempotent-replayed'), 'true');
      const ended = once(shop, 'exit');
      shop.kill('SIGTERM');
      assert.deepEqual(await ended, [0, null]);
    } finally {
      shop.kill('SIGKILL');
    }
  });

  it('what pages show of them stands in them', () => {
    const blocks = marked('from');
    assert.ok(blocks.length > 0);
    for (const block of blocks) assertTogether(read(block.argument), inner(block), block.page);
  });

  it('programs that are marked run in an empty folder', async () => {
    const blocks = marked('run');
    assert.ok(blocks.some(({ page }) => page === 'README.md'));
    fs.mkdirSync(path.join(folder.path, 'node_modules'));
    fs.symlinkSync(root, path.join(folder.path, 'node_modules/holdfast'));
    for (const block of blocks) {
      const file = path.join(folder.path, 'program.mjs');
      fs.writeFileSync(file, inner(block).join('\n'));
      const { stdout, stderr } = await run(process.execPath, [file], { cwd: folder.path });
      assert.equal(stderr, '', block.page);
      const said = inner(block).map((line) => /console\.log\(.*\); \/\/ (.*)/.exec(line)?.[1]);
      assert.deepEqual(stdout.trim().split('\n'), said.filter((line) => line !== undefined));
    }
  });
});

describe('pages', () => {
  it('link to files, headings and tests that are there', () => {
    for (const page of pages) {
      const text = read(page).replaceAll(/^```[\s\S]*?^```/gm, '');
      for (const [, target, title] of text.matchAll(/\]\(([^)\s]+)(?: "([^"]*)")?\)/g)) {
        if (!/^https?:/.test(target)) checkLink(page, target, title);
      }
    }
  });

  function anchorsOf(text) {
    return [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading]) => heading.toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '').trim().replaceAll(' ', '-'));
  }

  function checkLink(page, target, title) {
    const [name, anchor] = target.split('#');
    const file = name === '' ? page : path.join(path.dirname(page), name);
    assert.ok(fs.existsSync(path.join(root, file)), `${page}: there is no ${file}`);
    if (anchor !== undefined) {
      assert.ok(anchorsOf(read(file)).includes(anchor), `${page}: ${file} has no #${anchor}`);
    }
    if (title !== undefined) {
      const titles = read(file).replaceAll('\\\'', '\'');
      assert.ok(titles.includes(title), `${page}: ${file} has no test "${title}"`);
    } else {
      assert.ok(!/(^|\/)test\//.test(file), `${page}: which test of ${file}?`);
    }
  }

  it('show JavaScript that can be read', () => {
    for (const page of pages) {
      for (const [, code] of read(page).matchAll(/^```js\n([\s\S]*?)^```/gm)) {
        const { diagnostics: found } = ts.transpileModule(code, {
          reportDiagnostics: true,
          fileName: 'block.mjs',
          compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ESNext },
        });
        assert.deepEqual(found.map(({ messageText }) => messageText), [], `${page}:\n${code}`);
      }
    }
  });

  it('call methods that exist', () => {
    const hf = new holdfast.Holdfast('memory:');
    for (const page of pages) {
      const text = read(page);
      for (const [call, kv, name] of text.matchAll(/\bhf\.(kv\.)?(\w+)\(/g)) {
        assert.equal(typeof (kv ? hf.kv : hf)[name], 'function', `${page}: ${call}`);
      }
    }
    return hf.close();
  });

  it('call methods of holdfast/postgres that exist', () => {
    for (const page of pages.filter((name) => name.startsWith('docs/postgres-'))) {
      for (const [call, on, name] of read(page).matchAll(/\b(pg|tx)\.(\w+)\(/g)) {
        const Class = on === 'pg' ? postgres.Postgres : postgres.Transaction;
        assert.equal(typeof Class.prototype[name], 'function', `${page}: ${call}`);
      }
    }
  });

  const known = declarations();
  for (const table of marked('options')) {
    it(`${table.page} names the options of ${table.argument}`, () => {
      assert.deepEqual(firstColumn(table).sort(), memberNames(known.get(table.argument), known));
    });
  }

  it('tables of options stand for all interfaces of options', () => {
    const documented = new Set(marked('options').map(({ argument }) => argument));
    const elsewhere = new Set(['CloseOptions', 'IdempotentOptions', 'TryLockOptions',
      'AdvisoryLockOptions', 'TryAdvisoryLockOptions']);
    for (const name of known.keys()) {
      if (!name.endsWith('Options') || elsewhere.has(name)) continue;
      assert.ok(documented.has(name), `no table for ${name}`);
    }
  });

  it('docs/errors.md lists every code', () => {
    const listed = marked('codes').flatMap(firstColumn).sort();
    assert.deepEqual(listed, Object.keys(codes).sort());
  });

  it('docs/errors.md lists every class with its code', () => {
    const [table] = marked('classes');
    const listed = firstColumn(table);
    const classes = Object.keys(holdfast).filter((name) => /Error$/.test(name));
    assert.deepEqual([...listed, 'HoldfastError'].sort(), classes.sort());
    for (const row of table.body.slice(2)) {
      const [, name, code] = /^\| `(\w+)` \| `(\w+)` \|/.exec(row);
      assert.equal(new holdfast[name]().code, code);
    }
  });
});

describe('telemetry, as docs/telemetry.md has it', () => {
  const types = {
    'holdfast:lock': 'LockMessage',
    'holdfast:once': 'OnceMessage',
    'holdfast:kv': 'KVMessage',
    'holdfast:store': 'StoreMessage',
    'holdfast:quorum': 'QuorumMessage',
  };
  const common = {
    'holdfast:lock': ['event', 'key', 'keys', 'note'],
    'holdfast:once': ['event', 'key'],
    'holdfast:kv': ['event', 'key', 'took'],
    'holdfast:store': ['event'],
    'holdfast:quorum': ['event'],
  };
  const tables = new Map(marked('events').map((table) => [table.argument, table]));

  it('lists the events that the types name', () => {
    const known = declarations();
    assert.deepEqual([...tables.keys()].sort(), Object.keys(types).sort());
    for (const [channel, table] of tables) {
      const member = known.get(types[channel]).members.find(({ name }) => name.text === 'event');
      const events = (member.type.types ?? [member.type]).map((each) => each.literal.text);
      assert.deepEqual(firstColumn(table).sort(), events.sort(), channel);
    }
  });

  it('and each message has the members that are listed', async () => {
    const heard = [];
    const listeners = Object.keys(types).map((channel) => {
      const listener = (message) => heard.push([channel, message]);
      diagnostics.subscribe(channel, listener);
      return [channel, listener];
    });
    try {
      await doEverything((channel, event) =>
        until(() => heard.some(([name, message]) => name === channel && message.event === event),
          `${channel} tells ${event}`));
    } finally {
      for (const [channel, listener] of listeners) diagnostics.unsubscribe(channel, listener);
    }
    for (const [channel, message] of heard) checkMessage(channel, message);
    for (const [channel, table] of tables) {
      const told = new Set(heard.filter(([name]) => name === channel).map(([, m]) => m.event));
      const wanted = firstColumn(table).filter((event) => event !== 'warning');
      assert.deepEqual([...told].sort(), wanted.sort(), channel);
    }
  });

  function checkMessage(channel, message) {
    const row = tables.get(channel).body.find((each) => each.startsWith(`| \`${message.event}\``));
    const more = [...row.split('|')[3].matchAll(/`(\w+)`/g)].map(([, name]) => name);
    const allowed = [...common[channel], ...more, ...(channel === 'holdfast:kv' ? ['error'] : [])];
    const optional = new Set(['error']);
    const names = Object.keys(message);
    for (const name of names) assert.ok(allowed.includes(name), `${channel} ${row}: ${name}`);
    for (const name of allowed) {
      assert.ok(names.includes(name) || optional.has(name), `${channel} ${row}: no ${name}`);
    }
  }

  async function doEverything(told) {
    const hf = await holdfast.open('memory:');
    const held = await hf.lock('a', { ttl: '150ms' });
    await told('holdfast:lock', 'renewed');
    await held.release();
    await hf.lock('b', { ttl: '50ms', renew: false });
    await told('holdfast:lock', 'lost');

    await hf.once('o', { lease: '150ms' }, () => told('holdfast:once', 'renewed'));
    await hf.once('o', () => 2);
    await hf.once('t', () => { throw new Error('thrown'); }).catch(() => {});
    await hf.once('f', { fingerprint: 'a' }, () => 1);
    await hf.once('f', { fingerprint: 'b' }, () => 1).catch(() => {});
    await hf.once('l', { lease: '150ms' }, async (run_) => {
      await hf.forget('l');
      if (!run_.signal.aborted) await once(run_.signal, 'abort');
    }).catch(() => {});

    await hf.kv.create('k', 1);
    await hf.kv.create('k', 1).catch(() => {});
    await hf.kv.put('k', 2);
    await hf.kv.update('k', (n) => n + 1);
    await hf.kv.increment('k');
    await hf.kv.delete('k');
    await hf.close();

    const quorum = await startQuorum();
    try {
      const locks = await holdfast.open(quorum.url());
      await told('holdfast:quorum', 'node');
      await locks.close();
    } finally {
      await stopAll();
    }
  }
});

// What the command sqlite3 does, which fewer machines have.
const shell = `
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as db: db.execute(sys.argv[2])
`;

describe('docs/sqlite.md', function () {
  this.timeout(30000);
  endChildren();
  const folder = useFolder();
  const takeFence = async (file) => {
    const hf = await holdfast.open(`sqlite:${file}`);
    const fence = await hf.withLock('k', (lock) => lock.fence);
    await hf.close();
    return fence;
  };

  it('an older copy that is put back as docs/sqlite.md says has greater fences', async () => {
    const file = path.join(folder.path, 'restored.db');
    const [, sql] = /"(UPDATE meta [^"]+)"/.exec(read('docs/sqlite.md'));
    await takeFence(file);
    fs.copyFileSync(file, `${file}.old`);
    const newest = [await takeFence(file), await takeFence(file)].at(-1);

    fs.copyFileSync(`${file}.old`, file);
    assert.ok(await takeFence(file) <= newest, 'the copy alone rewinds: else this shows nothing');
    fs.copyFileSync(`${file}.old`, file);
    await run('python3', ['-c', shell, file, sql]);
    assert.ok(await takeFence(file) > newest);
  });

  it('a file that is opened beside the store loses its log, which is noticed', async () => {
    const file = path.join(folder.path, 'beside.db');
    const hf = await holdfast.open(`sqlite:${file}`);
    const warnings = [];
    hf.on('error', (error) => warnings.push(error.code));
    await hf.kv.put('a', 1);

    // What a copy of SQLite does in the end, or fs.copyFile: with it go this process's file locks.
    fs.closeSync(fs.openSync(file));
    const other = start(`
      const hf = await holdfast.open();
      await hf.kv.put('b', 2);
      await hf.close();
    `, `sqlite:${file}`);
    assert.deepEqual(await other.ended, { code: 0, signal: null });
    assert.equal(fs.existsSync(`${file}-wal`), false, 'the other thought that it was alone');

    await hf.kv.put('c', 3);
    assert.deepEqual(warnings, ['HF_EMOVED']);
    const values = await Promise.all(['a', 'b', 'c'].map((key) => hf.kv.get(key)));
    assert.deepEqual(values.map(({ value }) => value), [1, 2, 3]);
    await hf.close();
  });
});
