// The console: a tenant's jobs, one job's steps as they happen, its summary, its transcript with the words that are in
// doubt, search, the review queue, conversations of voice agents, schedules, and API keys. This module connects its
// parts, and shows what the address bar names.

import { getJson } from "./api/client.js";
import { wireKeyDialog } from "./api/key.js";
import { closeConversations, openConversations } from "./conversations/conversations.js";
import { $, make } from "./dom.js";
import { REFRESH_MS, markCurrent, restartList } from "./job_list.js";
import { openJob } from "./job_view.js";
import { closeKeys, openKeys } from "./keys/keys.js";
import { current, link, readLocation } from "./location.js";
import { hideNotice, reportError, showLive } from "./notices.js";
import { closeReview, openReview } from "./review/review.js";
import { closeSchedules, openSchedules } from "./schedules/schedules.js";
import { closeSearch, openSearch } from "./search/search.js";
import { wireUploads } from "./uploads.js";

const VIEWS = {
  search: [openSearch, closeSearch], review: [openReview, closeReview],
  conversations: [openConversations, closeConversations], schedules: [openSchedules, closeSchedules],
  keys: [openKeys, closeKeys],
};

/** Show the tenant, the job and the view in the address bar. */
function showLocation() {
  const { tenant, job, view, at } = readLocation();
  const isOtherTenant = tenant && tenant !== current.tenant;
  const isOther = isOtherTenant || job !== current.job || view !== current.view || at !== current.at;
  Object.assign(current, { tenant: tenant || current.tenant, job, view, at });
  if (isOtherTenant) {
    $("tenant").value = current.tenant;
    restartList();
  }
  if (isOther) showView();
  markCurrent();
}

function showView() {
  const { tenant, job, view } = current;
  document.body.classList.toggle("at-job", Boolean(job) && !view);
  document.body.classList.toggle("at-view", view in VIEWS);
  for (const name of ["", ...Object.keys(VIEWS)]) {
    const anchor = $(`to-${name || "jobs"}`);
    anchor.href = link(tenant, "", name);
    if (name === view) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  for (const [, close] of Object.values(VIEWS)) close();
  openJob(view in VIEWS ? "" : job);
  if (view in VIEWS) {
    $("choose").hidden = true;
    VIEWS[view][0](tenant, job);
  }
}

/** Read the tenants, again until there is one, and show the location. */
async function start() {
  try {
    const { tenants } = await getJson("/tenants");
    showTenants(tenants);
    showLive();
  } catch (error) {
    reportError(error);
    if (error.status !== 401) setTimeout(start, REFRESH_MS);
  }
}

/** Offer these tenants, and the one in the address bar, which may have no jobs yet; show the location. */
function showTenants(tenants) {
  const { tenant, job, view } = readLocation();
  const names = tenant && !tenants.includes(tenant) ? [tenant, ...tenants] : tenants;
  offer(names);
  const chosen = tenant || names[0] || "";
  $("tenant").value = chosen;
  Object.assign(current, { tenant: "", job: "", view: "", at: null });
  if (!chosen) {
    $("no-jobs").hidden = false;
    setTimeout(start, REFRESH_MS);
  } else if (tenant) {
    showLocation();
  } else {
    location.replace(link(chosen, job, view));
  }
}

/** Show the location; a tenant that was not known, because it had no jobs, is offered from now on. */
function followLocation() {
  const { tenant } = readLocation();
  const names = [...$("tenant").options].map((option) => option.value);
  if (tenant && !names.includes(tenant)) offer([...names, tenant]);
  showLocation();
}

function offer(names) {
  const { value } = $("tenant");
  $("tenant").replaceChildren(...names.map((name) => make("option", { value: name }, name)));
  $("tenant").value = value;
  $("tenant").disabled = names.length < 2;
}

$("tenant").addEventListener("change", () => { location.hash = link($("tenant").value, "", current.view); });
addEventListener("hashchange", followLocation);
wireUploads();
wireKeyDialog(() => { hideNotice(); start(); });
start();
