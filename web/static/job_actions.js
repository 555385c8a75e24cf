// What can be done with a job: download its transcript, process it again, cancel its run, delete it.

import { jobPath, newKey, request, sendJson } from "./api/client.js";
import { ENDED } from "./api/status_stream.js";
import { confirmed } from "./confirm.js";
import { $, button, fill, make } from "./dom.js";
import { removeRow } from "./job_list.js";
import { link } from "./location.js";
import { tell, tellError } from "./notices.js";

const FORMATS = { txt: "Text", docx: "Word", md: "Markdown", srt: "Subtitles (SRT)", vtt: "Subtitles (VTT)", json: "JSON" };
const AGAIN = {
  missing: "Ask recognizers that have not answered",
  reconcile: "Decide the words again; no recognizer is asked",
  transcribe: "Ask all recognizers again; that may be billed again",
};

let shown = ""; // the state for which the buttons are there: they stay, and with them the focus, until it changes

/** Remove the buttons. */
export function hideActions() {
  shown = "";
  $("actions").replaceChildren();
}

/** Show what can be done with a job; `onReprocessed` is called when a new run has begun. */
export function showActions(job, { onReprocessed }) {
  const hasEnded = ENDED.has(job.status);
  const state = JSON.stringify([job.job_id, job.run, hasEnded, Boolean(job.links.transcript)]);
  if (state === shown) return;
  shown = state;
  fill($("actions"),
    job.links.transcript ? showDownloads(job) : null,
    job.status === "completed" ? make("a", { class: "quiet", href: link(job.tenant_id, job.job_id, "review") }, "Review") : null,
    hasEnded ? menu("Process again", Object.entries(AGAIN).map(([from, text]) => button(text, () => reprocess(job, from, onReprocessed))))
      : button("Cancel", () => cancel(job)),
    button("Delete…", () => remove(job), "quiet danger"),
  );
}

function menu(title, items) {
  const node = make("details", { class: "menu" }, make("summary", {}, title), make("div", { class: "items" }, ...items));
  node.addEventListener("click", ({ target }) => { if (target.closest(".items button")) node.open = false; });
  node.addEventListener("focusout", ({ relatedTarget }) => { if (relatedTarget && !node.contains(relatedTarget)) node.open = false; });
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    node.open = false;
    node.firstChild.focus();
  });
  return node;
}

function showDownloads(job) {
  const marks = make("input", { type: "checkbox" });
  const items = Object.entries(FORMATS).map(([format, name]) => button(name, () => download(job, format, marks.checked)));
  return menu("Download", [...items, make("label", { class: "faint" }, marks, " mark disputed words")]);
}

/** A link cannot send an API key: the file is fetched, and then saved. */
async function download(job, format, isMarked) {
  const query = { format, mark_disputed: isMarked && format !== "json" ? "true" : "" };
  try {
    const response = await request(jobPath(job.tenant_id, job.job_id, "/transcript", query), { headers: { Accept: "*/*" } });
    const url = URL.createObjectURL(await response.blob());
    make("a", { href: url, download: `${job.filename.replace(/\.\w{1,5}$/, "")}.${format}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  } catch (error) {
    tellError(error);
  }
}

async function reprocess(job, from, onReprocessed) {
  try {
    await sendJson("POST", jobPath(job.tenant_id, job.job_id, "/reprocess"), { from }, { "Idempotency-Key": newKey() });
    onReprocessed();
  } catch (error) {
    tellError(error);
  }
}

async function cancel(job) {
  const text = "The run ends, and the job counts as failed. What was sent to a recognizer may be billed.";
  if (!(await confirmed(`Cancel ${job.filename}?`, text, "Cancel the run"))) return;
  try {
    await sendJson("POST", jobPath(job.tenant_id, job.job_id, "/cancel"), { reason: "cancelled in the console" });
  } catch (error) {
    tellError(error);
  }
}

async function remove(job) {
  const text = "The recording, the transcript with all its versions, and every copy of them go for good. This cannot be undone.";
  if (!(await confirmed(`Delete ${job.filename}?`, text, "Delete for good"))) return;
  try {
    const receipt = await sendJson("DELETE", jobPath(job.tenant_id, job.job_id));
    removeRow(job.job_id);
    location.hash = link(job.tenant_id);
    tell(`${job.filename} is deleted. The receipt is deletion ${receipt.id}.`, "good");
  } catch (error) {
    tellError(error);
  }
}
