// The places of a transcript in order: the words of one version, and the places that have none, each with what the
// recognizers heard there. Word `w7` is of the run's decision 7; people's own words have other ids, and no readings.

const SLOT = /^w(\d+)$/;

/**
 * Entries { id, text, speaker, start_ms, end_ms, probability, isDisputed, readings, rule }. `text` is null where nothing
 * is written; `readings` begin with the run's choice, and are empty for people's own words.
 */
export function entriesOf(words, decisions) {
  const entries = [];
  const present = new Set(words.map((word) => word.id));
  let next = 0; // the first decision that has no entry yet
  const addEmpty = (end) => {
    for (; next < end; next += 1)
      if (decisions[next].others.length && !present.has(`w${next}`)) entries.push(emptyEntry(next, decisions[next], entries.at(-1)));
  };
  for (const word of words) {
    const slot = SLOT.exec(word.id);
    const decision = slot ? decisions[Number(slot[1])] : undefined;
    if (decision && Number(slot[1]) >= next) {
      addEmpty(Number(slot[1]));
      next = Number(slot[1]) + 1;
    }
    entries.push({
      id: word.id, text: word.text, speaker: word.speaker, start_ms: word.start_ms, end_ms: word.end_ms,
      probability: word.confidence ?? 1, isDisputed: word.disputed, readings: readingsOf(decision), rule: decision?.rule ?? "",
    });
  }
  addEmpty(decisions.length);
  return entries;
}

/** A place without a word. It is in doubt if the run decided so; where the run had a word, a person has removed it. */
function emptyEntry(slot, decision, before) {
  return {
    id: `w${slot}`, text: null, speaker: decision.speaker ?? before?.speaker ?? null, start_ms: null, end_ms: null,
    probability: decision.chosen.probability, isDisputed: decision.chosen.text === null, readings: readingsOf(decision), rule: decision.rule,
  };
}

const readingsOf = (decision) => (decision ? [decision.chosen, ...decision.others] : []);

/** The words of the version that the run made, as the server derives them: a request less for most transcripts. */
export const wordsOf = (decisions) => decisions.flatMap(({ chosen, others, speaker }, slot) => (chosen.text === null ? [] : [{
  id: `w${slot}`, text: chosen.text, start_ms: chosen.start_ms, end_ms: chosen.end_ms, speaker,
  confidence: chosen.probability, disputed: others.length > 0,
}]));

/** The words of a transcript whose words with ids are not in the store any more; they cannot be edited. */
export const fromSegments = (segments) => segments.flatMap((segment) => segment.text.split(" ").map((text, n) => ({
  id: "", text, speaker: segment.speaker, start_ms: n ? null : segment.start_ms, end_ms: null,
  probability: segment.confidence ?? 1, isDisputed: false, readings: [], rule: "",
})));

/** When an entry is spoken, in milliseconds; where nothing is written, when the word before ends; null if unknown. */
export function startOf(entries, index) {
  const { start_ms, readings } = entries[index];
  const start = start_ms ?? readings.find((reading) => reading.start_ms !== null)?.start_ms;
  if (start !== null && start !== undefined) return start;
  return entries.slice(0, index).findLast((entry) => entry.end_ms !== null)?.end_ms ?? null;
}
