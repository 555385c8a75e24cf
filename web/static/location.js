// The page's location: #/tenant/job, #/tenant/job?review, #/tenant?review, #/tenant?keys,
// #/tenant?conversations and #/tenant/proc_…?conversations.

/** The tenant, the job and the view (`review`, `conversations`, `keys`; empty for jobs) that are shown. */
export const current = { tenant: "", job: "", view: "" };

/** The link to a tenant's jobs, to one of them, or to another view of them. */
export const link = (tenant, job, view) =>
  `#/${encodeURIComponent(tenant)}${job ? `/${encodeURIComponent(job)}` : ""}${view ? `?${view}` : ""}`;

/** Tenant, job and view in the address bar; empty where it names none. */
export function readLocation() {
  const [path, view = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [tenant = "", job = ""] = path.split("/").map((part) => {
    try { return decodeURIComponent(part); } catch { return ""; }
  });
  return { tenant, job, view };
}
