// Formats numbers, shares, durations and times for people; a dash stands for what is not known.

const isMissing = (value) => value === null || value === undefined;

/** A share from 0 to 1 as a percentage. */
export const percent = (share) => (isMissing(share) ? "–" : `${Math.round(share * 100)} %`);

/** A number with at most one decimal. */
export const number = (value) => (isMissing(value) ? "–" : value.toLocaleString(undefined, { maximumFractionDigits: 1 }));

/** A position in a recording, in milliseconds, as [h:]mm:ss. */
export function clock(ms) {
  if (isMissing(ms)) return "–";
  const s = Math.floor(ms / 1000);
  const rest = `${String(Math.floor(s / 60) % 60).padStart(s >= 3600 ? 2 : 1, "0")}:${String(s % 60).padStart(2, "0")}`;
  return s >= 3600 ? `${Math.floor(s / 3600)}:${rest}` : rest;
}

/** The duration between two dates. */
export function duration(from, to) {
  const ms = Math.max(0, to - from);
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 60000 ? `${(ms / 1000).toFixed(1)} s` : `${clock(ms)} min`;
}

const RELATIVE = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

/** How long ago an ISO 8601 time is. */
export function ago(text) {
  const s = (new Date(text) - Date.now()) / 1000;
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]])
    if (Math.abs(s) >= size) return RELATIVE.format(Math.trunc(s / size), unit);
  return RELATIVE.format(Math.trunc(s), "second");
}
