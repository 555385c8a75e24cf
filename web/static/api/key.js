// The API key of this tab, and the dialog that asks for it.

import { $ } from "../dom.js";

/** The key, or an empty text. It is kept in this tab only, until the tab is closed. */
export const key = () => sessionStorage.getItem("concord-key") ?? "";

/** Open the dialog; `reason` says why a key is needed. */
export function askForKey(reason) {
  $("key-why").textContent = reason ?? "";
  $("key").value = key();
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

/** Wire the dialog; `onChange` is called when a key is entered or removed. */
export function wireKeyDialog(onChange) {
  $("key-open").addEventListener("click", () => askForKey(""));
  $("key-forget").addEventListener("click", () => { $("key").value = ""; $("key-form").requestSubmit(); });
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const value = $("key").value.trim();
    if (value) sessionStorage.setItem("concord-key", value);
    else sessionStorage.removeItem("concord-key");
    $("key-dialog").close();
    onChange();
  });
}
