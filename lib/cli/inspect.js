'use strict';

const { EXIT, UsageError } = require('./exit');
const { holderOf, modeOf, plain, seconds, whoOf } = require('./show');
const { DEFAULT_URL, asUsage, sharedUrlOf, shown, withStore } = require('./store');

const help = `Usage: holdfast inspect KEY [options]

Shows what the store knows of a key: who holds its lock and for how long, what became of the
operation that runs once under it, and whether there is a value. Locks, operations and values have
separate namespaces, so one key can be all three. Contents are never shown. Of a quorum, which has
locks alone, it shows how its nodes stand.

Arguments
  KEY           the key; after -- if it begins with a dash

Options
  --url URL     the store; else HOLDFAST_URL, else ${DEFAULT_URL}
  --json        print { "store", "key", "lock", "record", "value" }; null for what there is not;
                of a quorum also "nodes"
  -h, --help    show this

Exits 0 also when nothing is known of the key.

Examples
  holdfast inspect invoices/2026-03
  holdfast inspect --json --url sqlite:/var/lib/shop/holdfast.db nightly`;

function size(bytes) {
  return `${bytes} byte${bytes === 1 ? '' : 's'}`;
}

function typeOf(value) {
  if (Buffer.isBuffer(value)) return { type: 'bytes', bytes: value.length };
  return { type: 'json', bytes: Buffer.byteLength(JSON.stringify(value) ?? '') };
}

/** What kind of value it is, and how large; never what it says. */
function valueOf({ value, version }) {
  return { version, ...typeOf(value) };
}

/** What became of an operation: 'running', 'crashed', 'done', or 'failed' if it keeps an error. */
function recordOf({ state, attempt, leaseLeft, storedAt, expiresAt, value, error }) {
  const about = { state: error === undefined ? state : 'failed', attempt, storedAt, expiresAt };
  if (state === 'running') return { ...about, leaseLeft };
  return state === 'done' && error === undefined ? { ...about, ...typeOf(value) } : about;
}

async function look(hf, key) {
  // A quorum has locks, and nothing else.
  const nodes = hf.nodes();
  const isQuorum = nodes.length > 0;
  const [lock, record, value] = await Promise.all([
    hf.inspect(key), isQuorum ? null : hf.record(key), isQuorum ? null : hf.kv.get(key),
  ]);
  return {
    lock: lock && { holders: lock.holders.map(holderOf) },
    record: record && recordOf(record),
    value: value && valueOf(value),
    ...(isQuorum ? { nodes } : {}),
  };
}

/** Lines of a section: its name and what it is about, then its details in columns. */
function section(name, about, details = []) {
  return [
    `${name.padEnd(9)}${about}`,
    ...details.map(([label, text]) => `${' '.repeat(9)}${label.padEnd(11)}${text}`),
  ];
}

function lockLines(lock) {
  if (!lock) return section('lock', 'free');
  return lock.holders.flatMap(({ since, remaining, fence, note, ...holder }) => section(
    'lock', `held by ${whoOf(holder)}`, [
      ...(holder.mode === 'exclusive' ? [] : [['mode', modeOf(holder)]]),
      ...(since.getTime() === 0 ? [] : [['since', since.toISOString()]]),
      ['time left', `${seconds(remaining)}, unless it is renewed`],
      ...(fence === null ? [] : [['fence', fence]]),
      ...(note ? [['note', plain(note)]] : []),
    ],
  ));
}

const STATES = {
  running: 'running',
  crashed: 'its process died: it ended without a result',
  done: 'done',
  failed: 'done, with an error that is kept',
};

function recordLines(record) {
  if (!record) return section('record', 'none');
  const { state, attempt, leaseLeft, storedAt, expiresAt, type, bytes } = record;
  return section('record', STATES[state], [
    ['attempt', attempt],
    [state === 'running' ? 'claimed' : 'since', storedAt.toISOString()],
    ...(leaseLeft === undefined ? [] :
        [['time left', `${seconds(leaseLeft)}, unless it is renewed`]]),
    ...(type === undefined ? [] : [['result', `${type}, ${size(bytes)}`]]),
    ...(state === 'running' || state === 'crashed' ? [] :
        [['kept until', expiresAt === null ? 'for ever' : expiresAt.toISOString()]]),
  ]);
}

function valueLines(value) {
  if (!value) return section('value', 'none');
  return section('value', `${value.type}, ${size(value.bytes)}`, [['version', value.version]]);
}

const REASONS = {
  restarted: ': it was started again',
  emptied: ': it was emptied, or is new',
  clock: ': its clock has jumped',
};

function nodeLines({ node, state, reason, until }) {
  const about = until === null ? state :
    `no vote until ${until.toISOString()}${REASONS[reason] ?? ''}`;
  return section('node', `${plain(node)} ${about}`);
}

async function run({ key, url: given, json }, { stdout, env }) {
  if (key === undefined) throw new UsageError('which key? Name one');
  const url = sharedUrlOf({ url: given }, env);
  const seen = await withStore(url, (hf) => look(hf, key)).catch((error) => {
    throw asUsage(error); // such as a key that is none
  });
  const store = shown(url);
  const lines = [
    ...lockLines(seen.lock),
    ...(seen.nodes?.flatMap(nodeLines) ??
      [...recordLines(seen.record), ...valueLines(seen.value)]),
  ];
  stdout.write(json ? `${JSON.stringify({ store, key, ...seen })}\n` :
    `${plain(key)} on ${store}\n\n  ${lines.join('\n  ')}\n`);
  return EXIT.OK;
}

module.exports = {
  summary: 'show what the store knows of a key',
  help,
  options: {},
  positionals: ['key'],
  run,
};
