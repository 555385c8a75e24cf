// The box beside a disputed word: what each recognizer heard there, and how the word was chosen.

import { $, make } from "../dom.js";
import { clock, percent } from "../format.js";

const RULES = { unanimous: "all agree", calibrated: "the most probable reading", single: "from one recognizer", "": "" };

let pinned = null; // { index, node } of the word whose box stays open

/** Index of the word whose box stays open; -1 for none. */
export const pinnedIndex = () => (pinned ? pinned.index : -1);

/** Open the box of a word, and keep it open. */
export function pinAlternatives(index, node, decision) {
  pinned?.node.classList.remove("chosen");
  pinned = { index, node };
  node.classList.add("chosen");
  showAlternatives(node, decision);
}

/** Open the box of a word until the pointer leaves the word. */
export function showAlternatives(node, { chosen, others, rule }) {
  const readings = [chosen, ...others].map((reading) => showReading(reading, reading === chosen));
  const close = make("button", { type: "button", class: "close", onclick: hideAlternatives, "aria-label": "Close" }, "×");
  const position = chosen.start_ms === null ? "" : `${clock(chosen.start_ms)} · `;
  $("heard").replaceChildren(make("header", {}, make("span", {}, `${position}${RULES[rule] ?? rule}`), close), make("ul", {}, ...readings));
  $("heard").hidden = false;
  moveTo(node);
}

function showReading(reading, isChosen) {
  const confidence = reading.confidence ?? null;
  return make("li", { class: isChosen ? "taken" : "" },
    make("span", { class: reading.text === null ? "text nothing" : "text", dir: "auto" }, reading.text ?? "nothing was said"),
    make("span", { class: "right" }, percent(reading.probability)),
    make("progress", { value: reading.probability, max: 1, "aria-label": "Probability of being right" }),
    make("span", { class: "by" }, reading.providers.length ? `heard by ${reading.providers.join(", ")}` : "",
      confidence === null ? "" : `, its own confidence ${percent(confidence)}`),
  );
}

/** Below the word; above it where the window has no room below. */
function moveTo(node) {
  const word = node.getBoundingClientRect(), box = $("heard").getBoundingClientRect();
  const left = Math.min(Math.max(word.left, 12), document.documentElement.clientWidth - box.width - 12);
  const isBelow = word.bottom + 8 + box.height < innerHeight || word.top < box.height + 8;
  $("heard").style.left = `${left + scrollX}px`;
  $("heard").style.top = `${(isBelow ? word.bottom + 8 : word.top - box.height - 8) + scrollY}px`;
}

/** Close the box. */
export function hideAlternatives() {
  $("heard").hidden = true;
  pinned?.node.classList.remove("chosen");
  pinned = null;
}

/** Close the box unless it is kept open. */
export function hideUnpinned() {
  if (!pinned) $("heard").hidden = true;
}
