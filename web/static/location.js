// The page's location: #/tenant/job.

/** The tenant and job that are shown. */
export const current = { tenant: "", job: "" };

/** The link to a tenant's jobs, or to one of them. */
export const link = (tenant, job) => `#/${encodeURIComponent(tenant)}${job ? `/${encodeURIComponent(job)}` : ""}`;

/** Tenant and job in the address bar; empty where it names none. */
export function readLocation() {
  const [tenant = "", job = ""] = location.hash.replace(/^#\/?/, "").split("/").map((part) => {
    try { return decodeURIComponent(part); } catch { return ""; }
  });
  return { tenant, job };
}
