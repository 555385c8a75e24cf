// The text of a transcript on the page: its entries, and the element of each.

import { $, make } from "../dom.js";
import { clock, percent } from "../format.js";
import { playFrom } from "./recording.js";
import { divideIntoTurns, separator } from "./turns.js";

/** The entries that are shown, and the element of each by its index. */
export const text = { entries: [], nodes: new Map() };

let turns = []; // { indices, node }
let turnOf = []; // index of an entry -> its turn
let canRename = false;

/** Show these entries; `isEditable` says whether speakers' names are buttons. */
export function showText(entries, isEditable) {
  text.entries = entries;
  text.nodes = new Map();
  canRename = isEditable;
  turnOf = [];
  turns = divideIntoTurns(entries).map((indices) => ({ indices, node: showTurn(indices) }));
  for (const turn of turns) for (const index of turn.indices) turnOf[index] = turn;
  $("transcript").replaceChildren(...turns.map((turn) => turn.node));
  if (!turns.length) $("transcript").append(make("p", { class: "faint" }, "No speech was heard in this recording."));
}

/** Show an entry anew, with the turn that it is in: what stands between words depends on them. */
export function redraw(index) {
  const turn = turnOf[index];
  if (!turn) return;
  const before = turn.node;
  turn.node = showTurn(turn.indices);
  before.replaceWith(turn.node);
}

function showTurn(indices) {
  const { speaker, start_ms } = text.entries[indices[0]];
  const line = make("p", { dir: "auto" });
  indices.forEach((index, n) => line.append(n ? separator(textAt(indices[n - 1]), textAt(index)) : "", showEntry(index)));
  const start = start_ms === null ? null
    : make("button", { type: "button", class: "at", onclick: () => playFrom(start_ms), title: "Play from here" }, clock(start_ms));
  return make("div", { class: "turn" }, make("div", { class: "who" }, showSpeaker(speaker), start), line);
}

function showSpeaker(speaker) {
  if (!speaker) return null;
  if (!canRename) return make("strong", {}, speaker);
  const node = make("button", { type: "button", class: "speaker", title: `Rename ${speaker} everywhere` }, speaker);
  node.dataset.speaker = speaker;
  return node;
}

const textAt = (index) => text.entries[index].text ?? "‸";

function showEntry(index) {
  const { readings, text: written, probability } = text.entries[index];
  const hasChoice = readings.length > 1;
  const node = make(hasChoice ? "button" : "span", { class: "word" }, textAt(index));
  node.dataset.index = index;
  node.tabIndex = -1;
  text.nodes.set(index, node);
  if (written === null) node.classList.add("omitted");
  if (!hasChoice) return node;
  node.type = "button";
  const others = readings.filter((reading) => reading.text !== written).map((reading) => reading.text ?? "nothing");
  node.setAttribute("aria-label", `${written ?? "left out"}, ${percent(probability)} sure; also heard: ${others.join(", ")}`);
  return node;
}
