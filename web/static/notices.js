// Tells whether the page is connected, and shows errors.

import { HttpError } from "./api/client.js";
import { $ } from "./dom.js";

/** Show that the page is connected, and hide the last error. */
export function showLive() {
  setState("on", "Live");
  hideNotice();
}

export function hideNotice() {
  $("notice").hidden = true;
}

/** Show an error; one of a request that the page has aborted is ignored. */
export function reportError(error) {
  if (error.name === "AbortError") return;
  const isOffline = !(error instanceof HttpError);
  setState("off", isOffline ? "Offline" : "Trouble");
  $("notice").textContent = isOffline ? "Concord does not answer. Trying again…" : error.message;
  $("notice").hidden = error.status === 401; // the dialog for the key says it
}

function setState(state, text) {
  $("live").className = `live ${state}`;
  if ($("live").textContent !== text) $("live").textContent = text;
}
