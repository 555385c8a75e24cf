// Requests to the HTTP API of this origin, with the tab's API key.

import { askForKey, key } from "./key.js";

/** An error response; its message is the problem document's `detail`. */
export class HttpError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** The header that says who asks. */
export const authorization = () => (key() ? { Authorization: `Bearer ${key()}` } : {});

/** Send a request. Throws HttpError for an error response, and asks for a key after 401. */
export async function request(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { ...authorization(), ...options.headers }, cache: "no-cache" });
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  if (response.status === 401) askForKey(problem.detail);
  throw new HttpError(response.status, problem.detail ?? response.statusText);
}

/** The JSON body of a GET. */
export const getJson = async (path, options) => (await request(path, options)).json();

/** Send JSON; the JSON of the answer, or null where it has none. */
export async function sendJson(method, path, body, headers = {}) {
  const content = body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...headers } };
  const response = await request(path, { method, headers, ...content });
  return response.status === 204 ? null : response.json();
}

/** The path of a job, or of what belongs to it. An operator's requests have to name the tenant; others may. */
export function jobPath(tenant, job, part = "", query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  return `/jobs/${encodeURIComponent(job)}${part}?${new URLSearchParams([["tenant", tenant], ...given])}`;
}

/** A text that no other request has, for `Idempotency-Key`. */
export const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
