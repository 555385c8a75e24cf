// The review queue: one disputed span at a time, the most doubtful first, with what was heard there.

import { getJson, jobPath, sendJson } from "../api/client.js";
import { $, button, fill, isModified, isTyping, make } from "../dom.js";
import { clock, percent } from "../format.js";
import { link } from "../location.js";
import { tell, tellError } from "../notices.js";
import { Player } from "../transcript/player.js";

const AROUND_MS = 1000; // of the recording before and behind a span
const PAGE = 20, MOST = 200; // items of a page, and those that the API gives at most

const player = new Player($("review-audio"), $("review-load"), $("review-none"));
let queue = []; // items to come, the one that is shown first
let behind = []; // items that were decided or skipped here, the last one at the end
let seen = new Set(); // ids of all that were shown: those of a run that is over cannot be decided, and stay in the queue
let of = { tenant: "", job: "" };
let opened = new AbortController();
let isBusy = false;

/** Show a tenant's queue, or that of one of its jobs. */
export async function openReview(tenant, job) {
  closeReview();
  of = { tenant, job };
  opened = new AbortController();
  $("review").hidden = false;
  $("review").focus({ preventScroll: true });
  $("review-of").textContent = job ? `of job ${job}` : "";
  await guarded(readQueue);
}

/** Hide it, and release the recording. */
export function closeReview() {
  opened.abort();
  setBusy(false); // what is under way ends for itself
  player.close();
  [queue, behind, seen] = [[], [], new Set()];
  $("review").hidden = true;
  $("review-item").hidden = true;
  $("review-empty").hidden = true;
}

const queuePath = (part = "", query = {}) => `/tenants/${encodeURIComponent(of.tenant)}/review${part}?${new URLSearchParams(query)}`;

async function readQueue() {
  const { signal } = opened;
  const query = { limit: String(Math.min(PAGE + seen.size, MOST)), ...(of.job ? { job: of.job } : {}) };
  const [{ items }, progress] = await Promise.all([
    getJson(queuePath("", query), { signal }), getJson(queuePath("/progress"), { signal }),
  ]);
  if (signal.aborted) return;
  queue = items.filter((item) => !seen.has(item.id));
  showProgress(progress);
  showItem();
}

function showProgress({ open, done, skipped, reviewers, agreement }) {
  const all = open + done + skipped;
  Object.assign($("review-progress"), { max: all || 1, value: done + skipped });
  const agreed = agreement === null ? "" : ` · reviewers agree on ${percent(agreement)} of what several have decided`;
  $("review-counts").textContent = `${done} decided, ${skipped} skipped, ${open} to do${agreed}`;
  $("review-reviewers").textContent = reviewers.map((one) => `${one.reviewer}: ${one.done}`).join(" · ");
}

function showItem() {
  const [item] = queue;
  $("review-item").hidden = !item;
  $("review-empty").hidden = Boolean(item);
  $("review-skip").hidden = !item;
  $("review-back").disabled = !behind.length;
  if (!item) return player.close();
  const chosen = item.choice ?? (item.text === null ? 0 : -1);
  const gap = item.readings[Math.max(chosen, 0)].text;
  fill($("review-context"), `${item.before} `, make("mark", {}, item.text ?? (gap || "‸")), ` ${item.after}`);
  fill($("review-about"), make("a", { href: link(of.tenant, item.job_id) }, "Open the job"),
    ` · ${clock(item.start_ms)}${item.speaker ? ` · ${item.speaker}` : ""} · ${percent(item.probability)} sure`,
    item.assignee ? ` · for ${item.assignee}` : "");
  $("review-readings").replaceChildren(...item.readings.map((reading, number) => showReading(reading, number, number === chosen)));
  $("review-text").value = item.text ?? "";
  $("announce").textContent = `${item.before} … ${item.after}: ${item.readings.map(({ text }, n) => `${n + 1}: ${text || "nothing"}`).join(", ")}`;
  playItem(item);
}

function showReading({ text, providers }, number, isTaken) {
  const row = button("", () => choose({ reading: number }), "reading");
  row.setAttribute("aria-pressed", String(isTaken));
  return make("li", { class: isTaken ? "taken" : "" }, fill(row, make("kbd", {}, String(number + 1)),
    make("span", { class: text ? "text" : "text nothing", dir: "auto" }, text || "nothing was said"),
    make("span", { class: "by" }, providers.length ? `heard by ${providers.join(", ")}` : "mixed from several recognizers")));
}

async function playItem(item) {
  const { signal } = opened;
  await player.open(jobPath(of.tenant, item.job_id, "/audio"), signal);
  if (signal.aborted || queue[0] !== item || item.start_ms === null) return;
  player.play(Math.max(0, item.start_ms - AROUND_MS), (item.end_ms ?? item.start_ms) + AROUND_MS);
}

/** Decide what was said: { reading } by its number, or { text }. */
const choose = (choice) => decide("choice", choice);
const skip = () => decide("skip");

function decide(action, body) {
  const [item] = queue;
  const { signal } = opened;
  if (!item || (body?.reading ?? 0) >= item.readings.length) return;
  guarded(async () => {
    try {
      const decided = await sendJson("POST", queuePath(`/${item.id}/${action}`).replace(/\?$/, ""), body);
      if (signal.aborted) return; // another queue is shown
      behind.push(decided);
    } catch (error) {
      if (error.status !== 409 && error.status !== 404) throw error;
      if (signal.aborted) return;
      tell(error.message); // another person or a new run was faster: the next one
    }
    seen.add(item.id);
    queue.shift();
    if (queue.length) {
      showItem();
      showProgress(await getJson(queuePath("/progress"), { signal }));
    } else {
      await readQueue();
    }
  });
}

/** Show the last decided item again; another choice takes the place of the one before. */
function goBack() {
  if (isBusy || !behind.length) return;
  const item = behind.pop();
  queue.unshift(item);
  showItem();
}

/** One thing at a time: a key that is held down decides one item, not all of them. */
async function guarded(work) {
  const { signal } = opened;
  if (isBusy) return;
  setBusy(true);
  try {
    await work();
  } catch (error) {
    if (!signal.aborted) tellError(error);
  } finally {
    if (!signal.aborted) setBusy(false);
  }
}

function setBusy(yes) {
  isBusy = yes;
  $("review").setAttribute("aria-busy", String(yes));
}

$("review-skip").addEventListener("click", skip);
$("review-back").addEventListener("click", goBack);
$("review-again").addEventListener("click", () => { if (queue[0]) playItem(queue[0]); });
$("review-own").addEventListener("submit", (event) => {
  event.preventDefault();
  $("review-text").blur();
  choose({ text: $("review-text").value });
});

addEventListener("keydown", (event) => {
  if ($("review").hidden || isTyping(event) || isModified(event) || event.repeat) return;
  if (/^[1-9]$/.test(event.key)) choose({ reading: Number(event.key) - 1 });
  else if (event.key === "s") skip();
  else if (event.key === "u") goBack();
  else if (event.key === "r") $("review-again").click();
  else if (event.key === "e") $("review-text").focus();
  else return;
  event.preventDefault();
});
