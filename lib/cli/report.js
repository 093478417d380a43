'use strict';

const { redact } = require('../prove/redact');

/** A message, in which any word may be a URL with a password. */
function redactText(text) {
  return text.replace(/\S*(?:@|\?\w+=)\S*/g, redact);
}

/** Says an error in one line, or with its stack to who asked for it. */
function report(error, prefix, { stderr, env }) {
  const text = env.DEBUG ? error.stack : error.message.replace(/\s*\n\s*/g, ' ');
  const code = error.code && !text.includes(error.code) ? ` (${error.code})` : '';
  stderr.write(`${prefix}: ${redactText(text)}${code}\n`);
}

module.exports = { redactText, report };
