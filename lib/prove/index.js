'use strict';

// The proof: ways in which concurrent services corrupt shared state, each really played with many
// processes, once with the naive code of the step or another library and once with Holdfast, on the
// same store. Both sides are held to the same standard.

const fs = require('node:fs/promises');
const os = require('node:os');
const path = require('node:path');
const { randomBytes } = require('node:crypto');
const { open } = require('..');
const { version } = require('../../package.json');
const { namesOf } = require('./leftovers');
const { redact } = require('./redact');
const { Stage } = require('./stage');

/** Trials in the order of the page. Those of one group play at the same time. */
const GROUPS = [['checkout'], ['stock'], ['nightly'], ['killed', 'blocked']];

/** Libraries that can be played against, in place of naive code. */
const RIVALS = ['redlock'];

/** A trial that takes longer than this hangs, and is ended. */
const TRIAL_MAX_MS = 60_000;

/** The shop of the first trial, unless another one is given. */
const SHOP = path.join(__dirname, 'shop.js');

/** Judges both sides of a trial by the same standard. */
function judge(trial, code, facts, ms) {
  const sides = Object.keys(facts);
  const judged = sides.map((side) => {
    const broken = trial.check(facts[side]);
    return { code: code[side], held: broken.length === 0, broken, facts: facts[side] };
  });
  const [theirs, ours] = sides.map((side) => trial.tell(facts[side]));
  const [rival, holdfast] = sides;
  return {
    name: trial.name,
    title: trial.title,
    held: judged[1].held,
    ms,
    story: theirs.map(([label, text], i) => ({ label, [rival]: text, [holdfast]: ours[i][1] })),
    [rival]: judged[0],
    [holdfast]: judged[1],
  };
}

/** Plays one trial. A trial that cannot be played is a result too: its guarantee is not shown. */
async function play(trial, show) {
  const began = performance.now();
  const limit = AbortSignal.timeout(TRIAL_MAX_MS);
  const signal = AbortSignal.any([show.signal, limit]);
  const stage = new Stage({ ...show, trial: trial.name, signal });
  try {
    const facts = await trial.run(stage, { shop: show.shop });
    const code = trial.name === 'checkout' ? require(show.shop).code : trial.code;
    return judge(trial, code, facts, Math.round(performance.now() - began));
  } catch (error) {
    show.signal.throwIfAborted();
    const hung = limit.aborted && { message: `did not end within ${TRIAL_MAX_MS / 1000} s` };
    const { code, message } = hung || error;
    return { name: trial.name, title: trial.title, held: false, error: { code, message } };
  } finally {
    await stage.end();
  }
}

/**
 * Removes what the trials have left on the store. What cannot be removed now expires, or is
 * small.
 */
async function tidy(hf, keys) {
  for (const key of keys) {
    await Promise.allSettled([hf.kv.delete(key), hf.forget(key)]);
  }
}

/** Naive code, which needs nothing but the store. */
const naive = {
  name: 'naive',
  groups: GROUPS,
  /** Where it plays: `options` of open(), what the names of the trials' keys begin with. */
  setScene: (run) => ({ options: undefined, run }),
  tidy,
};

/** Another library, on a Redis server of the user's, of which no key is left. */
function rivalOf(against, url, folder) {
  if (!RIVALS.includes(against)) {
    throw new RangeError(`against: there is no '${against}' to play against; there is ` +
      `${RIVALS.join(', ')}`);
  }
  const rival = require(`./rivals/${against}`);
  const usual = rival.prefixOf(url);
  const { title, modules } = rival.find(folder);
  let prefix;
  return {
    name: rival.name,
    title,
    modules,
    groups: rival.groups,
    // Both keep to names of their own. Values may be evicted here, as nobody will miss them.
    setScene(run) {
      prefix = `${usual}${run}/`;
      return { options: { prefix, allowEviction: true }, run: `${usual}${run}` };
    },
    async tidy(hf, keys) {
      // To the rival a key is a name as it stands.
      const names = [...keys].flatMap((key) => [key, ...namesOf(prefix, key)]);
      if (names.length > 0) await rival.remove(modules, url, names);
    },
  };
}

/** The trials against a rival, in their groups, with none but the wanted ones. */
function choose({ groups }, only) {
  const names = groups.flat();
  const unknown = only?.find((name) => !names.includes(name));
  if (unknown !== undefined || only?.length === 0) {
    throw new RangeError(
      `only: there is no trial '${unknown ?? ''}'; they are ${names.join(', ')}`,
    );
  }
  return groups.map((group) => group.filter((name) => !only || only.includes(name))
    .map((name) => require(`./trials/${name}`)));
}

async function playAll(groups, show, onTrial) {
  const trials = [];
  for (const group of groups) {
    // All of them, also if one gives up: only then is none of their processes left.
    for (const { reason, value } of await Promise.allSettled(group.map((t) => play(t, show)))) {
      if (reason) throw reason;
      trials.push(value);
      onTrial?.(value, trials.length);
    }
  }
  return trials;
}

/**
 * Plays all trials and returns what happened.
 *
 * @param {object} [o]
 * @param {string | string[]} [o.url] the store, as `open` takes it; default: a new SQLite file in
 *   a temporary folder, removed afterwards. `memory:` is a RangeError: its store is of one process.
 * @param {'redlock'} [o.against] a library in place of naive code; `url` is of one Redis server
 * @param {string} [o.project] the folder from which that library is looked for; default: the
 *   current one
 * @param {string[]} [o.only] names of the trials to play; default: all
 * @param {string} [o.shop] absolute path of a module with the shop of the first trial
 * @param {AbortSignal} [o.signal] ends everything; rejects with its reason
 * @param {(info: object) => void} [o.onStart] called once the store has answered
 * @param {(trial: object, nth: number) => void} [o.onTrial] called with each result, in order
 * @returns {Promise<object>} `held` says whether every guarantee held; see docs/command-line.md
 */
async function prove({
  url, against, project = process.cwd(), only, shop = SHOP, signal, onStart, onTrial,
} = {}) {
  const rival = against === undefined ? naive : rivalOf(against, url, project);
  const groups = choose(rival, only);
  if ([url].flat().some((one) => /^quorum:/i.test(one))) {
    throw new RangeError('url: a quorum keeps no values and no records, which the trials need: ' +
      'name one of its nodes');
  }
  if ([url].flat().some((one) => /^memory:/i.test(one))) {
    throw new RangeError('url: memory: is a store of one process, and the trials need many; ' +
      'give a file, such as sqlite:./holdfast.db');
  }
  const began = performance.now();
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'holdfast-prove-'));
  const store = url ?? `sqlite:${path.join(folder, 'store.db')}`;
  const info = {
    store: [store].flat().map(redact).join(', '),
    temporary: url === undefined,
    ...(against !== undefined && { against: rival.title }),
  };
  const keys = new Set();
  const scene = rival.setScene(`holdfast-prove/${randomBytes(6).toString('hex')}`);
  let hf;
  try {
    hf = await open(store, scene.options);
    onStart?.(info);
    const { name, modules } = rival;
    const show = {
      url: store,
      ...scene,
      hf,
      rival: { name, modules },
      folder,
      keys,
      shop,
      signal: signal ?? neverAborted(),
    };
    const trials = await playAll(groups, show, onTrial);
    return {
      version,
      ...info,
      held: trials.every(({ held }) => held),
      ms: Math.round(performance.now() - began),
      trials,
    };
  } finally {
    if (hf) {
      await rival.tidy(hf, keys);
      await hf.close();
    }
    await fs.rm(folder, { recursive: true, force: true });
  }
}

function neverAborted() {
  return new AbortController().signal;
}

module.exports = { prove };
