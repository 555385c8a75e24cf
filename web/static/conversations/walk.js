// The statuses through which a conversation goes, in order.

import { make } from "../dom.js";

const STEPS = [
  ["pending", "Waiting"], ["extracting", "Fetching"], ["storing", "Storing"],
  ["summarizing", "Summary"], ["generating_report", "Report"], ["sending_email", "Mail"],
];
const DONE = new Set(["completed", "archived"]);
const STOPPED = new Set(["failed", "cancelled"]);

/** Whether nothing goes on by itself. */
export const isEnded = (status) => DONE.has(status) || STOPPED.has(status);

/** Whether it has ended without its mail. */
export const isStopped = (status) => STOPPED.has(status);

/** A status as a coloured label. */
export const pill = (status) => make("span", { class: `pill ${DONE.has(status) ? "completed" : status === "failed" ? "failed" : status === "cancelled" ? "" : "busy"}` }, status.replaceAll("_", " "));

/** By the progress of one that was stopped, the step in which it ended. */
const STEP_AT = [[90, 5], [75, 4], [60, 3], [40, 2], [10, 1], [0, 0]];

/** A list item for each step: done, running, failed, or still waiting. */
export function walkOf({ status, progress, error }) {
  const at = isEnded(status) ? STEP_AT.find(([least]) => progress >= least)[1] : STEPS.findIndex(([name]) => name === status);
  return STEPS.map(([, title], number) => {
    const isHere = !DONE.has(status) && number === at;
    const state = DONE.has(status) || number < at ? "done" : !isHere ? "waiting" : isStopped(status) ? "failed" : "running";
    const said = isHere && status === "cancelled" ? "cancelled" : state;
    return make("li", { class: state },
      make("div", { class: "step" }, title),
      make("div", { class: "state" }, make("b", {}, said)),
      isHere && error ? make("div", { class: "error" }, error) : null);
  });
}
