'use strict';

/**
 * Writes a value as JSON.stringify would, but with sorted keys, so that two requests that differ in
 * the order of their members alone are the same request. Works without recursion: the nesting of a
 * body is the client's choice, the depth of the stack is not.
 *
 * @param {unknown} value what a body parser made
 * @returns {string}
 * @throws {TypeError} when the value contains itself
 */
function canonicalJson(value) {
  const out = [];
  const open = new Set();
  const work = [{ value }];
  while (work.length > 0) {
    const item = work.pop();
    if (item.close) open.delete(item.close);
    if (item.text !== undefined) out.push(item.text);
    else write(item.value, out, open, work);
  }
  return out.join('');
}

function write(given, out, open, work) {
  const value = typeof given?.toJSON === 'function' ? given.toJSON() : given;
  if (value === null || typeof value !== 'object') {
    out.push(scalar(value));
    return;
  }
  if (open.has(value)) throw new TypeError('the request body contains itself');
  open.add(value);
  const items = Array.isArray(value) ? arrayItems(value) : objectItems(value);
  // The work list is a stack: what is to be written first goes on it last.
  work.push({ text: Array.isArray(value) ? ']' : '}', close: value });
  for (let i = items.length - 1; i >= 0; i--) work.push(items[i]);
  out.push(Array.isArray(value) ? '[' : '{');
}

function scalar(value) {
  if (typeof value === 'bigint') return `${value}n`;
  return JSON.stringify(value) ?? 'null'; // undefined, functions and symbols inside an array
}

function arrayItems(array) {
  const items = [];
  for (let i = 0; i < array.length; i++) {
    if (i > 0) items.push({ text: ',' });
    items.push({ value: array[i] });
  }
  return items;
}

function objectItems(object) {
  const items = [];
  for (const name of Object.keys(object).sort()) {
    const value = object[name];
    if (value === undefined || typeof value === 'function' || typeof value === 'symbol') continue;
    items.push({ text: `${items.length > 0 ? ',' : ''}${JSON.stringify(name)}:` }, { value });
  }
  return items;
}

module.exports = { canonicalJson };
