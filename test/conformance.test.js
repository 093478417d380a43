'use strict';

const path = require('node:path');
const { conformance } = require('./conformance');
const { useFolder } = require('./helpers');
const { usePostgres } = require('./postgres-servers');
const {
  startCluster, startQuorum, startSentinels, startServer, stopAll, useDeployment,
} = require('./redis-servers');

conformance('memory', () => 'memory:');

describe('with a folder', () => {
  const folder = useFolder();
  let serial = 0;
  conformance('sqlite', () => `sqlite:${path.join(folder.path, `store-${++serial}.db`)}`);
});

const deployments = {
  redis: () => startServer({ kind: 'redis' }),
  valkey: () => startServer({ kind: 'valkey' }),
  'redis Sentinel': () => startSentinels({ kind: 'redis' }),
  'valkey Sentinel': () => startSentinels({ kind: 'valkey' }),
  'redis Cluster': () => startCluster({ kind: 'redis' }),
  'valkey Cluster': () => startCluster({ kind: 'valkey' }),
};

// What the addon does is the same with all of them: under sanitizers two are enough.
const sanitized = new Set(['redis', 'redis Cluster']);

for (const [name, start] of Object.entries(deployments)) {
  describe(`with ${name}${sanitized.has(name) ? '' : ' [slow]'}`, () => {
    const { url } = useDeployment(start);
    conformance(name, url);
  });
}

const quorums = {
  'a quorum of 3': () => startQuorum({ kind: 'redis', nodes: 3 }),
  'a quorum of 5 [slow]': () => startQuorum({ kind: 'valkey', nodes: 5 }),
};

for (const [name, start] of Object.entries(quorums)) {
  describe(`with ${name}`, () => {
    const { url } = useDeployment(start);
    const fenced = () => url({ fencing: true, maxTtl: 86_400_000 });
    conformance(name, fenced, { entries: false, permits: false });
  });
}

const postgres = {
  PostgreSQL: {},
  'PostgreSQL 18 [slow]': { version: '18' },
  'PostgreSQL behind pgbouncer [slow]': { pooled: { poolMode: 'transaction' } },
  'PostgreSQL 18 behind pgbouncer [slow]': { version: '18', pooled: { poolMode: 'transaction' } },
};

for (const [name, options] of Object.entries(postgres)) {
  describe(`with ${name}`, () => {
    const { url } = usePostgres(options);
    conformance(name, url);
  });
}

after(stopAll);
