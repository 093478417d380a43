'use strict';

// The addon. HOLDFAST_ADDON names another build of it: tests run the one with sanitizers so.

const path = require('node:path');

module.exports = process.env.HOLDFAST_ADDON
  ? require(path.resolve(process.env.HOLDFAST_ADDON))
  : require('node-gyp-build')(path.join(__dirname, '..'));
