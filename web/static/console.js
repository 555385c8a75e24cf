// The console: a tenant's jobs, one job's steps as they happen, and its transcript with the words that are in doubt.
// This module connects its parts, and shows what the address bar names.

import { getJson } from "./api/client.js";
import { wireKeyDialog } from "./api/key.js";
import { $, make } from "./dom.js";
import { REFRESH_MS, markCurrent, restartList } from "./job_list.js";
import { openJob } from "./job_view.js";
import { current, link, readLocation } from "./location.js";
import { hideNotice, reportError, showLive } from "./notices.js";

/** Show the tenant and the job in the address bar. */
function showLocation() {
  const { tenant, job } = readLocation();
  const isOtherTenant = tenant && tenant !== current.tenant;
  current.tenant = tenant || current.tenant;
  if (isOtherTenant) {
    $("tenant").value = current.tenant;
    restartList();
  }
  document.body.classList.toggle("at-job", Boolean(job));
  if (job !== current.job || isOtherTenant) openJob((current.job = job));
  markCurrent();
}

/** Read the tenants, again until there is one, and show the location. */
async function start() {
  try {
    const { tenants } = await getJson("/tenants");
    if (current.tenant && !tenants.includes(current.tenant)) tenants.unshift(current.tenant);
    $("tenant").replaceChildren(...tenants.map((name) => make("option", { value: name }, name)));
    $("tenant").disabled = tenants.length < 2;
    showLive();
    showTenants(tenants);
  } catch (error) {
    reportError(error);
    if (error.status !== 401) setTimeout(start, REFRESH_MS);
  }
}

function showTenants(tenants) {
  const { tenant, job } = readLocation();
  const chosen = tenant || tenants[0] || "";
  $("tenant").value = chosen;
  if (!tenants.length) {
    $("no-jobs").hidden = false;
    setTimeout(start, REFRESH_MS);
    return;
  }
  current.tenant = "";
  if (tenant) {
    current.job = "";
    showLocation();
  } else {
    location.replace(link(chosen, job));
  }
}

$("tenant").addEventListener("change", () => { location.hash = link($("tenant").value); });
addEventListener("hashchange", showLocation);
wireKeyDialog(() => { hideNotice(); start(); });
start();
