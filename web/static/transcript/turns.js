// Divides a transcript into turns: a speaker's words, or those between two pauses.

const PAUSE_MS = 1200; // a longer one begins a new paragraph
const LONG_TURN = 60; // words after which the next sentence begins a new paragraph

/** Lists of indices of decisions, one list a turn. A decision without a word belongs to the turn before it. */
export function divideIntoTurns(decisions) {
  const turns = [];
  let turn = null, last = null, count = 0;
  decisions.forEach((decision, index) => {
    if (decision.chosen.text === null) {
      if (turn && decision.others.length) turn.push(index);
      return;
    }
    if (!last || beginsTurn(decision, last, count)) {
      turns.push((turn = []));
      count = 0;
    }
    turn.push(index);
    count += 1;
    last = decision;
  });
  return turns;
}

function beginsTurn(decision, last, count) {
  const { start_ms } = decision.chosen;
  const isAfterPause = start_ms !== null && last.chosen.end_ms !== null && start_ms - last.chosen.end_ms > PAUSE_MS;
  const isAfterLongSentence = count >= LONG_TURN && /[.?!]$/.test(last.chosen.text);
  return decision.speaker !== last.speaker || isAfterPause || isAfterLongSentence;
}

/** The decisions of a transcript whose readings are not in the store any more: its words, none of them disputed. */
export const fromSegments = (segments) => segments.flatMap((segment) => segment.text.split(" ").map((text, n) => ({
  chosen: { text, providers: [], probability: segment.confidence ?? 1, start_ms: n ? null : segment.start_ms, end_ms: null },
  others: [], rule: "", speaker: segment.speaker,
})));

/** When a word is spoken, in milliseconds; for one that was left out, when the word before it ends; null if unknown. */
export function startOf(decisions, index) {
  const { chosen, others } = decisions[index];
  const start = chosen.start_ms ?? others.find((other) => other.start_ms !== null)?.start_ms;
  if (start !== null && start !== undefined) return start;
  return decisions.slice(0, index).findLast((decision) => decision.chosen.end_ms !== null)?.chosen.end_ms ?? null;
}
