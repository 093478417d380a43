'use strict';

// Where clients are connected to, read without connecting.

const assert = require('node:assert/strict');
const { inspect } = require('node:util');
const { Cluster, Redis } = require('ioredis');
const nodeRedis5 = require('redis');
const nodeRedis4 = require('redis4');
const nodeRedis3 = require('redis3');
const Redlock = require('holdfast/redlock');
const { readClients } = require('../lib/redlock-clients');

const PEM = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
const OTHER = '-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n';

describe('redlock: the options of clients', () => {
  const ends = [];
  afterEach(() => { for (const end of ends.splice(0)) end(); });

  const ioredis = (...args) => {
    const options = typeof args.at(-1) === 'object' ? args.pop() : {};
    const client = new Redis(...args, { lazyConnect: true, ...options });
    ends.push(() => client.disconnect());
    return client;
  };
  const cluster = (nodes, options) => {
    const client = new Cluster(nodes, { lazyConnect: true, ...options });
    ends.push(() => client.disconnect());
    return client;
  };
  const old = (...args) => {
    const client = nodeRedis3.createClient(...args);
    client.on('error', () => {});
    ends.push(() => client.end(true));
    return client;
  };

  function urlOf(client) {
    const { url, options } = readClients([client]);
    assert.deepEqual(options, { prefix: '' });
    return url;
  }

  function refused(clients, type, pattern, connection) {
    assert.throws(() => readClients([clients].flat(), connection), (error) => {
      assert.equal(error.constructor, type, error.stack);
      assert.match(error.message, pattern);
      assert.doesNotMatch(error.message, /s3cret/);
      return true;
    });
  }

  it('of ioredis', () => {
    assert.equal(urlOf(ioredis()), 'redis://localhost:6379');
    assert.equal(urlOf(ioredis(7000, 'a.test')), 'redis://a.test:7000');
    assert.equal(urlOf(ioredis('redis://u:p%40%2Fw@a.test/3')),
      'redis://u:p%40%2Fw@a.test:6379?db=3');
    assert.equal(urlOf(ioredis({ password: 'p w' })), 'redis://:p%20w@localhost:6379');
    assert.equal(urlOf(ioredis({ host: '::1', port: 7000 })), 'redis://[::1]:7000');
    assert.equal(urlOf(ioredis('rediss://a.test:1')), 'rediss://a.test:1');
    assert.equal(urlOf(ioredis('/run/a b.sock', { db: 2, password: 'x' })),
      'unix://:x@/run/a%20b.sock?db=2');
    assert.equal(urlOf(ioredis({ tls: { servername: 'b.test', rejectUnauthorized: false } })),
      'rediss://localhost:6379?tlsServername=b.test&tlsRejectUnauthorized=false');
    const { options } = readClients([ioredis({ keyPrefix: 'app:', tls: { ca: PEM } })]);
    assert.deepEqual(options, { prefix: 'app:', tls: { ca: PEM } });
  });

  it('of ioredis with Sentinels', () => {
    const sentinels = [{ host: 'a.test', port: 7000 }, { host: 'b.test' }];
    const login = { sentinelUsername: 'w', sentinelPassword: 's/', password: 'p' };
    assert.equal(urlOf(ioredis({ sentinels, name: 'my master', db: 1, ...login })),
      'redis+sentinel://:p@a.test:7000,b.test:26379/my%20master?' +
      'db=1&sentinelUsername=w&sentinelPassword=s%2F');
    const tls = { servername: 'c.test' };
    assert.equal(urlOf(ioredis({
      sentinels, name: 'm', tls, sentinelTLS: tls, enableTLSForSentinelMode: true,
    })), 'rediss+sentinel://a.test:7000,b.test:26379/m?tlsServername=c.test');
    // That is how ioredis has it: without the other option nothing is encrypted.
    assert.match(urlOf(ioredis({ sentinels, name: 'm', tls })), /^redis\+sentinel:/);
    refused(ioredis({ sentinels, name: 'm', sentinelTLS: tls }), RangeError, /sentinelTLS/);
    refused(ioredis({ sentinels, name: 'm', role: 'slave' }), RangeError, /role/);
  });

  it('of a Cluster of ioredis', () => {
    assert.equal(urlOf(cluster([{ host: 'a.test', port: 1 }, 'redis://b.test:2', 3, 'c.test:4'])),
      'redis+cluster://a.test:1,b.test:2,127.0.0.1:3,c.test:4');
    assert.equal(urlOf(cluster(['rediss://u:p@b.test'])), 'rediss+cluster://u:p@b.test:6379');
    const client = cluster([{ host: 'a.test' }], {
      keyPrefix: '{app}', redisOptions: { password: 'x', tls: { ca: PEM } },
    });
    assert.deepEqual(readClients([client]), {
      url: 'rediss+cluster://:x@a.test:6379', options: { prefix: '{app}', tls: { ca: PEM } },
    });
    const many = Array.from({ length: 20 }, (_, i) => ({ host: `n${i}.test`, port: 1 }));
    assert.equal(urlOf(cluster(many)).split(',').length, 16);
    refused(cluster(['redis://a b:s3cret@']), TypeError, /clients\[0\]\.startupNodes\[0\]/);
  });

  for (const [version, { createClient, createCluster }] of [[5, nodeRedis5], [4, nodeRedis4]]) {
    it(`of node-redis ${version}`, () => {
      assert.equal(urlOf(createClient()), 'redis://localhost:6379');
      assert.equal(urlOf(createClient({ url: 'rediss://u:p%40@a.test:7000/3' })),
        'rediss://u:p%40@a.test:7000?db=3');
      const login = { username: 'u', password: 'x' };
      const place = { host: 'a.test', port: 1 };
      assert.equal(urlOf(createClient({ socket: place, password: 'x', database: 2 })),
        'redis://:x@a.test:1?db=2');
      assert.equal(urlOf(createClient({ socket: { path: '/run/a.sock' }, ...login })),
        'unix://u:x@/run/a.sock');
      // What is in the URL counts more there.
      assert.equal(urlOf(createClient({ url: 'redis://a.test:1', socket: { host: 'b.test' } })),
        'redis://a.test:1');
      const tls = { ca: [PEM], cert: PEM, key: PEM };
      const socket = { ...place, tls: true, ...tls, servername: 'b.test' };
      assert.deepEqual(readClients([createClient({ socket })]), {
        url: 'rediss://a.test:1?tlsServername=b.test', options: { prefix: '', tls },
      });
      refused(createCluster({ rootNodes: [{ url: 'redis://:s3cret@a' }] }), TypeError,
        /clients\[0\].* a URL.*a Cluster/);
    });
  }

  it('of node-redis 5, as it gets credentials', () => {
    const credentialsProvider = {
      type: 'async-credentials-provider', credentials: async () => ({ password: 's3cret' }),
    };
    refused(nodeRedis5.createClient({ credentialsProvider }), TypeError,
      /clients\[0\]\.options\.credentialsProvider .*settings\.connection/);
    refused(nodeRedis5.createSentinel({
      name: 'm', sentinelRootNodes: [{ host: 'a', port: 1 }],
    }), TypeError, /a URL.*a Sentinel/);
    refused(nodeRedis5.createClientPool({ url: 'redis://a' }), TypeError, /a URL.*a pool/);
  });

  it('of node_redis 3', () => {
    assert.equal(urlOf(old(7000, '127.0.0.1')), 'redis://127.0.0.1:7000');
    assert.equal(urlOf(old('redis://u:p%40@127.0.0.1:7000/3')), 'redis://u:p%40@127.0.0.1:7000?db=3');
    assert.equal(urlOf(old('/run/a.sock', { password: 'x' })), 'unix://:x@/run/a.sock');
    assert.equal(urlOf(old({ host: '127.0.0.1', auth_pass: 'x' })), 'redis://:x@127.0.0.1:6379');
    const client = old({ host: '127.0.0.1', prefix: 'app:', tls: { ca: PEM } });
    assert.deepEqual(readClients([client]), {
      url: 'rediss://127.0.0.1:6379', options: { prefix: 'app:', tls: { ca: PEM } },
    });
  });

  it('of URLs, which are taken as they are', () => {
    const url = 'rediss://u:p%40@a.test:1/2?commandTimeout=100';
    assert.equal(urlOf(url), url);
    assert.equal(urlOf(new URL('redis://a.test')), 'redis://a.test');
    assert.deepEqual(readClients(['redis://a.test?prefix=x%3A']).options, { prefix: 'x:' });
    assert.deepEqual(readClients(['memory:']), { url: 'memory:', options: {} });
    assert.deepEqual(readClients(['redis://a', ioredis('redis://b')]), {
      url: ['redis://a', 'redis://b:6379'], options: { prefix: '' },
    });
  });

  it('count less than settings.connection', () => {
    const clients = [
      ioredis({ keyPrefix: 'a:', tls: { ca: PEM } }), ioredis(1, { keyPrefix: 'b:' })];
    const connection = { prefix: 'c:', tls: false, commandTimeout: '1s' };
    assert.deepEqual(readClients(clients, connection).options, connection);
    refused('redis://a', TypeError, /settings\.connection must be an object; got an array/, []);
    refused('redis://a', TypeError, /settings\.connection must be an object; got number/, 7);
    refused('redis://a', TypeError, /settings\.maxTtl/, { maxTtl: 1000 });
  });

  it('must be the same where one connection cannot be another', () => {
    refused([ioredis(), ioredis(1, { keyPrefix: 'b:' })], RangeError,
      /clients\[0\] and clients\[1\] have different key prefixes/);
    refused([ioredis({ tls: { ca: PEM } }), ioredis({ tls: { ca: OTHER } })], RangeError,
      /clients\[0\] and clients\[1\] have different TLS certificates/);
    const same = { tls: { ca: Buffer.from(PEM) } };
    refused([ioredis({ tls: { ca: PEM } }), ioredis(same), 'rediss://c'], RangeError,
      /clients\[0\] and clients\[2\] have different TLS certificates/);
    refused([cluster(['redis://a']), 'redis://b'], RangeError, /clients\[0\] .* one of several/);
    refused(['redis://a', 'redis+cluster://b'], RangeError, /clients\[1\] .* one of several/);
    refused(['redis://a', 'sqlite:./a.db'], RangeError, /clients\[1\] .* one of several/);
    const { url } = readClients(
      [ioredis(1, { password: 'a', db: 1 }), ioredis(2, { password: 'b' })]);
    assert.deepEqual(url, ['redis://:a@localhost:1?db=1', 'redis://:b@localhost:2']);
  });

  it('that decide more than Holdfast can take over are refused by name', () => {
    const tls = (option, value) => ioredis({ password: 's3cret', tls: { [option]: value } });
    const options = ['pfx', 'passphrase', 'secureContext', 'checkServerIdentity', 'crl'];
    for (const option of [...options, 'pskCallback']) {
      const named = new RegExp(`^clients\\[0\\]\\.options\\.tls\\.${option} `);
      refused(tls(option, 's3cret'), TypeError, named);
    }
    refused(tls('key', [{ pem: 's3cret' }]), TypeError, /clients\[0\]\.options\.tls\.key cannot/);
    refused(tls('servername', 7), TypeError, /clients\[0\]\.options\.tls\.servername cannot/);
    const natMap = { 'a:1': { host: 'b', port: 1 } };
    refused(ioredis({ natMap }), TypeError, /natMap/);
    refused(cluster(['redis://a'], { natMap }), TypeError, /natMap/);
    class Connector {
      connect() {}
      disconnect() {}
    }
    refused(ioredis({ Connector }), TypeError, /clients\[0\]\.options\.Connector/);
    // How often to try again, and what to log, changes nothing.
    assert.equal(urlOf(ioredis({ retryStrategy: () => 5, reconnectOnError: () => true })),
      'redis://localhost:6379');
  });

  it('of what is no client', () => {
    for (const [value, what] of [[undefined, 'undefined'], [null, 'null'], [7, 'number'],
      [{}, 'an object'], [() => {}, 'function'], [{ options: 7 }, 'an object']]) {
      refused([value], TypeError, new RegExp(`^clients\\[0\\] must be .*; got ${what}`));
    }
  });

  it('are shown by no error of the constructor, and by nothing that is printed', () => {
    const client = ioredis({ password: 's3cret' });
    const redlock = new Redlock([client, 'redis://:s3cret@a', 'redis://:s3cret@b']);
    assert.doesNotMatch(inspect(redlock, { depth: 9, showHidden: true }), /s3cret/);
    assert.deepEqual([...redlock.clients], [client, 'redis://:s3cret@a', 'redis://:s3cret@b']);
    for (const url of ['redis://:s3cret@a:99999', 'redis://:s3cret@a/x', 'redis://:s3cret@a?x=1',
      'http://u:s3cret@a', 'redis://u:s3cret/@a']) {
      assert.throws(() => new Redlock([url]), (error) => !/s3cret/.test(inspect(error)), url);
    }
    return redlock.quit();
  });
});
