// The page's location: #/tenant/job, #/tenant/job?at=12960 (a moment, in milliseconds), #/tenant/job?review,
// #/tenant?review, ?search, ?schedules, ?keys and ?conversations, and #/tenant/proc_…?conversations.

/** The tenant, the job and the view (`review`, `keys`, …; empty for jobs) that are shown, and the moment of the job. */
export const current = { tenant: "", job: "", view: "", at: null };

/** The link to a tenant's jobs, to one of them, or to another view of them. */
export const link = (tenant, job, view) =>
  `#/${encodeURIComponent(tenant)}${job ? `/${encodeURIComponent(job)}` : ""}${view ? `?${view}` : ""}`;

/** Tenant, job, view and moment in the address bar; empty where it names none. */
export function readLocation() {
  const [path, view = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [tenant = "", job = ""] = path.split("/").map((part) => {
    try { return decodeURIComponent(part); } catch { return ""; }
  });
  const [, at] = /^at=(\d{1,9})$/.exec(view) ?? [];
  return { tenant, job, view: at ? "" : view, at: at ? Number(at) : null };
}
