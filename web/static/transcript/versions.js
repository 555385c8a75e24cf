// The versions of a transcript: who made them, when and why.

import { getJson, jobPath } from "../api/client.js";
import { $, button, make } from "../dom.js";
import { ago } from "../format.js";
import { tellError } from "../notices.js";

let of = null; // { tenant, job, run, show } of the transcript that is shown

/** The list is of this transcript from now on; `show(version, newest)` shows one of its versions. */
export function wireVersions(transcript) {
  of = transcript;
  $("versions").replaceChildren();
  $("versions-box").hidden = !of;
  if (of && $("versions-box").open) listVersions();
}

/** Read the list again, if it is open. */
export function refreshVersions() {
  if (of && $("versions-box").open) listVersions();
}

async function listVersions() {
  const { tenant, job, run, show } = of;
  try {
    const { versions } = await getJson(jobPath(tenant, job, "/transcript/versions", { run }));
    if (of?.job !== job) return;
    const newest = versions[0].version;
    $("versions").replaceChildren(...versions.map((version) => showVersion(version, () => show(version.version, newest))));
  } catch (error) {
    tellError(error);
  }
}

function showVersion({ version, author, reason, edited_at, changed_words }, show) {
  const when = edited_at ? make("span", { class: "faint", title: new Date(edited_at).toLocaleString() }, ` ${ago(edited_at)}`) : "";
  const changed = author ? `${changed_words} ${changed_words === 1 ? "word" : "words"} changed` : "as the run made it";
  return make("li", {},
    make("span", {}, make("strong", {}, `Version ${version}`), author ? ` by ${author}` : "", when),
    make("span", { class: "why" }, reason ?? ""), make("span", { class: "faint" }, changed), button("Show", show));
}

$("versions-box").addEventListener("toggle", refreshVersions);
