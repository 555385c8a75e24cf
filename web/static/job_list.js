// The list of a tenant's jobs, newest first. It is read again every few seconds; rows that stay are kept.

import { getJson } from "./api/client.js";
import { ENDED } from "./api/status_stream.js";
import { $, make } from "./dom.js";
import { ago } from "./format.js";
import { current, link } from "./location.js";
import { reportError, showLive } from "./notices.js";

/** Milliseconds between two readings of the list. */
export const REFRESH_MS = 2000;
const PAGE = 50;
const TYPING_MS = 250; // after the last key before a search begins

let rows = new Map(); // job id -> { item, version, created, when }
let older = null; // cursor of the page behind the last row
let applied = []; // filters of the list that is shown, not what is being typed
let timer = 0;
let typing = 0;

/** Show a status as a coloured label. */
export const pill = (status) => make("span", { class: `pill ${ENDED.has(status) ? status : "busy"}` }, status);

/** Empty the list, and read it anew. */
export function restartList() {
  rows = new Map();
  older = null;
  applied = filters();
  $("jobs").replaceChildren();
  $("more").hidden = $("no-jobs").hidden = $("no-matches").hidden = true;
  refreshList();
}

/** What the list is limited to, as parameters of the API. Days are those of this computer's clock. */
function filters() {
  const day = (id, more = 0) => {
    if (!$(id).value) return "";
    const [year, month, date] = $(id).value.split("-").map(Number);
    return new Date(year, month - 1, date + more).toISOString();
  };
  const given = {
    status: $("status").value, [$("search-in").value]: $("search").value.trim(), language: $("language").value.trim(),
    created_from: day("created-from"), created_to: day("created-to", 1),
  };
  return Object.entries(given).filter(([, value]) => value);
}

const listPath = (cursor) => {
  const query = new URLSearchParams([["limit", String(PAGE)], ...applied]);
  if (cursor) query.set("cursor", cursor);
  return `/tenants/${encodeURIComponent(current.tenant)}/jobs?${query}`;
};

/** Read the first page, now and again after a while; not while the page is in the background. */
export async function refreshList() {
  clearTimeout(timer);
  const path = listPath();
  try {
    if (!document.hidden && current.tenant) {
      const page = await getJson(path);
      if (path !== listPath()) return; // another tenant or filter was chosen meanwhile
      const isFirst = rows.size === 0;
      showPage(page, false);
      if (isFirst) older = page.next;
      $("more").hidden = !older;
      showNone();
      showLive();
    }
  } catch (error) {
    reportError(error);
    if (error.status === 401) return;
  }
  clearTimeout(timer);
  timer = setTimeout(refreshList, REFRESH_MS);
}

function showNone() {
  const isFiltered = applied.length > 0;
  const isEmpty = !rows.size && !older; // a page without jobs may have others behind it
  $("no-jobs").hidden = !isEmpty || isFiltered;
  $("no-matches").hidden = !isEmpty || !isFiltered;
}

async function showOlder() {
  $("more").disabled = true;
  try {
    const path = listPath(older), page = await getJson(path);
    if (path !== listPath(older)) return; // another tenant or filter was chosen meanwhile
    showPage(page, true);
    older = page.next;
    $("more").hidden = !older;
  } catch (error) {
    reportError(error);
  } finally {
    $("more").disabled = false;
  }
}

/** Put jobs in their places: older ones at the end, others in front, in the order given. Rows that stay are kept. */
function showPage({ jobs, next }, atEnd) {
  let before = atEnd ? null : $("jobs").firstChild;
  for (const job of jobs) {
    let row = rows.get(job.job_id);
    if (!row) {
      row = { item: make("li"), version: -1 };
      rows.set(job.job_id, row);
    }
    fillRow(row, job);
    if (atEnd) $("jobs").append(row.item);
    else if (row.item === before) before = before.nextSibling;
    else $("jobs").insertBefore(row.item, before);
  }
  if (!atEnd) removeMoved(jobs, next);
  markCurrent();
}

/** Jobs that were deleted, or that a filter does not let pass any more, leave; only those newer than the page's end can be told. */
function removeMoved(jobs, next) {
  if (next && !jobs.length) return;
  const ids = new Set(jobs.map((job) => job.job_id));
  const last = next ? jobs.at(-1).created_at : "";
  for (const [id, row] of rows)
    if (!ids.has(id) && row.created > last) {
      row.item.remove();
      rows.delete(id);
    }
}

function fillRow(row, job) {
  if (row.version === job.version && row.when) {
    row.when.textContent = ago(job.created_at);
    return;
  }
  row.version = job.version;
  row.created = job.created_at;
  row.when = make("span", { class: "when", title: new Date(job.created_at).toLocaleString() }, ago(job.created_at));
  const anchor = make("a", { href: link(job.tenant_id, job.job_id) },
    make("span", { class: "name", title: job.filename }, job.filename), pill(job.status), row.when);
  if (!ENDED.has(job.status)) anchor.append(make("progress", { value: job.progress, max: 1, "aria-label": "Progress" }));
  if (job.status === "failed" && job.reason) anchor.append(make("span", { class: "why" }, job.reason));
  const hadFocus = row.item.contains(document.activeElement);
  row.item.replaceChildren(anchor);
  row.item.dataset.job = job.job_id;
  if (hadFocus) anchor.focus();
}

/** Update the row of a job that has a newer status, if it is in the list. */
export function updateRow(job) {
  const row = rows.get(job.job_id);
  if (row && row.version < job.version) fillRow(row, job), markCurrent();
}

/** Mark the row of the job that is shown. */
export function markCurrent() {
  for (const item of $("jobs").children) {
    const anchor = item.firstChild;
    if (item.dataset.job === current.job) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
}

/** Remove the row of a job that was deleted. */
export function removeRow(job) {
  rows.get(job)?.item.remove();
  rows.delete(job);
}

for (const id of ["status", "search-in", "language", "created-from", "created-to"]) $(id).addEventListener("change", restartList);
$("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(restartList, TYPING_MS);
});
$("more").addEventListener("click", showOlder);
document.addEventListener("visibilitychange", () => { if (!document.hidden && current.tenant) refreshList(); });
