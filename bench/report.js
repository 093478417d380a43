'use strict';

// Results as text.

// How each figure is named and written; figures that are not here are only in the JSON file.
const FIGURES = {
  rate: { head: '/s', digits: 0 },
  p50: { head: 'p50 ms', digits: 3 },
  p99: { head: 'p99 ms', digits: 2 },
  cpu: { head: 'CPU us', digits: 1 },
  lag99: { head: 'lag p99 ms', digits: 1 },
  block: { head: 'max block ms', digits: 0 },
  least: { head: 'least served', digits: 2 },
};

function number(value, digits) {
  return value.toLocaleString('en-US', {
    minimumFractionDigits: digits, maximumFractionDigits: digits,
  });
}

/** A ratio with two digits that count, as "12 x" or "0.34 x". */
function times(value) {
  return `${number(value, value < 1 ? 2 : value < 10 ? 1 : 0)} x`;
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

/** A scenario's results: medians of the rounds, and below, our ratios to each peer's. */
function scenarioText({ title, unit, figures, ratios }) {
  const names = Object.keys(figures);
  const shown = Object.keys(FIGURES).filter((name) => names.some((who) => name in figures[who]));
  const head = shown.map((name) => (name === 'rate' ? `${unit}${FIGURES.rate.head}`
    : FIGURES[name].head));
  const rows = names.map((who) => [who, ...shown.map((name) => (
    name in figures[who] ? number(figures[who][name].median, FIGURES[name].digits) : ''
  ))]);
  const lines = align([['', ...head], ...rows]).map((line) => `  ${line}`);
  for (const [peer, compared] of Object.entries(ratios)) {
    const parts = ['rate', 'p50'].filter((name) => name in compared).map((name) => (
      `${name} ${times(compared[name].median)} (${spread(compared[name])})`
    ));
    if (parts.length > 0) lines.push(`  ${names[0]} / ${peer}: ${parts.join(', ')}`);
  }
  return `${title}\n${lines.join('\n')}\n`;
}

function aimText({ what, aim, measured, unit, met }) {
  const shown = unit === undefined ? times(measured) : `${number(measured, 2)} ${unit}`;
  return `  ${met ? 'met   ' : 'missed'}  ${what}: ${aim}; measured ${shown}`;
}

/** The aims beside what was measured. */
function aimsText(aims) {
  return ['Aims', ...aims.map(aimText)].join('\n');
}

module.exports = { scenarioText, aimsText, number, times };
