// One job: its status and steps as they change, and its transcript once there is one.

import { ENDED, followStatus } from "./api/status_stream.js";
import { $, fill, make } from "./dom.js";
import { duration } from "./format.js";
import { hideActions, showActions } from "./job_actions.js";
import { pill, updateRow } from "./job_list.js";
import { current } from "./location.js";
import { hideNotice, reportError } from "./notices.js";
import { showCallSummary } from "./transcript/call_summary.js";
import { closeTranscript, openMoment, openTranscript } from "./transcript/transcript.js";

let follow = new AbortController();
let newest = null;
let transcribed = 0; // the run whose transcript is shown
let summarized = ""; // when the summary that is shown was made

/** Show a job, or none. */
export function openJob(job) {
  follow.abort();
  follow = new AbortController();
  newest = null;
  transcribed = 0;
  summarized = "";
  closeTranscript();
  $("job").hidden = !job;
  $("choose").hidden = Boolean(job);
  $("head").replaceChildren();
  hideActions();
  $("steps").replaceChildren();
  if (!job) return;
  const { signal } = follow;
  followStatus(current.tenant, job, { onStatus: (status) => showJob(status, signal), onGone: showGone, signal });
  $("job").focus({ preventScroll: true });
}

function showGone(reason) {
  hideNotice();
  $("head").replaceChildren(make("h2", {}, "Not there"), make("p", { class: "sub" }, reason));
}

function showJob(job, signal) {
  if (newest && newest.status !== job.status) $("announce").textContent = `${job.filename}: ${job.status}`;
  newest = job;
  updateRow(job);
  fill($("head"),
    make("div", { class: "title" }, make("h2", {}, job.filename), pill(job.status)),
    make("p", { class: "sub" }, job.reference ? `${job.reference} · ` : "",
      `${job.job_id} · run ${job.run} · ${new Date(job.created_at).toLocaleString()}`,
      job.completed_at ? ` · took ${duration(new Date(job.created_at), new Date(job.completed_at))}` : ""),
    ENDED.has(job.status) ? null : make("progress", { value: job.progress, max: 1, "aria-label": "Progress" }),
    job.reason ? make("p", { class: "reason" }, job.reason) : null,
  );
  const made = Object.entries(job.enrichment ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  $("steps").replaceChildren(...[...Object.entries(job.steps), ...made].map(([name, step]) => showStep(name, step)));
  showActions(job, { onReprocessed: () => openJob(job.job_id) });
  if (job.links.transcript && transcribed !== job.run && (job.status === "completed" || !transcribed)) showTranscript(job, signal);
  const summary = job.enrichment?.summary;
  if (summary?.state === "done" && summary.finished_at !== summarized) {
    summarized = summary.finished_at;
    showCallSummary(job.tenant_id, job.job_id, signal, openMoment).catch(reportError);
  }
}

async function showTranscript(job, signal) {
  transcribed = job.run;
  const run = await openTranscript(job.tenant_id, job.job_id, signal, current.at);
  if (!signal.aborted) transcribed = run;
}

const STATES = { done: "✓ done", failed: "✕ failed", running: "● running", retrying: "↻ retrying", waiting: "○ waiting", queued: "○ queued", cancelled: "✕ cancelled", pending: "○ pending" };

function showStep(name, step) {
  const [stage, ...recognizer] = name.split(".");
  const from = step.started_at && new Date(step.started_at);
  const to = step.finished_at && new Date(step.finished_at);
  const times = from ? `${from.toLocaleString()} – ${to ? to.toLocaleString() : "now"}` : "";
  return make("li", { class: step.state, title: times },
    make("div", { class: "step" }, stage, recognizer.length ? make("span", { class: "faint" }, ` ${recognizer.join(".")}`) : null),
    make("div", { class: "state" }, make("b", {}, STATES[step.state] ?? step.state), make("span", {}, elapsed(step, from, to))),
    step.attempts > 1 ? make("div", { class: "faint" }, `${step.attempts} attempts`) : null,
    step.state === "running" && step.progress ? make("progress", { value: step.progress, max: 1, "aria-label": "Progress" }) : null,
    step.error ? make("div", { class: "error" }, step.error) : null,
  );
}

function elapsed(step, from, to) {
  if (from && to) return duration(from, to);
  return from && step.state === "running" ? `since ${from.toLocaleTimeString([], { timeStyle: "short" })}` : "";
}
