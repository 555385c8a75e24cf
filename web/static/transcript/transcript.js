// The transcript of a job: its words, those that recognizers dispute, and the word that is being played.

import { getJson } from "../api/client.js";
import { $, make } from "../dom.js";
import { clock, number, percent } from "../format.js";
import { reportError } from "../notices.js";
import { hideAlternatives, hideUnpinned, pinAlternatives, pinnedIndex, showAlternatives } from "./alternatives.js";
import { closePlayer, onPosition, openPlayer, playFrom } from "./player.js";
import { showSummary } from "./summary.js";
import { divideIntoTurns, fromSegments, separator, startOf } from "./turns.js";

let decisions = [];
let words = new Map(); // index of a decision -> its element
let disputed = []; // indices of the marked words, in order
let starts = []; // [start_ms, index], in order of time
let playing = null; // the element of the word that is being played

/** Hide the transcript, and release the recording. */
export function closeTranscript() {
  hideAlternatives();
  closePlayer();
  playing = null;
  $("transcript-area").hidden = true;
}

/** Read and show a transcript with its recording. The number of its run; 0 if it cannot be read. */
export async function openTranscript(path, signal) {
  try {
    const transcript = await getJson(path, { signal });
    const raw = await getJson(transcript.links.raw, { signal }).catch((error) => {
      if (error.status !== 404) throw error;
      return null; // the readings are gone from the store; the words are still there
    });
    if (signal.aborted) return 0;
    decisions = raw ? raw.decisions : fromSegments(transcript.segments);
    showSummary(transcript, raw);
    showWords();
    openPlayer(transcript.links.audio, signal);
    $("transcript-area").hidden = false;
    return transcript.run;
  } catch (error) {
    reportError(error);
    return 0;
  }
}

function showWords() {
  words = new Map();
  playing = null;
  $("transcript").replaceChildren(...divideIntoTurns(decisions).map(showTurn));
  if (!words.size) $("transcript").append(make("p", { class: "faint" }, "No speech was heard in this recording."));
  starts = [...words.keys()].map((index) => [decisions[index].chosen.start_ms, index]).filter(([start]) => start !== null);
  starts.sort((a, b) => a[0] - b[0]);
  markDisputed();
}

function showTurn(turn) {
  const { speaker, chosen } = decisions[turn[0]];
  const text = make("p", { dir: "auto" });
  turn.forEach((index, n) => text.append(n ? separator(textAt(turn[n - 1]), textAt(index)) : "", showWord(index)));
  const start = chosen.start_ms === null ? null
    : make("button", { type: "button", class: "at", onclick: () => playFrom(chosen.start_ms), title: "Play from here" }, clock(chosen.start_ms));
  return make("div", { class: "turn" }, make("div", { class: "who" }, speaker ? make("strong", {}, speaker) : null, start), text);
}

const textAt = (index) => decisions[index].chosen.text ?? "‸";

function showWord(index) {
  const { chosen, others } = decisions[index];
  const isDisputed = others.length > 0;
  const node = make(isDisputed ? "button" : "span", { class: "word" }, chosen.text ?? "‸");
  node.dataset.index = index;
  words.set(index, node);
  if (!isDisputed) return node;
  node.type = "button";
  node.tabIndex = -1;
  const readings = others.map((other) => other.text ?? "nothing").join(", ");
  node.setAttribute("aria-label", `${chosen.text ?? "left out"}, ${percent(chosen.probability)} sure; also heard: ${readings}`);
  if (chosen.text === null) node.classList.add("omitted");
  return node;
}

const DOUBTS = ["d1", "d2", "d3", "d4"];
const doubtOf = (probability) => (probability >= 0.9 ? "d1" : probability >= 0.75 ? "d2" : probability >= 0.5 ? "d3" : "d4");

/** Mark the disputed words that are less probable than the slider says; 100 % means all of them. */
function markDisputed() {
  const below = Number($("threshold").value) / 100;
  $("threshold-label").textContent = below === 1 ? "all disputed" : `below ${percent(below)}`;
  disputed = [];
  for (const [index, node] of words) {
    const { chosen, others } = decisions[index];
    if (!others.length) continue;
    const isMarked = below === 1 || chosen.probability < below;
    node.tabIndex = -1;
    node.classList.remove(...DOUBTS);
    node.classList.toggle("doubt", isMarked);
    if (!isMarked) continue;
    node.classList.add(doubtOf(chosen.probability));
    disputed.push(index);
  }
  if (disputed.length) words.get(disputed[0]).tabIndex = 0; // one stop for the Tab key; arrows go on from there
  $("doubts").textContent = disputed.length ? `${number(disputed.length)} in doubt` : "nothing in doubt";
  $("previous").disabled = $("next").disabled = !disputed.length;
}

/** Go to the next disputed word (1) or the previous one (-1). */
function goToDisputed(step) {
  if (!disputed.length) return;
  const pinned = pinnedIndex();
  const position = disputed.indexOf(pinned);
  const beyond = step > 0 ? disputed.find((index) => index > pinned) : disputed.findLast((index) => index < pinned);
  const index = position >= 0 ? disputed[(position + step + disputed.length) % disputed.length]
    : beyond ?? disputed.at(step > 0 ? 0 : -1);
  const node = words.get(index);
  for (const other of disputed) words.get(other).tabIndex = other === index ? 0 : -1;
  node.scrollIntoView({ block: "center", behavior: "smooth" });
  node.focus({ preventScroll: true });
  pinAlternatives(index, node, decisions[index]);
}

const wordOf = (target) => (target instanceof Element ? target.closest(".word") : null);
const indexOf = (node) => Number(node.dataset.index);

/** Mark the last word that begins at or before this position. */
function markPlaying(ms) {
  let low = 0, high = starts.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (starts[middle][0] <= ms) low = middle + 1;
    else high = middle;
  }
  const node = low ? words.get(starts[low - 1][1]) : null;
  if (node === playing) return;
  playing?.classList.remove("now");
  node?.classList.add("now");
  playing = node;
}

onPosition(markPlaying);
$("threshold").addEventListener("input", markDisputed);
$("next").addEventListener("click", () => goToDisputed(1));
$("previous").addEventListener("click", () => goToDisputed(-1));

$("transcript").addEventListener("click", ({ target }) => {
  const node = wordOf(target);
  if (!node) return;
  const index = indexOf(node);
  if (decisions[index].others.length) pinAlternatives(index, node, decisions[index]);
  else hideAlternatives();
  playFrom(startOf(decisions, index));
});

$("transcript").addEventListener("pointerover", ({ target, pointerType }) => {
  const node = wordOf(target);
  if (pointerType !== "mouse" || !node?.classList.contains("doubt") || pinnedIndex() >= 0) return;
  showAlternatives(node, decisions[indexOf(node)]);
});

$("transcript").addEventListener("pointerout", ({ target, pointerType }) => {
  if (pointerType === "mouse" && wordOf(target)) hideUnpinned();
});

addEventListener("keydown", (event) => {
  if (event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey || $("transcript-area").hidden) return;
  const isOnWord = wordOf(event.target) !== null;
  if (event.key === "Escape") hideAlternatives();
  else if (event.key === "n" || (isOnWord && event.key === "ArrowRight")) goToDisputed(1);
  else if (event.key === "p" || (isOnWord && event.key === "ArrowLeft")) goToDisputed(-1);
  else return;
  event.preventDefault();
});
