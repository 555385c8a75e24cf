// Tells whether the page is connected, and shows errors.

import { HttpError } from "./api/client.js";
import { $ } from "./dom.js";

const READING_MS = 8000; // for which a message about what a person did stays, however lively the page is

let told = 0; // when there was such a message

/** Show that the page is connected, and hide the last error. */
export function showLive() {
  setState("on", "Live");
  if (Date.now() - told > READING_MS) hideNotice();
}

export function hideNotice() {
  $("notice").hidden = true;
}

/** Show an error; one of a request that the page has aborted is ignored. */
export function reportError(error) {
  if (error.name === "AbortError") return;
  const isOffline = !(error instanceof HttpError);
  setState("off", isOffline ? "Offline" : "Trouble");
  $("notice").className = "notice";
  $("notice").textContent = isOffline ? "Concord does not answer. Trying again…" : error.message;
  $("notice").hidden = error.status === 401; // the dialog for the key says it
}

/** Say something that is no error of the connection: `kind` is empty for bad news, `good` for good ones. */
export function tell(text, kind = "") {
  $("notice").className = `notice ${kind}`;
  $("notice").textContent = text;
  $("notice").hidden = false;
  told = Date.now();
}

/** Say that what a person asked for was refused or did not arrive; an abort is neither. */
export function tellError(error) {
  if (error.name === "AbortError") return;
  tell(error instanceof HttpError ? error.message : "Concord does not answer. Nothing was changed, as far as is known here; try again.");
}

function setState(state, text) {
  $("live").className = `live ${state}`;
  if ($("live").textContent !== text) $("live").textContent = text;
}
