// Sends a recording. An XMLHttpRequest tells how far it is, which fetch does not.

import { HttpError, authorization } from "./client.js";
import { askForKey } from "./key.js";

const IN_WORDS = {
  0: "The connection broke before Concord had answered. The file may be too large for an upload; else try again.",
  413: "The file is too large.",
  415: "This is no recording that Concord can read.",
};

/**
 * Upload a file with these form fields. `key` makes a repeat harmless: it is no second job. Returns the job, or throws
 * HttpError. `onProgress` gets the share that was sent, 0 to 1.
 */
export function upload(tenant, file, fields, { key, onProgress, signal }) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value) form.append(name, value);
  form.append("file", file, file.name);
  const request = new XMLHttpRequest();
  request.open("POST", `/audio/process?${new URLSearchParams({ tenant })}`);
  for (const [name, value] of Object.entries({ ...authorization(), "Idempotency-Key": key })) request.setRequestHeader(name, value);
  request.upload.addEventListener("progress", ({ loaded, total }) => onProgress(total ? loaded / total : 0));
  signal.addEventListener("abort", () => request.abort());
  return new Promise((resolve, reject) => {
    request.addEventListener("load", () => {
      const answer = parsed(request.responseText);
      if (request.status < 300) return resolve(answer);
      if (request.status === 401) askForKey(answer.detail);
      reject(new HttpError(request.status, [IN_WORDS[request.status], answer.detail ?? request.statusText].filter(Boolean).join(" ")));
    });
    request.addEventListener("error", () => reject(new HttpError(0, IN_WORDS[0])));
    request.addEventListener("abort", () => reject(new DOMException("cancelled", "AbortError")));
    request.send(form);
  });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
