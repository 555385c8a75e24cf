// Edits of the transcript that is shown. Each is a new version on the server, made from the one that is shown here: where
// another person was faster, nothing is changed, and the transcript is read again.

import { getJson, jobPath, sendJson } from "../api/client.js";
import { $ } from "../dom.js";
import { ago } from "../format.js";
import { tell, tellError } from "../notices.js";
import { editorClosed } from "./inline_editor.js";
import { text } from "./text.js";

const MOST_CHANGES = 1000; // in one request, and words of one change
const MOST_REASON = 1000;

let session = null; // { tenant, job, run, version, etag, changed, reload } of the newest version; null: nothing can be edited
let owner = ""; // the job and run whose edits `steps` undoes
let steps = []; // edits that can be undone, the last one at the end: each a function that sends what restores
let turn = Promise.resolve(); // edits are sent one after the other: each is made from the version before

/**
 * Edit this version of a transcript. `changed(indices)` shows changed entries, all of them without indices;
 * `reload()` reads and shows the newest version.
 */
export function beginEditing(opened) {
  const edited = JSON.stringify([opened.tenant, opened.job, opened.run]);
  if (edited !== owner) [owner, steps] = [edited, []];
  session = opened;
  showUndo();
}

/** Nothing can be edited from now on. */
export function endEditing() {
  session = null;
  showUndo();
}

export const isEditable = () => session !== null;

/** Take a reading, by its number from 0. */
export function chooseReading(index, number) {
  const entry = text.entries[index];
  const reading = entry?.readings[number];
  if (!reading || (reading.text === entry.text && !entry.isDisputed)) return;
  edit(() => ({
    changes: [{ op: "choose", word: entry.id, reading: number }],
    reason: `${quoted(entry.text)} → ${quoted(reading.text)}`,
    apply: () => write(entry.id, reading.text),
    restore: restoring(index),
  }));
}

/** Write an entry otherwise; an empty text removes its word. */
export function writeWord(index, written) {
  const entry = text.entries[index];
  if (entry.text === null) return;
  edit(() => ({
    changes: [written ? { op: "replace", word: entry.id, text: written } : { op: "delete", word: entry.id }],
    reason: `${quoted(entry.text)} → ${quoted(written || null)}`,
    apply: () => write(entry.id, written || null),
    restore: restoring(index),
  }));
}

/** Call a speaker otherwise in the whole transcript. */
export function renameSpeaker(speaker, to) {
  if (!to || to === speaker) return;
  edit(() => {
    const theirs = text.entries.filter((entry) => entry.speaker === speaker);
    const isMerge = text.entries.some((entry) => entry.speaker === to);
    return {
      changes: [{ op: "rename", speaker, to }],
      reason: `speaker ${quoted(speaker)} → ${quoted(to)}`,
      apply: () => assign(theirs, to),
      restore: () => ({
        changes: isMerge ? assignments(theirs, speaker) : [{ op: "rename", speaker: to, to: speaker }],
        reason: `undone: speaker ${quoted(speaker)} → ${quoted(to)}`,
        apply: () => assign(theirs, speaker),
      }),
    };
  });
}

/** Undo the last edit of this page, with another edit that restores what was there. */
export function undo() {
  const step = session && steps.pop();
  showUndo();
  if (step) edit(step);
}

/** A function that gives the edit which brings back what an entry says now. */
function restoring(index) {
  const { id, text: before, readings } = text.entries[index];
  const after = text.entries.slice(0, index).findLast((one) => one.text !== null)?.id ?? null;
  return () => {
    const entry = text.entries.find((one) => one.id === id);
    const now = entry?.text ?? null;
    const reason = `undone: ${quoted(before)} → ${quoted(now)}`;
    const reading = readings.findIndex((one) => one.text === before);
    // The id and the place of a word that comes back behind another one are known to the server.
    const apply = () => (entry ? write(id, before) : session.reload());
    if (reading >= 0) return { changes: [{ op: "choose", word: id, reading }], reason, apply };
    if (now !== null) return { changes: [{ op: "replace", word: id, text: before }], reason, apply };
    return { changes: [{ op: "insert", after, text: before }], reason, apply: () => session.reload() };
  };
}

/** Send the edit that `make` gives when its turn comes: { changes, reason, apply, restore }. */
function edit(make) {
  const edited = owner;
  turn = turn.then(async () => {
    const of = session;
    if (!of || owner !== edited) return;
    $("transcript").setAttribute("aria-busy", "true");
    try {
      await send(of, make());
    } catch (error) {
      await explain(of, error);
    } finally {
      $("transcript").removeAttribute("aria-busy");
    }
  }).catch(tellError); // the next edit has its turn whatever happens
}

async function send(of, { changes, reason, apply, restore }) {
  const body = { changes, reason: reason.slice(0, MOST_REASON) };
  const made = await sendJson("PATCH", jobPath(of.tenant, of.job, "/transcript"), body, { "If-Match": of.etag });
  [of.version, of.etag] = [made.version, made.etag];
  await editorClosed();
  if (of !== session) return;
  if (restore) steps.push(restore);
  await apply();
  showUndo();
  $("announce").textContent = `${reason}. Version ${made.version}.`;
}

/** Say why an edit was not made; show what another person has made in the meantime. */
async function explain(of, error) {
  if (error.status !== 412 || of !== session) return tellError(error);
  steps = [];
  const who = await newest(of).catch(() => "Somebody");
  await of.reload();
  tell(`${who} has changed this transcript. It was read again; nothing of yours was changed in it. Please look, and do it anew.`);
}

async function newest({ tenant, job }) {
  const { versions: [version] } = await getJson(jobPath(tenant, job, "/transcript/versions"));
  if (!version.author) return "A new run";
  return `${version.author}${version.reason ? ` (${version.reason})` : ""}, ${ago(version.edited_at)},`;
}

function write(id, written) {
  const index = text.entries.findIndex((one) => one.id === id);
  const entry = text.entries[index];
  const heard = entry.readings.find((reading) => reading.text === written);
  Object.assign(entry, { text: written, isDisputed: false, probability: 1 });
  if (entry.start_ms === null && heard) Object.assign(entry, { start_ms: heard.start_ms, end_ms: heard.end_ms });
  session.changed([index]);
}

function assign(entries, speaker) {
  for (const entry of entries) entry.speaker = speaker;
  session.changed();
}

function assignments(entries, to) {
  const ids = entries.filter((entry) => entry.text !== null).map((entry) => entry.id);
  const parts = Array.from({ length: Math.ceil(ids.length / MOST_CHANGES) }, (_, n) => ids.slice(n * MOST_CHANGES, (n + 1) * MOST_CHANGES));
  return parts.map((words) => ({ op: "assign", words, to }));
}

const quoted = (written) => (written === null ? "nothing" : `“${written}”`);

function showUndo() {
  $("undo").disabled = !session || !steps.length;
  $("version").textContent = session ? `version ${session.version}` : "";
}

$("undo").addEventListener("click", undo);
