// Marks the words that are in doubt, and goes from one to the next.

import { $ } from "../dom.js";
import { number, percent } from "../format.js";
import { pinAlternatives, pinnedIndex } from "./alternatives.js";
import { text } from "./text.js";

const DOUBTS = ["d1", "d2", "d3", "d4"];
const doubtOf = (probability) => (probability >= 0.9 ? "d1" : probability >= 0.75 ? "d2" : probability >= 0.5 ? "d3" : "d4");

let doubtful = []; // indices of the marked entries, in order
let stop = -1; // the one entry that the Tab key stops at; arrows go on from there

/** Mark the disputed words that are less probable than the slider says; 100 % means all of them. */
export function markDoubts() {
  const below = Number($("threshold").value) / 100;
  $("threshold-label").textContent = below === 1 ? "all disputed" : `below ${percent(below)}`;
  doubtful = [];
  text.entries.forEach((entry, index) => {
    const isMarked = entry.isDisputed && entry.readings.length > 1 && (below === 1 || entry.probability < below);
    const node = text.nodes.get(index);
    if (!node || (!isMarked && !node.classList.contains("doubt"))) return;
    node.classList.remove(...DOUBTS);
    node.classList.toggle("doubt", isMarked);
    if (!isMarked) return;
    node.classList.add(doubtOf(entry.probability));
    doubtful.push(index);
  });
  if (!text.nodes.has(stop)) stop = -1;
  stopAt(stop >= 0 ? stop : (doubtful[0] ?? 0));
  $("doubts").textContent = doubtful.length ? `${number(doubtful.length)} in doubt` : "nothing in doubt";
  $("previous").disabled = $("next").disabled = !doubtful.length;
}

function stopAt(index) {
  if (text.nodes.has(stop)) text.nodes.get(stop).tabIndex = -1;
  stop = index;
  if (text.nodes.has(stop)) text.nodes.get(stop).tabIndex = 0;
}

/** Focus an entry, and open its box if it has one. */
export function goTo(index, { isSmooth = false } = {}) {
  const node = text.nodes.get(index);
  if (!node) return;
  stopAt(index);
  node.scrollIntoView({ block: isSmooth ? "center" : "nearest", behavior: isSmooth ? "smooth" : "auto" });
  node.focus({ preventScroll: true });
}

/** Go to the next word in doubt (1) or the one before (-1), from the word whose box is open or that has the focus. */
export function goToDoubt(step) {
  if (!doubtful.length) return;
  const from = pinnedIndex() >= 0 ? pinnedIndex() : Number(document.activeElement?.dataset.index ?? -1);
  const beyond = step > 0 ? doubtful.find((index) => index > from) : doubtful.findLast((index) => index < from);
  const index = beyond ?? doubtful.at(step > 0 ? 0 : -1);
  goTo(index, { isSmooth: true });
  pinAlternatives(index, text.nodes.get(index), text.entries[index]);
}

/** Go to the word beside one, over places where nothing is shown. */
export function goToNeighbour(index, step) {
  for (let next = index + step; text.nodes.has(next); next += step)
    if (text.entries[next].text !== null || text.nodes.get(next).classList.contains("doubt")) return goTo(next);
}

$("threshold").addEventListener("input", markDoubts);
$("next").addEventListener("click", () => goToDoubt(1));
$("previous").addEventListener("click", () => goToDoubt(-1));
