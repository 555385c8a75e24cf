// The transcript of a job: its words, those that recognizers dispute, the word that is being played, and what a person
// does with them.

import { getJson, jobPath } from "../api/client.js";
import { $, isModified, isTyping } from "../dom.js";
import { reportError, tellError } from "../notices.js";
import { hideAlternatives, hideUnpinned, onChoice, pinAlternatives, pinnedIndex, showAlternatives } from "./alternatives.js";
import { goToDoubt, goToNeighbour, markDoubts } from "./doubts.js";
import { beginEditing, chooseReading, endEditing, isEditable, renameSpeaker, undo, writeWord } from "./editing.js";
import { entriesOf, fromSegments, startOf, wordsOf } from "./entries.js";
import { closeEditor, editInPlace } from "./inline_editor.js";
import { onPosition, playFrom, player } from "./recording.js";
import { showSuggestions } from "./suggestions.js";
import { showSummary } from "./summary.js";
import { redraw, showText, text } from "./text.js";
import { refreshVersions, wireVersions } from "./versions.js";

let starts = []; // [start_ms, index], in order of time
let playing = null; // the element of the word that is being played

/** Hide the transcript, and release the recording. */
export function closeTranscript() {
  hideAlternatives();
  closeEditor();
  endEditing();
  player.close();
  wireVersions(null);
  showText([], false);
  showSuggestions([]);
  playing = null;
  $("transcript-area").hidden = $("summary-box").hidden = true;
}

/** Read and show a job's transcript with its recording, at a moment. The number of its run; 0 if it cannot be read. */
export async function openTranscript(tenant, job, signal, at = null) {
  try {
    const transcript = await getJson(jobPath(tenant, job, "/transcript"), { signal });
    const opened = { tenant, job, run: transcript.run, signal };
    const [raw, edited] = await Promise.all([part(opened, "raw"), transcript.version > 1 ? part(opened, "words") : null]);
    if (signal.aborted) return 0;
    showSummary(transcript, raw);
    $("transcript-area").hidden = false;
    const made = raw && transcript.version === 1 ? { words: wordsOf(raw.decisions), run: transcript.run, version: 1 } : edited;
    if (made) showNewest({ ...opened, decisions: raw?.decisions ?? [] }, made);
    else show(fromSegments(transcript.segments), "The words are not in the storage any more: the text cannot be edited.");
    showSuggestions(isEditable() ? transcript.suggestions : []);
    player.open(transcript.links.audio, signal, at);
    if (at !== null) goTo(at);
    return transcript.run;
  } catch (error) {
    if (!signal.aborted) reportError(error);
    return 0;
  }
}

/** The raw transcript or the words of a run; null where they are not in the store any more. */
function part({ tenant, job, run, signal }, name, query = {}) {
  return getJson(jobPath(tenant, job, `/transcript/${name}`, { run, ...query }), { signal }).catch((error) => {
    if (error.status !== 404) throw error;
    return null;
  });
}

/** Show the newest version of a transcript, to be edited. */
function showNewest(opened, { words, run, version }) {
  const { tenant, job, decisions } = opened;
  const reload = async () => {
    const read = await part(opened, "words");
    if (read && !opened.signal.aborted) showNewest(opened, read);
  };
  beginEditing({ tenant, job, run, version, etag: `"${run}-${version}"`, changed: showChanged, reload });
  wireVersions({ tenant, job, run, show: (chosen, newest) => showVersion(opened, chosen, newest, reload) });
  show(entriesOf(words, decisions));
}

/** Show one version, which can be edited only if it is the newest. */
async function showVersion(opened, version, newest, reload) {
  try {
    if (version === newest) return await reload();
    const read = await part(opened, "words", { version });
    if (opened.signal.aborted) return;
    if (!read) return reportError(new Error("This version is not in the storage any more."));
    endEditing();
    show(entriesOf(read.words, opened.decisions), `Version ${version} of ${newest}: it can be read, the newest can be edited.`);
    $("newest").hidden = false;
    $("newest").onclick = () => reload().catch(tellError);
    $("earlier").scrollIntoView({ block: "nearest" });
  } catch (error) {
    tellError(error);
  }
}

function show(entries, notice = "") {
  hideAlternatives();
  closeEditor();
  onChoice(isEditable() ? chooseReading : null);
  showText(entries, isEditable());
  $("earlier").hidden = !notice;
  $("earlier-text").textContent = notice;
  $("newest").hidden = true;
  $("undo").hidden = !isEditable();
  showMarks();
}

function showMarks() {
  playing = null;
  starts = [...text.nodes.keys()].map((index) => [text.entries[index].start_ms, index]).filter(([start]) => start !== null);
  starts.sort((a, b) => a[0] - b[0]);
  markDoubts();
}

/** Show the word that is said at a moment, and play from there. */
export function openMoment(ms) {
  goTo(ms);
  player.play(ms);
}

function goTo(ms) {
  const [, index] = starts.findLast(([start]) => start <= ms) ?? starts[0] ?? [];
  for (const word of document.querySelectorAll(".word.found")) word.classList.remove("found");
  text.nodes.get(index)?.classList.add("found");
  text.nodes.get(index)?.scrollIntoView({ block: "center" });
}

/** Show changed entries in their places, or all of them. The focus and the open box stay where they are. */
function showChanged(indices) {
  const pinned = pinnedIndex();
  const focused = indexOf(wordOf(document.activeElement)) ?? pinned;
  if (indices) indices.forEach(redraw);
  else showText(text.entries, true);
  showMarks();
  text.nodes.get(focused)?.focus({ preventScroll: true });
  if (pinned >= 0 && text.nodes.has(pinned)) pinAlternatives(pinned, text.nodes.get(pinned), text.entries[pinned]);
  refreshVersions();
}

const wordOf = (target) => (target instanceof Element ? target.closest(".word") : null);
const indexOf = (node) => (node ? Number(node.dataset.index) : null);

/** Mark the last word that begins at or before this position. */
function markPlaying(ms) {
  let low = 0, high = starts.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (starts[middle][0] <= ms) low = middle + 1;
    else high = middle;
  }
  const node = low ? text.nodes.get(starts[low - 1][1]) : null;
  if (node === playing) return;
  playing?.classList.remove("now");
  node?.classList.add("now");
  playing = node;
}

function pin(index, node) {
  if (text.entries[index].readings.length > 1) pinAlternatives(index, node, text.entries[index]);
  else hideAlternatives();
}

function editWord(node) {
  const index = indexOf(node);
  if (!isEditable() || text.entries[index].text === null) return;
  hideAlternatives();
  editInPlace(node, text.entries[index].text, "Word; empty removes it", (written) => writeWord(index, written));
}

onPosition(markPlaying);

$("transcript").addEventListener("click", ({ target, detail }) => {
  if (target.dataset.speaker !== undefined)
    return editInPlace(target, target.dataset.speaker, "Name of the speaker", (name) => renameSpeaker(target.dataset.speaker, name));
  const node = wordOf(target);
  if (!node || detail > 1) return;
  pin(indexOf(node), node);
  playFrom(startOf(text.entries, indexOf(node)));
});

$("transcript").addEventListener("dblclick", ({ target }) => {
  if (wordOf(target)) editWord(wordOf(target));
});

$("transcript").addEventListener("pointerover", ({ target, pointerType }) => {
  const node = wordOf(target);
  if (pointerType !== "mouse" || !node?.classList.contains("doubt") || pinnedIndex() >= 0) return;
  showAlternatives(indexOf(node), node, text.entries[indexOf(node)]);
});

$("transcript").addEventListener("pointerout", ({ target, pointerType }) => {
  if (pointerType === "mouse" && wordOf(target)) hideUnpinned();
});

addEventListener("pointerdown", ({ target }) => {
  if (target instanceof Element && !target.closest(".word, .heard, .tools")) hideAlternatives();
});

addEventListener("keydown", (event) => {
  if ($("transcript-area").hidden || $("job").hidden || isTyping(event)) return;
  const isUndo = event.key === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey;
  if (isModified(event) && !isUndo) return;
  const node = wordOf(event.target), index = indexOf(node);
  if (event.key === "Escape") hideAlternatives();
  else if (event.key === "n") goToDoubt(1);
  else if (event.key === "p") goToDoubt(-1);
  else if (event.key === "u" || isUndo) undo();
  else if (/^[1-9]$/.test(event.key) && pinnedIndex() >= 0 && isEditable()) chooseReading(pinnedIndex(), Number(event.key) - 1);
  else if (node && event.key === "Enter") editWord(node);
  else if (node && event.key === "ArrowRight") goToNeighbour(index, 1);
  else if (node && event.key === "ArrowLeft") goToNeighbour(index, -1);
  else return;
  event.preventDefault();
});
