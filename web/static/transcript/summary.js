// The figures above a transcript: length, confidence, notes, and how each recognizer did.

import { $, make } from "../dom.js";
import { clock, number, percent } from "../format.js";

/** Show the figures of a transcript; `raw` is null where the readings are not in the store any more. */
export function showSummary(transcript, raw) {
  const quality = raw ? raw.quality : transcript.quality;
  const facts = [
    ["Length", clock(transcript.duration_ms)], ["Words", number(transcript.words)],
    ["Confidence", percent(transcript.confidence)], ["Agreement", percent(transcript.agreement)],
    ["Expected errors", number(quality.expected_word_errors)],
    ["Disputed per 1000", number(quality.disputed_spans_per_1000_words)],
    ["Disputes that mix", percent(quality.mixed_disputes)],
    ["Language", transcript.language ?? "–"], ["Decided by", transcript.method],
  ];
  $("facts").replaceChildren(...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  const gaps = (quality.gaps ?? []).map(([from, to, recognizer]) => `${clock(from)}–${clock(to)}: only ${recognizer} heard words.`);
  $("notes").replaceChildren(...[...transcript.reconciliation_notes, ...gaps].map((note) => make("li", {}, note)));
  showRecognizers(quality.recognizers ?? {}, transcript.provider_confidences);
}

function showRecognizers(recognizers, confidences) {
  const names = Object.keys({ ...confidences, ...recognizers });
  $("recognizers-box").hidden = !names.length;
  const head = ["Recognizer", "Its confidence", "Words", "Coverage", "Agrees with the result"];
  $("recognizers").replaceChildren(
    make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text))),
    ...names.map((name) => {
      const { confidence = confidences[name], words, coverage, agreement } = recognizers[name] ?? {};
      const cells = [name, percent(confidence), number(words), percent(coverage), percent(agreement)];
      return make("tr", {}, ...cells.map((text) => make("td", {}, text)));
    }),
  );
}
