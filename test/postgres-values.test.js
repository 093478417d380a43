'use strict';

// Values of `holdfast/postgres` look as they do with `pg`, both ways, and parameters reach the
// server as pg's do.

const assert = require('node:assert/strict');
const { Client } = require('pg');
const { prepareValue } = require('pg/lib/utils');
const { postgres } = require('../lib/postgres');
const { toParam, toParams } = require('../lib/postgres-values');
const { stopAll, usePostgres } = require('./postgres-servers');

after(stopAll);

const circular = { toPostgres: () => circular };

describe('parameters of statements', () => {
  const bytes = Buffer.from([0, 1, 92, 34, 255]);
  const values = [
    null, undefined, true, false, 0, -0, 1.5, -1e300, NaN, Infinity, 2 ** 53, 12345678901234567890n,
    '', 'a', 'it\'s', '"quoted"', '\\', '{a,b}', 'Straße 鎖 😀', '\n\t',
    new Date(0), new Date('2026-02-28T23:59:59.999Z'), new Date('0099-01-01T00:00:00Z'),
    new Date('-000043-03-15T12:00:00Z'), new Date('+012026-01-01T00:00:00Z'),
    [], [1, 2], ['a', 'b"c', 'd\\e', ''], [null, undefined, 1], [[1, 2], [3, 4]], [true], [1n],
    [new Date(5)], [{ a: 1 }], [bytes], [new Uint8Array(bytes)], [[]],
    {}, { a: [1, { b: null }] }, Object.create({ inherited: 1 }), new Map([[1, 2]]),
    new Number(5), new String('x'), new Boolean(false),
    { toPostgres: () => 'text' }, { toPostgres: () => 7 }, { toPostgres: () => null },
    { toPostgres: (prepare) => `(${prepare([1, 2])})` }, { toPostgres: () => ({ a: 1 }) },
    { toPostgres: () => ({ toPostgres: () => 'inner' }) }, { toJSON: () => 'json' },
  ];

  it('are made as pg makes them', () => {
    for (const value of values) {
      assert.deepEqual(toParam(value, 'value'), prepareValue(value), String(value));
    }
  });

  it('are bytes where they are typed arrays', () => {
    for (const view of [bytes, new Uint8Array(bytes), new Uint16Array([1, 258]),
      new DataView(bytes.buffer, bytes.byteOffset, 3), new Float64Array([0.5])]) {
      assert.deepEqual(Buffer.from(toParam(view, 'value')), Buffer.from(prepareValue(view)));
    }
  });

  it('are refused where pg would send something else than was meant', () => {
    for (const [value, message] of [
      [() => {}, /^it must be a value; got a function/], [Symbol('a'), /got a symbol/],
      [Promise.resolve(1), /^it is a Promise: await it first/], [{ then() {} }, /is a Promise/],
      [new ArrayBuffer(2), /new Uint8Array/], [circular, /must not be circular/],
      [{ a: 1n }, /^it must be JSON/], [{ toJSON: () => undefined }, /^it must be JSON/],
      [[1, [() => {}]], /^it\[1\]\[0\] must be a value/],
    ]) {
      assert.throws(() => toParam(value, 'it'), { name: 'TypeError', message }, String(message));
    }
    for (const [value, message] of [['a\0', /^it must not contain NUL/], ['\ud800', /surrogates/],
      [['a\0'], /NUL/], [new Date(NaN), /^it is an invalid Date/]]) {
      assert.throws(() => toParam(value, 'it'), { name: 'RangeError', message });
    }
    assert.throws(() => toParams(Array(65536).fill(1), 'params'),
      { name: 'RangeError', message: /^params must be at most 65535 values/ });
  });
});

describe('results of statements', () => {
  const scope = usePostgres();
  let pg;
  let client;
  beforeEach(async () => {
    pg = postgres(scope.server.url());
    client = new Client({ connectionString: scope.server.url() });
    await client.connect();
  });
  afterEach(async () => {
    await pg.close({ timeout: 0 });
    await client.end();
  });

  const plain = ({ rows, rowCount, command, fields }) =>
    ({ rows, rowCount, command, fields: fields.map((field) =>
      ({ ...field, tableID: field.tableID > 0 })) });

  // `{}` in the text is a table of ours, or another of theirs.
  async function same(sql, values) {
    const on = (table) => (typeof sql === 'string' ? sql.replace('{}', table) : sql);
    const [ours, theirs] = [await pg.query(on('ours'), values),
      await client.query(on('theirs'), values)];
    assert.deepStrictEqual(plain(ours), plain(theirs), String(sql));
    return ours;
  }

  const types = [
    ['bool', 'true'], ['int2', '-32768'], ['int4', '2147483647'], ['int8', '9223372036854775807'],
    ['float4', '1.5'], ['float8', '-1e300'], ['float8', 'NaN'], ['float8', '-Infinity'],
    ['numeric', '12345678901234567890.123456789'], ['numeric', 'NaN'], ['oid', '7'], ['money', '5'],
    ['text', 'it\'s "so" \\ 鎖'], ['varchar(3)', 'abc'], ['char(5)', 'ab'], ['name', 'n'],
    ['"char"', 'x'], ['bytea', '\\x00015c22ff'], ['bytea', ''], ['uuid',
      'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'], ['json', '{"a":[1,null]}'], ['jsonb', '"text"'],
    ['date', '2026-02-28'], ['date', 'infinity'], ['date', '0044-03-15 BC'],
    ['time', '12:34:56.789'],
    ['timetz', '12:34:56+02'], ['timestamp', '2026-02-28 23:59:59.999999'],
    ['timestamp', '-infinity'], ['timestamptz', '2026-02-28 23:59:59.5+00'],
    ['timestamptz', '1883-01-01 12:00:00+00'], ['interval', '1 year 2 mons 3 days 04:05:06.789'],
    ['interval', '-1 days'], ['inet', '10.0.0.1/8'], ['cidr', '10.0.0.0/8'], ['macaddr',
      '08:00:2b:01:02:03'], ['bit(3)', '101'], ['point', '(1,2.5)'], ['box', '(1,1),(0,0)'],
    ['circle', '<(1,2),3>'], ['int4range', '[1,5)'], ['xml', '<a/>'], ['tsvector', 'a b'],
    ['int4[]', '{1,NULL,-3}'], ['int8[]', '{9007199254740993}'],
    ['text[]', '{"a,b",NULL,"c\\"d"}'],
    ['int4[]', '{{1,2},{3,4}}'], ['int4[]', '{}'], ['bool[]', '{t,f}'], ['float8[]', '{1.5}'],
    ['numeric[]', '{1.10}'], ['timestamptz[]', '{2026-01-01 00:00:00+00}'], ['date[]',
      '{2026-01-01}'], ['bytea[]', '{"\\\\x01"}'], ['json[]', '{"{\\"a\\":1}"}'], ['uuid[]',
      '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'], ['interval[]', '{1 day}'],
    ['point[]', '{"(1,2)"}'],
    ['varchar[]', '{a}'], ['inet[]', '{10.0.0.1}'], ['money[]', '{5}'],
  ];

  it('look as with pg, whatever their type', async () => {
    for (const [type, text] of types) {
      await same(`SELECT $1::text::${type} AS value, NULL::${type} AS nothing`, [text]);
    }
  });

  it('come back as they went in', async () => {
    const there = [
      ['bool', true], ['int4', 7], ['text', 'it\'s'], ['float8', 0.1], ['jsonb', { a: [1, null] }],
      ['int4[]', [1, null, 3]], ['text[]', ['a', 'b"c', 'd\\e', 'NULL', '']], ['bytea',
        Buffer.from([0, 1, 255])], ['timestamptz', new Date('2026-02-28T23:59:59.999Z')],
      ['timestamp', new Date('2026-07-01T12:00:00.001Z')], ['date', new Date(2026, 5, 7)],
      ['bytea[]', [Buffer.from([0, 92])]], ['int8', null], ['text[]', [['a'], ['b']]],
    ];
    for (const [type, value] of there) {
      const { rows } = await same(`SELECT $1::${type} AS value`, [value]);
      assert.deepEqual(rows[0].value, value, type);
    }
    const { rows } = await same('SELECT $1::int8 AS big, $2::numeric AS exact',
      [2n ** 62n, '1.10']);
    assert.deepEqual(rows, [{ big: String(2n ** 62n), exact: '1.10' }]);
  });

  it('have the fields, counts and commands of pg', async () => {
    await same('CREATE TABLE {} (id int PRIMARY KEY, name varchar(9), price numeric(9, 2))');
    await same('INSERT INTO {} VALUES ($1, $2, 5), (2, NULL, 6) RETURNING *', [1, 'one']);
    await same('SELECT id, name AS label, price * 2 AS twice, 1 AS id FROM {} ORDER BY price');
    await same('UPDATE {} SET price = 7 WHERE id = $1', [1]);
    await same('UPDATE {} SET price = 7 WHERE id = $1', [99]);
    await same('SELECT * FROM {} WHERE false');
    await same('SELECT');
    await same('SELECT 1 AS "__proto__", 2 AS "constructor", 3 AS "a b"');
    await same('SELECT i FROM generate_series(1, 1000) AS i');
    await same('SHOW server_version');
    await same('CREATE INDEX ON {} (name)');
    await same('DELETE FROM {} WHERE id = 2');
    await same('TRUNCATE {}');
    await same('DO $$ BEGIN END $$');
  });

  it('are arrays where that is asked for, as with pg', async () => {
    const ask = { text: 'SELECT $1::int AS a, 2 AS a, NULL AS b', values: [1], rowMode: 'array' };
    assert.deepEqual((await same(ask)).rows, [[1, 2, null]]);
    const { rows } = await pg.query('SELECT 1, 2', [], { rowMode: 'array' });
    assert.deepEqual(rows, [[1, 2]]);
  });

  it('go through what is set with pg', async () => {
    const { types: pgTypes } = require('pg');
    const before = pgTypes.getTypeParser(20);
    pgTypes.setTypeParser(20, BigInt);
    try {
      assert.deepEqual((await same('SELECT 7::int8 AS n')).rows, [{ n: 7n }]);
    } finally {
      pgTypes.setTypeParser(20, before);
    }
  });
});
