'use strict';

// Clocks that a test sets: what a process of the tests takes for the time of day, by libfaketime.
// What it takes for the time that has passed stays the machine's.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { execFileSync } = require('node:child_process');
const { libraries, library } = require('./server-process');

// libfaketime cannot work beside jemalloc, which asks for the time before it has any memory to give
// (wolfcw/libfaketime#130). This stands in for it where a server is linked with it: of what both
// have, malloc() and its like, the C library's own is used.
const NO_JEMALLOC = `
  #include <stdlib.h>
  #include <string.h>
  int mallctl(const char *name, void *told, size_t *size, void *set, size_t len) {
    if (told != NULL) memset(told, 0, *size);
    return 0;
  }
  void malloc_stats_print(void (*write)(void *, const char *), void *data, const char *how) {}
  size_t nallocx(size_t size, int flags) { return size; }
  void sdallocx(void *memory, size_t size, int flags) { free(memory); }
`;

let standIn = null;

/** A folder with a libjemalloc that does nothing; made once, and removed at the end. */
function withoutJemalloc() {
  if (standIn !== null) return standIn;
  standIn = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-clock-'));
  process.on('exit', () => fs.rmSync(standIn, { recursive: true, force: true }));
  const to = path.join(standIn, 'libjemalloc.so.2');
  const { PATH } = process.env; // and no sanitizer
  const args = ['-shared', '-fPIC', '-o', to, '-x', 'c', '-'];
  execFileSync('gcc', args, { input: NO_JEMALLOC, env: { PATH } });
  return standIn;
}

class Clock {
  /** @param {string} file that says how wrong it is; this process's own */
  constructor(file) {
    this.file = file;
    this.set(0);
  }

  /** So many seconds ahead of the machine's; negative: behind it. Counts to the millisecond. */
  set(seconds) {
    this.ahead = Math.round(seconds * 1000) / 1000;
    // At once: who reads a file that is being written would find no time in it.
    fs.writeFileSync(`${this.file}.new`, `${this.ahead < 0 ? '' : '+'}${this.ahead}\n`);
    fs.renameSync(`${this.file}.new`, this.file);
  }

  /** So many seconds forwards, or backwards, from where it is. */
  jump(seconds) {
    this.set(this.ahead + seconds);
  }

  get #environment() {
    return {
      FAKETIME_TIMESTAMP_FILE: this.file,
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      FAKETIME_DONT_RESET: '1',
      FAKETIME_NO_CACHE: '1',
    };
  }

  /** What a Node.js that reads it has in its environment. */
  environment() {
    return {
      ...this.#environment,
      LD_PRELOAD: [process.env.LD_PRELOAD, library('faketime/libfaketimeMT.so.1')]
        .filter(Boolean).join(' '),
    };
  }

  /** What a Redis that reads it has. */
  serverEnvironment() {
    return {
      ...this.#environment,
      LD_PRELOAD: library('faketime/libfaketime.so.1'),
      LD_LIBRARY_PATH: [withoutJemalloc(), libraries()].filter(Boolean).join(':'),
    };
  }
}

module.exports = { Clock };
