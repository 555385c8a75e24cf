// The box beside a word that recognizers dispute: what each of them heard there, to be chosen by click or by its number.

import { $, make } from "../dom.js";
import { clock, percent } from "../format.js";

const RULES = { unanimous: "all agree", calibrated: "the most probable reading", single: "from one recognizer", "": "" };
const KEYS = 9; // readings that have a key

let pinned = null; // { index, node } of the word whose box stays open
let choose = null; // called with the index of the entry and the number of a reading; null: nothing can be chosen

/** Index of the word whose box stays open; -1 for none. */
export const pinnedIndex = () => (pinned ? pinned.index : -1);

/** Say what choosing does; null: nothing can be chosen. */
export function onChoice(listener) {
  choose = listener;
}

/** Open the box of a word, and keep it open. */
export function pinAlternatives(index, node, entry) {
  pinned?.node.classList.remove("chosen");
  pinned = { index, node };
  node.classList.add("chosen");
  showAlternatives(index, node, entry);
}

/** Open the box of a word until the pointer leaves the word. */
export function showAlternatives(index, node, entry) {
  const readings = entry.readings.map((reading, number) => showReading(reading, number, entry, index));
  const close = make("button", { type: "button", class: "close", onclick: hideAlternatives, "aria-label": "Close" }, "×");
  const position = entry.start_ms === null ? "" : `${clock(entry.start_ms)} · `;
  const how = entry.isDisputed ? RULES[entry.rule] ?? entry.rule : "decided by a person";
  const help = choose ? make("p", { class: "by" }, "1–9 chooses, Enter edits, u undoes, n goes on") : "";
  $("heard").replaceChildren(make("header", {}, make("span", {}, position + how), close), make("ol", {}, ...readings), help);
  $("heard").hidden = false;
  moveTo(node);
}

function showReading(reading, number, entry, index) {
  const confidence = reading.confidence ?? null;
  const isTaken = reading.text === entry.text;
  const parts = [
    make("kbd", {}, number < KEYS ? String(number + 1) : ""),
    make("span", { class: reading.text === null ? "text nothing" : "text", dir: "auto" }, reading.text ?? "nothing was said"),
    make("span", { class: "right" }, percent(reading.probability)),
    make("progress", { value: reading.probability, max: 1, "aria-label": "Probability of being right" }),
    make("span", { class: "by" }, reading.providers.length ? `heard by ${reading.providers.join(", ")}` : "",
      confidence === null ? "" : `, its own confidence ${percent(confidence)}`),
  ];
  const row = choose
    ? make("button", { type: "button", class: "reading", "aria-pressed": String(isTaken), onclick: () => choose(index, number) }, ...parts)
    : make("div", { class: "reading" }, ...parts);
  return make("li", { class: isTaken ? "taken" : "" }, row);
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
