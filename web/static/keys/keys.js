// A tenant's API keys: listed, made, rotated, revoked. A key's text is shown once, when it is made.

import { getJson, sendJson } from "../api/client.js";
import { confirmed } from "../confirm.js";
import { $, button, fill, make } from "../dom.js";
import { ago } from "../format.js";
import { tell, tellError } from "../notices.js";

const GRACE_S = 86400; // for which a key that was rotated is still accepted

let tenant = "";
let next = null; // cursor of the next page

/** Show a tenant's keys. */
export async function openKeys(of) {
  closeKeys();
  tenant = of;
  $("keys").hidden = false;
  $("keys").focus({ preventScroll: true });
  await guarded(listKeys);
}

/** Hide them. */
export function closeKeys() {
  tenant = "";
  $("keys").removeAttribute("aria-busy"); // what is under way ends for itself
  $("keys").hidden = true;
  $("keys-rows").replaceChildren();
}

const path = (part = "") => `/tenants/${encodeURIComponent(tenant)}/keys${part}`;

async function listKeys(cursor = "") {
  const of = tenant;
  const page = await getJson(`${path()}${cursor ? `?${new URLSearchParams({ cursor })}` : ""}`);
  if (of !== tenant) return;
  const rows = page.keys.map(showKey);
  if (cursor) $("keys-rows").append(...rows);
  else fill($("keys-rows"), ...rows);
  next = page.next;
  $("keys-more").hidden = !next;
  $("keys-none").hidden = $("keys-rows").children.length > 0;
}

const stateOf = ({ revoked_at, expires_at }) => {
  if (revoked_at) return `revoked ${ago(revoked_at)}`;
  if (expires_at) return `${new Date(expires_at) < new Date() ? "expired" : "expires"} ${ago(expires_at)}`;
  return "valid";
};
const isValid = ({ revoked_at, expires_at }) => !revoked_at && !(expires_at && new Date(expires_at) < new Date());

function showKey(key) {
  const used = key.last_used_at ? ago(key.last_used_at) : "never";
  const actions = isValid(key) ? [button("Rotate…", () => rotate(key)), button("Revoke…", () => revoke(key), "quiet danger")] : [];
  const cells = [key.name, `concord_${key.prefix}…`, key.scopes.join(", "), ago(key.created_at), used, stateOf(key)];
  const row = make("tr", { class: isValid(key) ? "" : "faint" },
    ...cells.map((text) => make("td", {}, text)), make("td", { class: "buttons" }, ...actions));
  row.cells[3].title = `by ${key.created_by}`;
  return row;
}

function create() {
  const form = new FormData($("keys-form"));
  const expires = form.get("expires"); // a day, which is still part of the time
  const body = { name: form.get("name").trim(), scopes: form.getAll("scope"), expires_at: expires ? new Date(`${expires}T23:59:59`).toISOString() : null };
  if (!body.scopes.length) return tell("Choose at least one thing that the key may do.");
  return guarded(async () => {
    reveal(await sendJson("POST", path(), body), "is made");
    $("keys-form").reset();
    await listKeys();
  });
}

async function rotate(key) {
  const text = "A new key of the same name takes its place. The old one is accepted for one more day.";
  if (!(await confirmed(`Rotate ${key.name}?`, text, "Rotate"))) return;
  guarded(async () => {
    reveal(await sendJson("POST", path(`/${key.id}/rotate`), { grace_s: GRACE_S }), "is rotated");
    await listKeys();
  });
}

async function revoke(key) {
  const text = "Whatever uses this key is refused at once. A revoked key cannot be made valid again.";
  if (!(await confirmed(`Revoke ${key.name}?`, text, "Revoke"))) return;
  guarded(async () => {
    await sendJson("DELETE", path(`/${key.id}`));
    tell(`${key.name} is revoked.`, "good");
    await listKeys();
  });
}

/** Show a key's text; it leaves the page when the dialog is closed. */
function reveal({ name, key }, what) {
  $("made-title").textContent = `The key ${name} ${what}`;
  $("made-key").value = key;
  $("made").showModal();
  $("made-key").select();
}

async function copy() {
  $("made-key").select();
  try {
    await navigator.clipboard.writeText($("made-key").value);
    $("made-copy").textContent = "Copied";
  } catch {
    $("made-copy").textContent = "Press Ctrl-C"; // the browser lets only pages of secure origins write to the clipboard
  }
}

/** One thing at a time: a second click on a button does nothing while the first is under way. */
async function guarded(work) {
  if ($("keys").hasAttribute("aria-busy")) return;
  $("keys").setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    if (tenant) tellError(error);
  } finally {
    $("keys").removeAttribute("aria-busy");
  }
}

$("keys-form").addEventListener("submit", (event) => { event.preventDefault(); create(); });
$("keys-more").addEventListener("click", () => guarded(() => listKeys(next)));
$("made-copy").addEventListener("click", copy);
$("made").addEventListener("close", () => { $("made-key").value = ""; $("made-copy").textContent = "Copy"; });
