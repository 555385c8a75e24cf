// Uploads of recordings: chosen with a button or dropped on the page, described in a dialog, and sent two at a time.

import { newKey } from "./api/client.js";
import { upload } from "./api/upload.js";
import { $, button, fill, make } from "./dom.js";
import { refreshList } from "./job_list.js";
import { current, link } from "./location.js";

const AT_ONCE = 2; // uploads under way; the others wait

let chosen = []; // files that the dialog is about
let waiting = []; // uploads that wait for their turn
let sending = 0;

/** Ask for the language and the references of files before they are sent. */
function describe(files) {
  if (!files.length || $("upload-dialog").open) return; // the dialog stays about the files that it shows
  chosen = [...files];
  $("upload-whose").hidden = Boolean(current.tenant); // before the first job, an operator knows of no tenant
  $("upload-tenant").required = !current.tenant;
  const row = (file, n) => make("li", {},
    make("span", { class: "name", title: file.name }, file.name), make("span", { class: "faint" }, megabytes(file.size)),
    make("label", {}, make("span", { class: "unseen" }, `Reference of ${file.name}`),
      make("input", { name: `reference-${n}`, placeholder: "Reference (optional)", maxLength: 255, autocomplete: "off" })));
  $("upload-files").replaceChildren(...chosen.map(row));
  $("upload-dialog").showModal();
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e6 ? 2 : 1)} MB`;

function send() {
  const form = new FormData($("upload-form"));
  const isOne = chosen.length === 1;
  const tenant = current.tenant || form.get("tenant").trim();
  chosen.forEach((file, n) => {
    const fields = { language: form.get("language").trim(), reference: form.get(`reference-${n}`).trim() };
    enqueue({ file, fields, tenant, key: newKey(), isOne, row: make("li") });
  });
  chosen = [];
}

function enqueue(one) {
  show(one, "waiting", button("Cancel", () => { waiting = waiting.filter((other) => other !== one); one.row.remove(); }));
  $("uploads").append(one.row);
  waiting.push(one);
  sendNext();
}

function sendNext() {
  while (sending < AT_ONCE && waiting.length) {
    sending += 1;
    start(waiting.shift()).finally(() => { sending -= 1; sendNext(); });
  }
}

async function start(one) {
  const stop = new AbortController();
  const bar = make("progress", { value: 0, max: 1, "aria-label": `Upload of ${one.file.name}` });
  const state = make("span", { class: "faint" }, "0 %");
  show(one, state, bar, button("Cancel", () => stop.abort()));
  const onProgress = (share) => {
    bar.value = share;
    state.textContent = share < 1 ? `${Math.floor(share * 100)} %` : "checking the recording…";
  };
  try {
    finish(one, await upload(one.tenant, one.file, one.fields, { key: one.key, onProgress, signal: stop.signal }));
  } catch (error) {
    if (error.name === "AbortError") return one.row.remove();
    one.row.classList.add("failed");
    show(one, make("span", { class: "why", role: "alert" }, error.message),
      button("Try again", () => { one.row.classList.remove("failed"); one.row.remove(); enqueue(one); }), button("Dismiss", () => one.row.remove()));
  }
}

/** A job that was uploaded alone is opened, unless the person has gone elsewhere; otherwise it appears in the list. */
function finish(one, job) {
  $("announce").textContent = `${one.file.name} is uploaded.`;
  one.row.remove();
  if (current.tenant && one.tenant !== current.tenant) return;
  refreshList();
  if (job.repeated) {
    $("uploads").append(one.row);
    show(one, make("a", { href: link(job.tenant_id, job.job_id) }, "was uploaded before: open it"), button("Dismiss", () => one.row.remove()));
  } else if (one.isOne && !current.job && !current.view) {
    location.hash = link(job.tenant_id, job.job_id);
  }
}

const show = (one, ...parts) => fill(one.row, make("span", { class: "name", title: one.file.name }, one.file.name), ...parts);

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");

/** Take recordings from the button, and those that are dropped on the page. */
export function wireUploads() {
  $("upload").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => { describe($("files").files); $("files").value = ""; });
  $("upload-form").addEventListener("submit", send);
  $("upload-cancel").addEventListener("click", () => $("upload-dialog").close());
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.remove("dropping");
    describe(event.dataTransfer.files);
  });
  addEventListener("beforeunload", (event) => { if (sending || waiting.length) event.preventDefault(); });
}
