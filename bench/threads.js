'use strict';

// The threads of this process, and the processor time of each, as Linux counts it.

const fs = require('node:fs');

const TASKS = '/proc/self/task';
const TICKS_PER_SECOND = 100; // USER_HZ: the same on all Linux that Node.js runs on
// Fields of `stat` behind the name of the thread, the only one that may contain spaces.
const UTIME = 11;
const STIME = 12;

/** The ids of all threads. */
function threads() {
  return fs.readdirSync(TASKS);
}

/** The ids of those that were not there `before`. */
function startedThreads(before) {
  return threads().filter((id) => !before.includes(id));
}

/** How long a thread has run since it started, in seconds. */
function threadSeconds(id) {
  const stat = fs.readFileSync(`${TASKS}/${id}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[UTIME]) + Number(fields[STIME])) / TICKS_PER_SECOND;
}

module.exports = { threads, startedThreads, threadSeconds };
