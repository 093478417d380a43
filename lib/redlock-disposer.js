'use strict';

// What bluebird's `using` takes. It knows disposers of other copies of itself by their methods, and
// promises of others by `then`: so it takes these, and Holdfast needs no bluebird.

function noop() {}

/** The promise of a lock, as `using` wants it. */
class DisposablePromise {
  #promise;
  #disposer = null;

  constructor(promise) {
    this.#promise = promise;
  }

  then(onFulfilled, onRejected) {
    return this.#promise.then(onFulfilled, onRejected);
  }

  _setDisposable(disposer) {
    this.#disposer = disposer;
  }

  _unsetDisposable() {
    this.#disposer = null;
  }

  _isDisposable() {
    return this.#disposer !== null;
  }

  _getDisposer() {
    return this.#disposer;
  }
}

/** Releases a lock when `using` of bluebird has ended. */
class Disposer {
  #acquired;
  #promise;
  #onError;
  #lock = null;
  #state = 'pending';

  /**
   * @param {Promise<Lock>} acquired
   * @param {(error: Error) => void} [onError] hears of a release that failed
   */
  constructor(acquired, onError = noop) {
    this.#acquired = acquired;
    this.#promise = new DisposablePromise(acquired);
    this.#onError = onError;
    acquired.then((lock) => {
      this.#lock = lock;
      this.#state = 'held';
    }, () => {
      this.#state = 'failed';
    });
  }

  /** The lock, once it is held, else null. */
  resource() {
    return this.#lock;
  }

  promise() {
    return this.#promise;
  }

  tryDispose() {
    this.#promise._unsetDisposable();
    if (this.#state === 'held') return this.#release(this.#lock);
    // `using` was cancelled while it waited.
    if (this.#state === 'pending') this.#acquired.then((lock) => this.#release(lock), noop);
    return null;
  }

  #release(lock) {
    return lock.unlock().catch(this.#onError);
  }
}

module.exports = { Disposer };
