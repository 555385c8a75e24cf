// What a call is about, above its transcript: each line opens the moment on which it rests.

import { getJson, jobPath } from "../api/client.js";
import { $, button, fill, make } from "../dom.js";
import { clock } from "../format.js";

const LISTS = {
  key_points: "Key points", action_items: "Action items", decisions: "Decisions", open_questions: "Open questions",
  participants: "Who took part", entities: "Named",
};

/** Read and show the summary of a job that has one; `open` is called with the milliseconds of a chosen line. */
export async function showCallSummary(tenant, job, signal, open) {
  const summary = await getJson(jobPath(tenant, job, "/summary"), { signal });
  if (!signal.aborted) show(summary, open);
}

function show(summary, open) {
  const about = [summary.topic, summary.sentiment ? `Sentiment: ${summary.sentiment}.` : ""].filter(Boolean).join(" ");
  const lists = Object.entries(LISTS).filter(([name]) => summary[name].length);
  fill($("summary"),
    about ? make("p", { dir: "auto" }, about) : null,
    summary.out_of_date ? make("p", { class: "faint" }, "The transcript was edited since; it is being made again.") : null,
    ...lists.flatMap(([name, title]) => [make("h3", {}, title), make("ul", {}, ...summary[name].map((item) => line(item, open)))]),
    ...summary.notes.map((note) => make("p", { class: "faint" }, note)));
  $("summary-box").hidden = false;
}

function line(item, open) {
  const text = item.text ?? item.name;
  const more = [item.who, item.when, item.kind, item.label].filter(Boolean).join(", ");
  const moment = item.start_ms === null ? null : button(clock(item.start_ms), () => open(item.start_ms));
  if (moment) moment.title = item.quote;
  return make("li", { dir: "auto" }, moment, " ", text, more ? make("span", { class: "faint" }, ` (${more})`) : null,
    item.disputed ? make("span", { class: "faint" }, " rests on disputed words") : null);
}
