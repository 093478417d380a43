'use strict';

// URLs of Holdfast for what has been read of a client.

const HOSTS_MAX = 16; // that a URL takes: of a Cluster and of Sentinels some are enough

function hostText({ host, port }) {
  const bare = String(host ?? '127.0.0.1').replace(/^\[(.*)\]$/, '$1');
  const shown = bare.includes(':') ? `[${bare.replace('%', '%25')}]` : encodeURIComponent(bare);
  return `${shown}:${port}`;
}

function loginText({ username, password }) {
  if (username === '' && password === '') return '';
  return `${encodeURIComponent(username)}:${encodeURIComponent(password)}@`;
}

function queryText({ db, tls, sentinelUsername, sentinelPassword }) {
  const params = {
    db: db === undefined || db === null || Number(db) === 0 ? '' : String(db),
    sentinelUsername,
    sentinelPassword,
    tlsServername: tls?.servername,
    tlsRejectUnauthorized: tls?.rejectUnauthorized === false ? 'false' : '',
  };
  const given = Object.entries(params).filter(([, value]) => value !== undefined && value !== '');
  if (given.length === 0) return '';
  return `?${given.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&')}`;
}

/**
 * @typedef {object} Node where a client is connected to
 * @property {string} [url] says it all
 * @property {'single' | 'sentinel' | 'cluster'} [kind] 'single' by default
 * @property {{ host?: string, port: number | string }[]} [hosts]
 * @property {string} [path] of a unix socket, in place of hosts
 * @property {string} [master] its name for the Sentinels
 * @property {number | string | null} [db]
 * @property {string} username '' for none
 * @property {string} password '' for none
 * @property {string} [sentinelUsername]
 * @property {string} [sentinelPassword]
 * @property {object | null} tls null where nothing is encrypted; its certificates are in no URL
 */

/**
 * @param {Node} node
 * @returns {string} it has the password in it
 */
function urlOf(node) {
  if (node.url !== undefined) return node.url;
  const login = loginText(node);
  const query = queryText(node);
  if (node.path !== undefined) {
    return `unix://${login}${node.path.split('/').map(encodeURIComponent).join('/')}${query}`;
  }
  const { kind = 'single', hosts, master, tls } = node;
  const scheme = `redis${tls === null ? '' : 's'}${kind === 'single' ? '' : `+${kind}`}`;
  const places = hosts.slice(0, HOSTS_MAX).map(hostText).join(',');
  const path = kind === 'sentinel' ? `/${encodeURIComponent(master)}` : '';
  return `${scheme}://${login}${places}${path}${query}`;
}

module.exports = { urlOf };
