// A tenant's schedules: listed, made and deleted.

import { getJson, newKey, sendJson } from "../api/client.js";
import { confirmed } from "../confirm.js";
import { $, button, fill, make } from "../dom.js";
import { ago } from "../format.js";
import { tell, tellError } from "../notices.js";

let tenant = "";

/** Show a tenant's schedules. */
export async function openSchedules(of) {
  closeSchedules();
  tenant = of;
  $("schedules").hidden = false;
  $("schedules").focus({ preventScroll: true });
  await guarded(list);
}

/** Hide them. */
export function closeSchedules() {
  tenant = "";
  $("schedules").removeAttribute("aria-busy"); // what is under way ends for itself
  $("schedules").hidden = true;
  $("schedules-rows").replaceChildren();
}

const path = (part = "") => `/tenants/${encodeURIComponent(tenant)}/schedules${part}`;

async function list() {
  const of = tenant;
  const { schedules } = await getJson(path());
  if (of !== tenant) return;
  fill($("schedules-rows"), ...schedules.map(show));
  $("schedules-none").hidden = schedules.length > 0;
}

function show(one) {
  const what = one.mail_to.length ? `${one.enrichment} to ${one.mail_to.join(", ")}` : one.enrichment;
  const last = one.last_at ? `${ago(one.last_at)}: ${one.last_error ?? `${one.last_asked} jobs`}` : "never";
  const cells = [one.name, what, one.cron ? `${one.cron} ${one.timezone}` : "once", jobsOf(one.jobs), one.next_at ? ago(one.next_at) : "over", last];
  const row = make("tr", { class: one.next_at ? "" : "faint" },
    ...cells.map((text) => make("td", {}, text)),
    make("td", { class: "buttons" }, button("Delete…", () => remove(one), "quiet danger")));
  if (one.next_at) row.cells[4].title = new Date(one.next_at).toLocaleString();
  return row;
}

function jobsOf(jobs) {
  const parts = Object.entries(jobs).filter(([, value]) => value !== null && value !== false && JSON.stringify(value) !== "{}");
  return parts.map(([name, value]) => (name === "last_days" ? `of ${value} days` : name === "lacking" ? "that lack it" : `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`)).join(", ") || "all";
}

function create() {
  const form = new FormData($("schedules-form"));
  const text = (name) => form.get(name).trim();
  const days = Number(text("last_days"));
  const recipients = text("mail_to").split(/[\s,;]+/).filter(Boolean);
  const body = {
    name: text("name"),
    cron: text("cron") || null,
    timezone: text("timezone") || "UTC",
    enrichment: text("enrichment"),
    jobs: { ...(days ? { last_days: days } : {}), ...(form.get("lacking") ? { lacking: true } : {}) },
    mail_to: recipients,
  };
  return guarded(async () => {
    await sendJson("POST", path(), body, { "Idempotency-Key": newKey() });
    tell(`${body.name} is made.`, "good");
    $("schedules-form").reset();
    await list();
  });
}

async function remove(one) {
  const text = "It is carried out no more. What it has asked for already is made.";
  if (!(await confirmed(`Delete ${one.name}?`, text, "Delete"))) return;
  guarded(async () => {
    await sendJson("DELETE", path(`/${one.id}`));
    await list();
  });
}

/** One thing at a time: a second click on a button does nothing while the first is under way. */
async function guarded(work) {
  if ($("schedules").hasAttribute("aria-busy")) return;
  $("schedules").setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    if (tenant) tellError(error);
  } finally {
    $("schedules").removeAttribute("aria-busy");
  }
}

$("schedules-form").addEventListener("submit", (event) => { event.preventDefault(); create(); });
