'use strict';

// Values between processes.

const assert = require('node:assert');
const path = require('node:path');
const { open } = require('..');
const { endChildren, start, useFolder } = require('./helpers');

describe('values between processes', () => {
  const folder = useFolder();
  endChildren();
  let hf;
  let url;
  before(async () => {
    url = `sqlite:${path.join(folder.path, 'kv.db')}`;
    hf = await open(url);
  });
  after(() => hf.close({ timeout: 0 }));

  const all = async (count, program) => {
    const children = Array.from({ length: count }, () => start(`
      const hf = await holdfast.open();
      ${program}
      await hf.close();
    `, url));
    return Promise.all(children.map((child) => child.hear('done')));
  };

  it('a stock of 5 is sold to 5 of 8 buyers', async () => {
    await hf.kv.put('stock', 5);
    const buyers = await all(8, `
      const sold = await hf.kv.increment('stock', -1, { min: 0 })
        .then(() => true, (error) => error.code);
      say('done', { sold });
    `);
    const outcomes = buyers.map(({ sold }) => sold);
    assert.strictEqual(outcomes.filter((sold) => sold === true).length, 5);
    assert.strictEqual(outcomes.filter((sold) => sold === 'HF_EBOUNDS').length, 3);
    assert.strictEqual((await hf.kv.get('stock')).value, 0);
  });

  it('update loses nothing', async () => {
    await all(4, `
      for (let i = 0; i < 50; i++) {
        await hf.kv.update('list', (list = []) => [...list, process.pid + ':' + i], {
          retries: 10000,
        });
      }
      say('done', {});
    `);
    const { value } = await hf.kv.get('list');
    assert.strictEqual(value.length, 200);
    assert.strictEqual(new Set(value).size, 200);
  });

  it('create has one winner', async () => {
    const outcomes = await all(6, `
      const won = await hf.kv.create('first', process.pid).then(() => true, (error) => error.code);
      say('done', { won });
    `);
    assert.deepStrictEqual(outcomes.map(({ won }) => won).sort(),
      ['HF_ECONFLICT', 'HF_ECONFLICT', 'HF_ECONFLICT', 'HF_ECONFLICT', 'HF_ECONFLICT', true]);
  });

  it('a fence that was handed over guards a write in another process', async () => {
    const stale = await hf.lock('resource');
    await stale.release();
    const lock = await hf.lock('resource');
    const write = (fence) => all(1, `
      const fence = ${JSON.stringify({ key: 'resource', fence })};
      const code = await hf.kv.put('guarded', 1, { fence }).then(() => 'ok', (error) => error.code);
      say('done', { code });
    `);
    assert.strictEqual((await write(lock.fence))[0].code, 'ok');
    assert.strictEqual((await write(stale.fence))[0].code, 'HF_ESTALE');
    await lock.release();
  });
});
