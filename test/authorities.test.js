'use strict';

// Whom TLS trusts when nobody says.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const tls = require('node:tls');
const { withAuthorities } = require('../lib/authorities');
const { useFolder } = require('./helpers');

const added = (url, settings = []) => withAuthorities(url, settings).slice(settings.length);

describe('authorities', () => {
  const folder = useFolder();
  const before = process.env.NODE_EXTRA_CA_CERTS;
  afterEach(() => {
    if (before === undefined) delete process.env.NODE_EXTRA_CA_CERTS;
    else process.env.NODE_EXTRA_CA_CERTS = before;
  });

  it('are Node\'s own with those of NODE_EXTRA_CA_CERTS, where there are any', () => {
    const file = path.join(folder.path, 'extra.pem');
    fs.writeFileSync(file, 'one more');
    process.env.NODE_EXTRA_CA_CERTS = file;
    const [name, value] = added('rediss://host');
    assert.equal(name, 'tlsRoots');
    assert.ok(value.includes(tls.rootCertificates[0]));
    assert.ok(value.toString().endsWith('\none more'));
    assert.equal(added('redis://host?tls=true')[0], 'tlsRoots');
    assert.equal(added('valkeys+cluster://host')[0], 'tlsRoots');
    assert.equal(added('redis://host', ['tls', 'true'])[0], 'tlsRoots');
  });

  it('are not added where there is no TLS, or where they are named', () => {
    process.env.NODE_EXTRA_CA_CERTS = '/nowhere';
    assert.deepEqual(added('redis://host'), []);
    assert.deepEqual(added('redis://host', ['tls', 'false']), []);
    assert.deepEqual(added('sqlite:x.db'), []);
    assert.deepEqual(added('rediss://host', ['tlsCa', 'PEM']), []);
    assert.deepEqual(added('rediss://host?tlsCa=PEM'), []);
  });
});
