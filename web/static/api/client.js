// Requests to the HTTP API of this origin, with the tab's API key.

import { askForKey, key } from "./key.js";

/** An error response; its message is the problem document's `detail`. */
export class HttpError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Send a request. Throws HttpError for an error response, and asks for a key after 401. */
export async function request(path, options = {}) {
  const authorization = key() ? { Authorization: `Bearer ${key()}` } : {};
  const response = await fetch(path, { ...options, headers: { ...authorization, ...options.headers }, cache: "no-cache" });
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  if (response.status === 401) askForKey(problem.detail);
  throw new HttpError(response.status, problem.detail ?? response.statusText);
}

/** The JSON body of a GET. */
export const getJson = async (path, options) => (await request(path, options)).json();
