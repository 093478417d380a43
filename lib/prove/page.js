'use strict';

// The result of the trials as a page of plain text: naive code, or another library, and Holdfast
// side by side. It says everything in words and columns; colour only adds to it.

const { styleText } = require('node:util');

const MARGIN = '   ';
const GAP = '  ';
const LABEL = 16;
const CELL = 28;
const WIDTH = MARGIN.length + LABEL + 2 * (GAP.length + CELL);

/** Breaks text into lines of at most `width`, between words where it can. */
function wrap(text, width) {
  const lines = [''];
  for (const word of text.split(' ')) {
    const line = lines.at(-1);
    const longer = line ? `${line} ${word}` : word;
    if (longer.length <= width) lines[lines.length - 1] = longer;
    else lines.push(...word.match(new RegExp(`.{1,${width}}`, 'g')));
  }
  return lines[0] ? lines : lines.slice(1);
}

/** Text in a style, where colour is wanted. */
function painter(colour) {
  return (style, text) =>
    (colour && style && text ? styleText(style, text, { validateStream: false }) : text);
}

/** One row of the table, as many lines as its fullest cell needs. */
function row(paint, label, cells, styles = []) {
  const columns = [wrap(label, LABEL), ...cells.map((cell) => wrap(cell, CELL))];
  const height = Math.max(...columns.map((lines) => lines.length));
  const cell = (column, i, style, width) => {
    const text = column[i] ?? '';
    return paint(style, text) + ' '.repeat(width - text.length);
  };
  return Array.from({ length: height }, (_, i) => [
    cell(columns[0], i, 'dim', LABEL),
    cell(columns[1], i, styles[0], CELL),
    cell(columns[2], i, styles[1], CELL),
  ].join(GAP)).map((line) => MARGIN + line.trimEnd());
}

/** What is said under the naive code: it breaks nearly always, but it is allowed to be lucky. */
function naiveVerdict({ held }) {
  return held ? 'got lucky this time' : 'BROKE';
}

/** What is said under a library, which means to hold. */
function verdictOf({ held, broken }) {
  return held ? 'held' : `BROKE: ${broken.join('; ')}`;
}

/** Those beside whom Holdfast is played. */
const RIVALS = {
  naive: { title: 'naive code', whole: 'the naive code', verdictOf: naiveVerdict, lucky: 'yellow' },
  redlock: { title: 'redlock', whole: 'redlock', verdictOf, lucky: 'green' },
};

function rivalOf(result) {
  return Object.keys(RIVALS).find((name) => name in result);
}

/** The lines above the trials. */
function head(info, { colour = false, title = 'holdfast prove' } = {}) {
  const paint = painter(colour);
  const kept = info.temporary ? ' (a new file, removed afterwards)' : '';
  return [
    paint('bold', title),
    ...wrap(`store: ${info.store}${kept}`, WIDTH),
    '',
    ...wrap(`Each step is really played, by many processes: ${info.against
      ? `with ${info.against}` : 'as it is mostly written'}, and with Holdfast` +
      `${info.against ? ', on the same server' : ''}. An append-only file outside the store ` +
      'counts what happened.', WIDTH),
    '',
  ].join('\n');
}

/** One trial. */
function trial(result, nth, { colour = false } = {}) {
  const paint = painter(colour);
  const lines = [paint('bold', `${nth}. ${result.title}`), ''];
  if (result.error) {
    lines.push(`${MARGIN}${paint('red', 'could not be played')}: ${result.error.message}`, '');
    return lines.join('\n');
  }
  const name = rivalOf(result);
  const rival = RIVALS[name];
  const { [name]: theirs, holdfast, story } = result;
  lines.push(
    ...row(paint, '', [rival.title, 'Holdfast'], ['underline', 'underline']),
    ...row(paint, 'code', [theirs.code, holdfast.code]),
    ...story.flatMap((told) => row(paint, told.label, [told[name], told.holdfast])),
    ...row(paint, 'verdict', [rival.verdictOf(theirs), verdictOf(holdfast)],
      [theirs.held ? rival.lucky : 'red', holdfast.held ? 'green' : 'red']),
    '',
  );
  return lines.join('\n');
}

/** The last line. */
function verdict(result, { colour = false } = {}) {
  const paint = painter(colour);
  const all = result.trials.length;
  const kept = result.trials.filter(({ held }) => held).length;
  const rivals = result.trials.filter(rivalOf).map((each) => [rivalOf(each), each]);
  const broke = rivals.filter(([name, each]) => !each[name].held).length;
  const who = RIVALS[rivals[0]?.[0] ?? 'naive'].whole;
  const time = `${(result.ms / 1000).toFixed(1)} s`;
  if (result.held) {
    return paint('green', `Holdfast kept ${kept} of ${all} guarantees; ` +
      `${who} broke ${broke} of ${all}. (${time})`);
  }
  const failed = result.trials.filter(({ held }) => !held).map(({ name }) => name).join(', ');
  return paint('red', `NOT PROVEN: Holdfast kept ${kept} of ${all} guarantees; ` +
    `see ${failed}. (${time})`);
}

module.exports = { head, trial, verdict };
