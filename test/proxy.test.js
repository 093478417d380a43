'use strict';

// The network that fails on request, and the protocol that it must understand: what other tests
// believe of their faults is shown here.

const assert = require('node:assert/strict');
const { Proxy } = require('./proxy');
const { startServer, stopAll } = require('./redis-servers');
const { Connection, Push, Reader, ReplyError, encode, readReply } = require('./resp');
const { random, until } = require('./helpers');

describe('RESP', () => {
  const whole = [
    ['+OK\r\n', 'OK'],
    [':-12\r\n', -12],
    ['$5\r\na\r\nbc\r\n', 'a\r\nbc'],
    ['$-1\r\n', null],
    ['_\r\n', null],
    ['#t\r\n', true],
    [',1.5\r\n', 1.5],
    ['(12345678901234567890\r\n', 12345678901234567890n],
    ['=7\r\ntxt:abc\r\n', 'txt:abc'],
    ['*0\r\n', []],
    ['*2\r\n*1\r\n:1\r\n$1\r\nx\r\n', [[1], 'x']],
    ['%1\r\n+a\r\n:1\r\n', ['a', 1]],
    ['~2\r\n:1\r\n:2\r\n', [1, 2]],
    ['|1\r\n+ttl\r\n:9\r\n:7\r\n', 7],
  ];

  it('is read, in whatever pieces it comes', () => {
    for (const [text, value] of whole) {
      const bytes = Buffer.from(text);
      assert.deepEqual(readReply(bytes), { value, end: bytes.length });
      for (let i = 0; i < bytes.length; i++) assert.equal(readReply(bytes.subarray(0, i)), null);
    }
    const reader = new Reader();
    const stream = Buffer.from(whole.map(([text]) => text).join(''));
    const found = [...stream].flatMap((_, i) => reader.read(stream.subarray(i, i + 1)));
    assert.deepEqual(found.map(({ value }) => value), whole.map(([, value]) => value));
    assert.equal(Buffer.concat(found.map(({ bytes }) => bytes)).toString(), stream.toString());
  });

  it('knows errors and messages, and what it is not', () => {
    const [{ value: error }] = new Reader().read(Buffer.from('-NOAUTH who?\r\n'));
    assert.ok(error instanceof ReplyError);
    assert.equal(error.code, 'NOAUTH');
    assert.ok(readReply(Buffer.from('>2\r\n+a\r\n+b\r\n')).value instanceof Push);
    for (const text of ['HTTP/1.1 400\r\n', '*x\r\n', '$-2\r\n', '?1\r\n']) {
      assert.throws(() => readReply(Buffer.from(text)), /no RESP/);
    }
    const words = new Reader().read(Buffer.from(encode(['SET', 'ä', 1])));
    assert.deepEqual(words[0].value, ['SET', 'ä', '1']);
  });
});

describe('a network that fails on request', () => {
  let server;
  let proxy;
  let clients;

  before(async () => { server = await startServer(); });
  after(stopAll);
  beforeEach(async () => {
    clients = [];
    proxy = await Proxy.start({ port: server.port }, { random: random(7) });
  });
  afterEach(async () => {
    for (const client of clients) client.close();
    await proxy.stop();
    assert.equal(proxy.trouble, null);
    assert.equal(proxy.links.size, 0);
  });

  function connect() {
    const client = new Connection({ port: proxy.port, host: '127.0.0.1' });
    clients.push(client);
    return client;
  }

  it('passes everything on', async () => {
    const client = connect();
    const values = Array.from({ length: 200 }, (_, i) => `${i}`.repeat(i));
    assert.equal(await client.send('SET', 'key', 'value'), 'OK');
    assert.deepEqual(await Promise.all(values.map((each) => client.send('ECHO', each))), values);
  });

  it('cuts it into pieces that end anywhere', async () => {
    proxy.pieces = true;
    const client = connect();
    const value = '\r\n$'.repeat(3000);
    assert.equal(await client.send('ECHO', value), value);
    proxy.pieces = false;
    proxy.drip = { bytes: 1, ms: 0 };
    assert.equal(await client.send('ECHO', 'drop by drop'), 'drop by drop');
  });

  it('loses the one reply, and repeats the other', async () => {
    proxy.fate = ({ command: [, word] }) => ({ lost: 'drop', twice: 'repeat' })[word] ?? 'pass';
    const client = connect();
    const words = ['a', 'lost', 'b', 'twice', 'c', 'd'];
    const answers = words.map((word) => client.send('ECHO', word));
    assert.deepEqual(await Promise.all(answers.slice(0, 5)), ['a', 'b', 'twice', 'twice', 'c']);
    assert.equal(await answers[5], 'd');
  });

  it('knows messages from replies', async () => {
    const seen = [];
    proxy.fate = ({ command, reply }) => {
      seen.push([command?.[0], Array.isArray(reply) ? reply[0] : reply]);
      return 'pass';
    };
    const listener = connect();
    await listener.send('SUBSCRIBE', 'channel');
    assert.equal(await connect().send('PUBLISH', 'channel', 'text'), 1);
    await until(() => listener.pushed.length === 1, 'the message has come');
    assert.deepEqual(seen.map(([command]) => command).sort(),
      ['PUBLISH', 'SUBSCRIBE', undefined].sort());
    assert.ok(seen.some(([command, what]) => command === undefined && what === 'message'));
  });

  it('is slow, and lets one reply wait', async () => {
    const client = connect();
    await client.send('PING');
    const start = performance.now();
    proxy.slow.toClient = [50, 60];
    await client.send('PING');
    assert.ok(performance.now() - start >= 49);
    proxy.slow.toClient = [0, 0];
    proxy.fate = ({ command: [name] }) => (name === 'ECHO' ? { delay: 50 } : 'pass');
    const again = performance.now();
    const order = [];
    await Promise.all([client.send('ECHO', 'x').then(() => order.push('echo')),
      client.send('PING').then(() => order.push('ping'))]);
    assert.ok(performance.now() - again >= 49);
    assert.deepEqual(order, ['echo', 'ping']);
  });

  it('stands still, and goes on', async () => {
    const client = connect();
    await client.send('SET', 'held', 'no');
    proxy.hold();
    const answer = client.send('SET', 'held', 'yes');
    const other = connect().send('PING');
    assert.equal(await server.send('GET', 'held'), 'no');
    proxy.resume();
    assert.deepEqual(await Promise.all([answer, other]), ['OK', 'PONG']);
  });

  it('swallows all, for connections that were there for good', async () => {
    const client = connect();
    await client.send('SET', 'swallowed', 'no');
    proxy.blackhole();
    const mute = [client.send('SET', 'swallowed', 'yes'), connect().send('PING')];
    for (const answer of mute) answer.catch(() => {});
    await until(() => proxy.connections === 2, 'the other has been let in');
    proxy.heal();
    assert.equal(await connect().send('GET', 'swallowed'), 'no');
    const first = Promise.race([...mute, connect().send('ECHO', 'heard')]);
    assert.equal(await first, 'heard');
  });

  it('ends connections, in the middle of a reply too, and refuses them', async () => {
    const client = connect();
    await client.send('PING');
    proxy.cut();
    await assert.rejects(client.send('PING'), /closed|ECONNRESET|EPIPE/);
    proxy.fate = ({ command: [, word] }) => ({ end: 'cut', half: { tear: 5 } })[word] ?? 'pass';
    for (const word of ['end', 'half']) {
      const broken = connect();
      assert.equal(await broken.send('ECHO', 'whole'), 'whole');
      await assert.rejects(broken.send('ECHO', word), /closed|ECONNRESET/);
    }
    await proxy.refuse();
    await assert.rejects(connect().send('PING'), /ECONNREFUSED/);
    await proxy.allow();
    assert.equal(await connect().send('PING'), 'PONG');
  });
});
