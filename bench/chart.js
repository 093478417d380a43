'use strict';

// One chart of all scenarios, as SVG: a bar per contender, its quartiles as a whisker.

const WIDTH = 860;
const LABELS = 230; // width of the names
const VALUES = 110; // and of the numbers
const BAR = 16;
const GAP = 5;
const COLORS = ['#0b7285', '#868e96', '#adb5bd', '#ced4da', '#dee2e6'];

function escape(words) {
  return words.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
}

function round(value) {
  return Math.round(value * 10) / 10;
}

function text(x, y, content, more = '') {
  return `<text x="${round(x)}" y="${round(y)}" ${more}>${escape(content)}</text>`;
}

const CAPTIONS = {
  rate: (unit) => `${unit} per second`,
  p50: () => 'ms at the median, on a logarithmic scale',
  server: (unit) => `microseconds of the server's processor, of ${unit}`,
};

// What a scenario's bars show: the first of the figures that are compared.
function drawn({ title, unit, timed, compared: [name], figures, unfinished = {} }) {
  const shown = Object.entries(figures).filter(([, of]) => name in of);
  return {
    caption: `${title}, ${CAPTIONS[name](unit)}`,
    series: shown.map(([who, of]) => [who, of[name]]),
    missing: Object.keys(unfinished),
    write: (value) => (timed ? value.toPrecision(2)
      : Math.round(value).toLocaleString('en-US')),
  };
}

// From nothing to `most`; the times of those who wait well and badly differ a thousand times and
// more, so that theirs begin at half of the least.
function scaleOf(series, timed) {
  const most = Math.max(...series.map(([, { q3 }]) => q3));
  const least = Math.min(...series.map(([, { q1 }]) => q1)) / 2;
  const part = timed ? (value) => Math.log(value / least) / Math.log(most / least)
    : (value) => value / most;
  return (value) => part(value) * (WIDTH - LABELS - VALUES);
}

// Each scenario has a scale of its own: their rates differ by orders of magnitude, and what is
// compared stands within one.
function bars(result, top) {
  const { caption, series, missing, write } = drawn(result);
  const scale = scaleOf(series, result.timed);
  const parts = [text(0, top + BAR, caption, 'class="title"')];
  let y = top + BAR + 2 * GAP;
  series.forEach(([name, figure], i) => {
    const middle = y + BAR / 2;
    parts.push(
      text(LABELS - 8, middle + 4, name, 'text-anchor="end"'),
      `<rect x="${LABELS}" y="${y}" width="${round(Math.max(1, scale(figure.median)))}"`
      + ` height="${BAR}" fill="${COLORS[Math.min(i, COLORS.length - 1)]}"/>`,
      `<path d="M${round(LABELS + scale(figure.q1))} ${middle}H${round(LABELS + scale(figure.q3))}"`
      + ' stroke="#212529"/>',
      text(LABELS + scale(Math.max(figure.median, figure.q3)) + 8, middle + 4,
        write(figure.median)),
    );
    y += BAR + GAP;
  });
  for (const name of missing) {
    const at = y + BAR / 2 + 4;
    parts.push(text(LABELS - 8, at, name, 'text-anchor="end"'), text(LABELS, at, 'not measured'));
    y += BAR + GAP;
  }
  return { svg: parts.join('\n'), bottom: y + 2 * GAP };
}

/**
 * @param {object[]} results of scenarios, as play() returns them
 * @param {string} caption where and when
 * @returns {string} SVG
 */
function chart(results, caption) {
  const parts = [];
  let y = 0;
  for (const result of results) {
    if (drawn(result).series.length === 0) continue;
    const { svg, bottom } = bars(result, y);
    parts.push(svg);
    y = bottom;
  }
  parts.push(text(0, y + BAR, caption, 'fill="#868e96"'));
  const margin = 20;
  const height = y + BAR + 2 * margin;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH + 2 * margin}" height="${height}"`
    + ' font-family="sans-serif" font-size="12">\n'
    + '<style>.title { font-weight: bold; font-size: 13px }</style>\n'
    + '<rect width="100%" height="100%" fill="#ffffff"/>\n'
    + `<g transform="translate(${margin} ${margin})">\n${parts.join('\n')}\n</g>\n</svg>\n`;
}

module.exports = { chart };
