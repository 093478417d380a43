'use strict';

// A store's URL as it may be shown: without user name and password, and without the values of
// query parameters, whatever they are. It works on text that is no valid URL too, since a URL
// with a typing error holds the same password: everything before the last @ is then taken for a
// secret.

/**
 * @param {string} url
 * @returns {string}
 */
function redact(url) {
  const text = String(url);
  const list = /^(quorum:)(.*)$/is.exec(text);
  if (list !== null) return list[1] + list[2].split(' ').map(redact).join(' ');
  // A path may have an @ in its name, and no password.
  const local = /^(sqlite|memory):/i.test(text);
  const bare = local ? text : text.replace(/^([a-z][a-z0-9+.-]*:)?(\/*)[^]*@/i, '$1$2***@');
  return bare.replace(/([?&;][^=&;]*)=[^&;]*/g, '$1=***');
}

module.exports = { redact };
