'use strict';

// What one durable commit cannot do without: a write and an fdatasync on the disk that all use.

const fs = require('node:fs');
const path = require('node:path');

const PAGE = Buffer.alloc(4096, 1);
const PAGES_WRITTEN = 3; // about what a small commit adds to SQLite's log
const PAGES = 1000; // the file stays of one size, as the log does

/** Opens a file whose `sync()` writes to it and returns how many ms one fdatasync took. */
function openDisk(folder) {
  const fd = fs.openSync(path.join(folder, 'disk'), 'w+');
  for (let page = 0; page < PAGES; page++) fs.writeSync(fd, PAGE);
  fs.fsyncSync(fd);
  let at = 0;
  return {
    sync() {
      for (let i = 0; i < PAGES_WRITTEN; i++) {
        fs.writeSync(fd, PAGE, 0, PAGE.length, at * PAGE.length);
        at = (at + 1) % PAGES;
      }
      const started = performance.now();
      fs.fdatasyncSync(fd);
      return performance.now() - started;
    },
    close: () => fs.closeSync(fd),
  };
}

module.exports = { openDisk };
