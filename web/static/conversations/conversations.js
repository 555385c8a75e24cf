// Conversations of voice agents: asked for, listed newest first, and each with its walk, its files and what it is about.

import { getJson, newKey, sendJson } from "../api/client.js";
import { $, fill, make } from "../dom.js";
import { ago, number, percent } from "../format.js";
import { link } from "../location.js";
import { reportError, showLive, tell, tellError } from "../notices.js";
import { showConversation } from "./conversation.js";
import { isEnded, pill } from "./walk.js";

const REFRESH_MS = 2000;
const WEEK_MS = 10000; // between two readings of the numbers of a week, which add many rows up
const PAGE = 50;

let tenant = "";
let processing = ""; // the one that is shown besides the list
let shown = 0; // how many are shown: pages are added, and all of them read again
let timer = 0;
let weekRead = 0; // when the numbers were read last
let known = null; // the answer about the one that is shown

/** Show a tenant's conversations, and one of them if it is named. */
export function openConversations(of, id) {
  closeConversations();
  tenant = of;
  processing = id;
  shown = PAGE;
  weekRead = 0;
  known = null;
  $("conversations").hidden = false;
  $("conversations").focus({ preventScroll: true });
  refresh();
}

/** Hide them. */
export function closeConversations() {
  clearTimeout(timer);
  tenant = "";
  $("conversations").hidden = true;
  $("conversations-rows").replaceChildren();
  showConversation("", null);
}

const path = (part = "", query = {}) => `/api/v1/accounts/${encodeURIComponent(tenant)}/conversations${part}?${new URLSearchParams(query)}`;

/** Read all that is shown, now and again after a while; not while the page is in the background. */
async function refresh() {
  clearTimeout(timer);
  const of = tenant, one = processing;
  const isStill = () => of === tenant && one === processing;
  try {
    if (!document.hidden) {
      const { data } = await readList();
      const details = one ? await readOne(one, data.conversations) : null;
      const week = Date.now() - weekRead > WEEK_MS ? await getJson(path("/statistics")) : null;
      if (!isStill()) return;
      showList(data);
      if (week) showWeek(week.data);
      showConversation(of, known = details, { ask, refresh });
      showLive();
    }
  } catch (error) {
    if (!isStill()) return;
    if (error.status === 404 && one) showConversation(of, null);
    reportError(error);
    if (error.status === 401) return;
  }
  if (isStill()) timer = setTimeout(refresh, REFRESH_MS);
}

async function readList() {
  const status = $("conversations-status").value;
  return getJson(path("", { limit: String(Math.min(shown, 200)), ...(status ? { status } : {}) }));
}

/** The answer about one conversation: read again unless it has ended and the list has nothing newer of it. */
async function readOne(id, rows) {
  const row = rows.find((each) => each.processing_id === id);
  const isSame = known && row?.status === known.data.status && row.updated_at === known.data.updated_at;
  if (isSame && isEnded(row.status)) return known;
  return getJson(`/api/v1/postprocess/${encodeURIComponent(id)}`);
}

function showList({ conversations, next }) {
  fill($("conversations-rows"), ...conversations.map(showRow));
  $("conversations-none").hidden = conversations.length > 0 || Boolean(next);
  $("conversations-more").hidden = !next || shown >= 200;
}

function showRow(one) {
  const name = make("a", { href: link(tenant, one.processing_id, "conversations") }, one.conversation_id);
  if (one.processing_id === processing) name.setAttribute("aria-current", "true");
  const state = make("td", {}, pill(one.status));
  if (one.error) state.title = one.error;
  const cells = [make("td", {}, name), state, `${one.progress} %`, one.email_id ?? "–", ago(one.created_at)];
  return make("tr", {}, ...cells.map((cell) => (typeof cell === "string" ? make("td", {}, cell) : cell)));
}

function showWeek({ conversations, success_rate, median_seconds }) {
  weekRead = Date.now();
  const parts = [`${number(conversations)} in seven days`];
  if (success_rate !== null) parts.push(`${percent(success_rate)} of those that ended were mailed`);
  if (median_seconds !== null) parts.push(`half of them within ${number(median_seconds)} s`);
  $("conversations-week").textContent = parts.join(" · ");
}

/** Ask for a conversation, for the first time or again. */
async function ask(body) {
  try {
    const answer = await sendJson("POST", "/api/v1/postprocess/conversation", { account_id: tenant, ...body }, { "Idempotency-Key": newKey() });
    tell(answer.message, "good");
    location.hash = link(tenant, answer.data.processing_id, "conversations");
    refresh();
    return true;
  } catch (error) {
    tellError(error);
    return false;
  }
}

async function submit() {
  const form = new FormData($("conversations-form"));
  const body = { conversation_id: form.get("conversation").trim(), email_id: form.get("email").trim() };
  if (form.get("verify")) body.options = { verify: true };
  $("conversations-ask").disabled = true;
  if (await ask(body)) $("conversations-form").reset();
  $("conversations-ask").disabled = false;
}

$("conversations-form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
$("conversations-status").addEventListener("change", () => { shown = PAGE; refresh(); });
$("conversations-more").addEventListener("click", () => { shown += PAGE; refresh(); });
