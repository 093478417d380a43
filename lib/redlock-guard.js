'use strict';

// Watches the lock of a routine that `using` runs. Holdfast renews it, from a thread of its own, at
// every third of its time; the signal aborts while there is still time left, when that has failed.

/** Timers count up to here; a later moment is looked for in steps. */
const TIMER_MAX = 2 ** 31 - 1;

class Guard {
  #hold;
  #margin;
  #explain;
  #timer = null;
  #controller = new AbortController();
  #onLost = () => this.#abort(this.#hold.signal.reason);

  /**
   * @param {object} hold the Lock of Holdfast
   * @param {number} margin milliseconds before the end at which it gives up
   * @param {(cause?: Error) => Error} explain makes the error of the signal
   */
  constructor(hold, margin, explain) {
    this.#hold = hold;
    this.#margin = margin;
    this.#explain = explain;
    if (hold.signal.aborted) this.#onLost();
    else hold.signal.addEventListener('abort', this.#onLost, { once: true });
    this.#watch();
  }

  /** Aborts when the lock is lost or about to be; `error` says why. */
  get signal() {
    return this.#controller.signal;
  }

  /** Ends the watch; the signal stays as it is. */
  stop() {
    clearTimeout(this.#timer);
    this.#hold.signal.removeEventListener('abort', this.#onLost);
  }

  #watch() {
    if (this.signal.aborted) return;
    const left = this.#hold.remaining() - this.#margin;
    // Of a lock that is held no more its own signal tells, with the reason.
    if (left <= 0 && this.#hold.held) this.#abort();
    else this.#timer = setTimeout(() => this.#watch(), Math.min(Math.max(left, 1), TIMER_MAX));
  }

  #abort(cause) {
    if (this.signal.aborted) return;
    clearTimeout(this.#timer);
    this.signal.error = this.#explain(cause);
    this.#controller.abort();
  }
}

module.exports = { Guard };
