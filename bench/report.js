'use strict';

// Results as text.

// How each figure is named and written; figures that are not here are only in the JSON file.
const FIGURES = {
  rate: { head: '/s', digits: 0 },
  p50: { head: 'p50 ms', digits: 3 },
  p99: { head: 'p99 ms', digits: 2 },
  trips: { head: 'p50, round trips', digits: 2 },
  trips99: { head: 'p99, round trips', digits: 1 },
  cpu: { head: 'CPU us', digits: 1 },
  failed: { head: '% failed', digits: 2 },
  server: { head: 'server CPU us', digits: 1 },
  told: { head: 'messages', digits: 2 },
  lag99: { head: 'lag p99 ms', digits: 1 },
  block: { head: 'max block ms', digits: 0 },
  least: { head: 'least served', digits: 2 },
  keeper: { head: 'keeper, % of a core', digits: 2 },
  left: { head: 'least time left, s', digits: 1 },
  rss: { head: 'RSS bytes', digits: 0 },
  heap: { head: 'of these JS heap', digits: 0 },
};

const DIGITS_MAX = 9;

function number(value, digits) {
  return value.toLocaleString('en-US', {
    minimumFractionDigits: digits, maximumFractionDigits: digits,
  });
}

/** A ratio with two digits that count, as "12 x", "0.34 x" or "0.00012 x". */
function times(value) {
  // Of what will be written: 0.0999 is 0.10.
  const digits = value === 0 ? 2 : 1 - Math.floor(Math.log10(Number(value.toPrecision(2))));
  return `${number(value, Math.min(Math.max(digits, 0), DIGITS_MAX))} x`;
}

function spread({ q1, q3 }) {
  return `${times(q1).slice(0, -2)} to ${times(q3).slice(0, -2)}`;
}

function align(rows) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map((row) => row.map((cell, column) => (
    column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column])
  )).join('  ').trimEnd());
}

// With its quartiles where there is no ratio that shows how far it spreads.
function figureText(summed, { digits }, spreads) {
  if (summed === undefined) return '';
  const { median, q1, q3 } = summed;
  return spreads ? `${number(median, digits)} (${number(q1, digits)} to ${number(q3, digits)})`
    : number(median, digits);
}

function ratioLines(who, ratios, shown) {
  return Object.entries(ratios).flatMap(([peer, compared]) => {
    const parts = shown.filter((name) => name in compared).map((name) => (
      `${name} ${times(compared[name].median)} (${spread(compared[name])})`
    ));
    return parts.length > 0 ? [`  ${who} / ${peer}: ${parts.join(', ')}`] : [];
  });
}

/**
 * A scenario's results: medians of the rounds, and below, our ratios to each peer's; then, where a
 * scenario has it, the `cost` of its state to each of all, and why somebody is `unfinished`.
 */
function scenarioText({ title, unit, timed, compared, figures, ratios, more, ...rest }) {
  const { cost = {}, unfinished = {} } = rest;
  const names = Object.keys(figures);
  const shown = Object.keys(FIGURES).filter((name) => names.some((who) => name in figures[who]));
  const head = shown.map((name) => (name === 'rate' ? `${unit}${FIGURES.rate.head}`
    : FIGURES[name].head));
  const rows = names.map((who) => [who, ...shown.map((name) => (
    figureText(figures[who][name], FIGURES[name], timed)
  ))]);
  const lines = [
    ...align([['', ...head], ...rows]).map((line) => `  ${line}`),
    ...ratioLines(names[0], ratios, compared),
    ...Object.entries(more).flatMap(([who, others]) => ratioLines(who, others, compared)),
    ...Object.entries(cost).flatMap(([who, own]) => ratioLines(who, own, compared)),
    ...Object.entries(unfinished).map(([who, reason]) => `  ${who}: nothing measured, ${reason}`),
  ];
  return `${title}\n${lines.join('\n')}\n`;
}

function aimText({ what, aim, measured, unit, digits = 2, met }) {
  if (measured === null) return `  missed  ${what}: ${aim}; not measured`;
  const shown = unit === undefined ? times(measured) : `${number(measured, digits)} ${unit}`;
  return `  ${met ? 'met   ' : 'missed'}  ${what}: ${aim}; measured ${shown}`;
}

/** The aims beside what was measured. */
function aimsText(aims) {
  return ['Aims', ...aims.map(aimText)].join('\n');
}

module.exports = { scenarioText, aimsText, number, times };
