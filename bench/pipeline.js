'use strict';

// The C program that sends Holdfast's scripts and does nothing else; see redis-pipeline.c.

const { execFile } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { promisify } = require('node:util');

/** Where script/bench-peers builds it. */
const PROGRAM = path.join(__dirname, 'out/redis-pipeline');

/**
 * @param {number} port
 * @param {{ key: string, token: string, folder: string }} recorded see recorded.js
 * @returns {Function | null} `measure({ inFlight, seconds })`; null where it was not built
 */
function openPipeline(port, { key, token, folder }) {
  if (!fs.existsSync(PROGRAM)) return null;
  return async ({ inFlight, seconds }) => {
    const args = [port, inFlight, seconds, key, token, folder].map(String);
    const { stdout } = await promisify(execFile)(PROGRAM, args);
    return JSON.parse(stdout);
  };
}

module.exports = { openPipeline };
