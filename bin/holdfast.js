#!/usr/bin/env node
'use strict';

const { main } = require('../lib/cli');
const { runCommand } = require('../lib/cli/run');

runCommand('holdfast', (io) => main(process.argv.slice(2), io));
