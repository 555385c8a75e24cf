// Divides a transcript into turns: a speaker's words, or those between two pauses.

const PAUSE_MS = 1200; // a longer one begins a new paragraph
const LONG_TURN = 60; // words after which the next sentence begins a new paragraph

/** Lists of indices of entries, one list a turn. A place without a word belongs to the turn before it. */
export function divideIntoTurns(entries) {
  const turns = [];
  let turn = null, last = null, count = 0;
  entries.forEach((entry, index) => {
    if (entry.text === null) {
      if (turn) turn.push(index);
      return;
    }
    if (!last || beginsTurn(entry, last, count)) {
      turns.push((turn = []));
      count = 0;
    }
    turn.push(index);
    count += 1;
    last = entry;
  });
  return turns;
}

function beginsTurn(entry, last, count) {
  const isAfterPause = entry.start_ms !== null && last.end_ms !== null && entry.start_ms - last.end_ms > PAUSE_MS;
  const isAfterLongSentence = count >= LONG_TURN && /[.?!。？！।؟۔]$/.test(last.text);
  return entry.speaker !== last.speaker || isAfterPause || isAfterLongSentence;
}

// The rule of `schemas.texts.joined`: Chinese and Japanese with their punctuation, and other scripts without spaces.
const EAST = "\\u2e80-\\u30ff\\u31f0-\\u31ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff\\uff00-\\uff9f\\u{20000}-\\u{3ffff}";
const OTHER = "\\u0e00-\\u109f\\u1780-\\u17ff\\u19e0-\\u19ff\\ua9e0-\\ua9ff\\uaa60-\\uaa7f";
const MARK = "[\\u3000-\\u3004\\u3007-\\u303f\\uff00-\\uff0f\\uff1a-\\uff20\\uff3b-\\uff40\\uff5b-\\uff65]";
const ADJOINING = [
  `.*${MARK} .*`, `.* ${MARK}.*`, // word, space, word
  `.*[${EAST}${OTHER}]\\p{P}* \\p{P}*[${EAST}${OTHER}].*`, `.*[${EAST}]\\p{P}* \\p{P}*\\d.*`, `.*\\d\\p{P}* \\p{P}*[${EAST}].*`,
].map((pattern) => new RegExp(`^${pattern}$`, "su"));

/** What is written between two words: a space, but nothing in scripts without spaces. */
export function separator(before, word) {
  const both = `${before.slice(-20)} ${word.slice(0, 20)}`;
  return ADJOINING.some((pattern) => pattern.test(both)) ? "" : " ";
}
