// One conversation: how far it is, why it stopped and what to do, its files, and what it is about.

import { request, sendJson } from "../api/client.js";
import { confirmed } from "../confirm.js";
import { $, button, fill, make } from "../dom.js";
import { ago } from "../format.js";
import { link } from "../location.js";
import { tell, tellError } from "../notices.js";
import { isEnded, isStopped, pill, walkOf } from "./walk.js";

const FILES = [["transcript", "Transcript"], ["audio", "Recording"], ["report", "Report"]];

let drawn = ""; // what is shown, so that nothing is replaced under a person's pointer that is the same

/** Show an answer about one conversation; null hides it. `ask` asks for it again, `refresh` reads it anew. */
export function showConversation(tenant, answer, { ask, refresh } = {}) {
  const box = $("conversation");
  box.hidden = answer === null;
  const text = JSON.stringify(answer);
  if (answer === null || text === drawn) {
    if (answer === null) drawn = "";
    return;
  }
  drawn = text;
  const { data, message } = answer;
  fill(box,
    make("div", { class: "title" }, make("h3", {}, data.conversation_id), pill(data.status)),
    make("p", { class: "sub" }, `${message} To ${data.email_id ?? "nobody"}, asked for ${ago(data.created_at)}.`),
    make("ol", { class: "steps", "aria-label": "Steps" }, ...walkOf(data)),
    ...data.failures.flatMap((failure) => [
      make("p", { class: "reason" }, data.failures.length > 1 ? `${failure.step}: ${failure.error ?? ""}` : failure.error ?? ""),
      make("p", { class: "sub" }, failure.what_to_do)]),
    data.notes.length ? make("ul", { class: "notes" }, ...data.notes.map((note) => make("li", {}, note))) : null,
    make("div", { class: "actions" }, ...actions(tenant, data, ask, refresh)),
    ...summary(data.summary));
}

function actions(tenant, data, ask, refresh) {
  const files = FILES.filter(([name]) => data.files[name]).map(([name, title]) => button(title, () => open(data, name)));
  const job = make("a", { class: "quiet", href: link(tenant, data.links.job.split("/").pop(), "") }, "Words and recognizers");
  const again = () => ask({ conversation_id: data.conversation_id, email_id: data.email_id });
  const more = !isEnded(data.status) ? button("Cancel…", () => cancel(data, refresh), "quiet danger")
    : isStopped(data.status) ? button("Go on", again, "") : null;
  return [...files, job, more];
}

/** Open a file: at its signed URL, or, where it needs our key, as what was fetched with it. */
async function open(data, name) {
  const { url } = data.files[name];
  if (data.files[name].expires_at) {
    window.open(url, "_blank", "noopener");
    return;
  }
  try {
    const { pathname } = new URL(url, location.origin);
    const response = await request(`${pathname}?redirect=false`);
    const anchor = make("a", { href: URL.createObjectURL(await response.blob()), download: fileName(data, name) });
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 60000);
  } catch (error) {
    tellError(error);
  }
}

const fileName = ({ conversation_id }, name) => `${conversation_id}.${{ transcript: "txt", audio: "mp3", report: "pdf" }[name]}`;

async function cancel(data, refresh) {
  const text = "Nothing more is made of it, and no mail is sent. What is stored stays; it can be gone on with later.";
  if (!(await confirmed(`Cancel ${data.conversation_id}?`, text, "Cancel it"))) return;
  try {
    await sendJson("DELETE", data.links.self);
    tell(`${data.conversation_id} is cancelled.`, "good");
  } catch (error) {
    tellError(error);
  }
  refresh();
}

function summary(of) {
  if (!of) return [];
  const points = of.key_points.map((text) => make("li", {}, text));
  const todo = of.action_items.map(({ text, who, when }) => make("li", {}, [text, who, when].filter(Boolean).join(" · ")));
  return [
    of.topic ? make("h4", {}, of.topic) : null,
    of.sentiment ? make("p", { class: "sub" }, `Sentiment: ${of.sentiment}`) : null,
    points.length ? make("ul", { class: "points" }, ...points) : null,
    todo.length ? make("h4", {}, "To do") : null,
    todo.length ? make("ul", { class: "points" }, ...todo) : null,
  ];
}
