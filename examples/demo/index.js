'use strict';

// The demo: a shop on Express over the embedded store, an impatient client, and a hostile world.
// It is `holdfast prove` with this folder's shop in place of the one on node:http.
//
//   npm run demo                     as a page
//   npm run --silent demo -- --json  as one JSON object
//
// Exits 0 if Holdfast kept every guarantee, 1 if not, as the command does.

const path = require('node:path');
const { runCommand } = require('../../lib/cli/run');
const demo = require('../../lib/cli/prove');

runCommand('demo', (io) => demo.play({ json: process.argv.includes('--json') }, io, {
  title: 'Holdfast demo: a shop on Express and SQLite',
  shop: path.join(__dirname, 'shop.js'),
}));
