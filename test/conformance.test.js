'use strict';

const path = require('node:path');
const { conformance } = require('./conformance');
const { useFolder } = require('./helpers');

conformance('memory', () => 'memory:');

describe('with a folder', () => {
  const folder = useFolder();
  let serial = 0;
  conformance('sqlite', () => `sqlite:${path.join(folder.path, `store-${++serial}.db`)}`);
});
