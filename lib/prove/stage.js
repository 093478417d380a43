'use strict';

// Where one trial plays: its processes, its keys on the store, its sinks. Ending the stage ends
// every process it started, whatever state they are in.

const path = require('node:path');
const { Player } = require('./player');
const { Sink } = require('./sink');

class Stage {
  #trial;
  #scene; // what a player needs to know
  #run;
  #keys;
  #folder;
  #players = new Set();
  #onAbort = () => this.end(this.signal.reason);

  /**
   * @param {object} o
   * @param {string} o.trial name of the trial
   * @param {string | string[]} o.url the store, as `open` takes it
   * @param {object} o.options of `open`
   * @param {Holdfast} o.hf the director's own client of it
   * @param {{ name: string, modules?: object }} o.rival whom Holdfast is played beside
   * @param {string} o.run names this run: every key begins with it
   * @param {Set<string>} o.keys collects the keys, so that they can be removed
   * @param {string} o.folder a folder of this run, for sinks
   * @param {AbortSignal} o.signal ends everything at once
   */
  constructor({ trial, url, options, hf, rival, run, keys, folder, signal }) {
    this.#trial = trial;
    this.#run = run;
    this.#keys = keys;
    this.#folder = folder;
    this.#scene = { trial, url, options, rival };
    this.hf = hf;
    this.sides = [rival.name, 'holdfast'];
    this.signal = signal;
    signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** A key of this trial alone, on one side of it. */
  key(side, name) {
    const key = `${this.#run}/${this.#trial}/${side}/${name}`;
    this.#keys.add(key);
    return key;
  }

  /** The effects of one side of this trial. */
  sink(side) {
    return new Sink(path.join(this.#folder, `${this.#trial}-${side}.log`));
  }

  /** Plays both sides at the same time; resolves with the facts of each. */
  async onBothSides(play) {
    const facts = await Promise.all(this.sides.map((side) => play(side)));
    return Object.fromEntries(this.sides.map((side, i) => [side, facts[i]]));
  }

  /** Starts processes; resolves with them when each has opened the store and waits for its act. */
  async start(count) {
    this.signal.throwIfAborted();
    const players = Array.from({ length: count }, () => new Player());
    for (const player of players) this.#players.add(player);
    await Promise.all(players.map((player) => player.prepare(this.#scene)));
    return players;
  }

  /** Lets processes go that have done their part. */
  async dismiss(players) {
    await Promise.all(players.map((player) => player.leave()));
    for (const player of players) this.#players.delete(player);
  }

  /** Ends whatever still runs. */
  async end(reason = new Error('the trial is over')) {
    this.signal.removeEventListener('abort', this.#onAbort);
    await Promise.all([...this.#players].map((player) => player.end(reason)));
    this.#players.clear();
  }
}

module.exports = { Stage };
