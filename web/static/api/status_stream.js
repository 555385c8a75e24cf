// Follows the statuses of a job as server-sent events, until its run ends. An EventSource cannot send an API key, so the
// stream is read with fetch.

import { reportError } from "../notices.js";
import { request } from "./client.js";

const RECONNECT_MS = 1000;
const RECONNECT_LIMITED_MS = 5000; // after 429: too many windows follow jobs, one may close

/** Statuses after which a run has ended. */
export const ENDED = new Set(["completed", "failed"]);

/**
 * Call `onStatus` with every newer status, and reconnect when the connection breaks. Ends when the run has ended, when
 * `signal` is aborted, or with `onGone(reason)` when there is no such job.
 */
export async function followStatus(tenant, job, { onStatus, onGone, signal }) {
  const path = `/jobs/${encodeURIComponent(job)}/events?tenant=${encodeURIComponent(tenant)}`;
  let newest = null;
  while (!signal.aborted && !(newest && ENDED.has(newest.status))) {
    let pause = RECONNECT_MS;
    try {
      const headers = newest ? { "Last-Event-ID": String(newest.version) } : {};
      const response = await request(path, { signal, headers });
      if (response.status === 204) return;
      for await (const status of statuses(response.body)) onStatus((newest = status));
    } catch (error) {
      if (signal.aborted) return;
      reportError(error);
      if (error.status === 404) return onGone(error.message);
      if (error.status === 401) return;
      if (error.status === 429) pause = RECONNECT_LIMITED_MS;
    }
    await new Promise((done) => setTimeout(done, pause));
  }
}

async function* statuses(body) {
  let text = "";
  for await (const chunk of chunks(body.pipeThrough(new TextDecoderStream()))) {
    text += chunk;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").find((line) => line.startsWith("data: "));
      if (data && block.includes("event: status")) yield JSON.parse(data.slice(6));
    }
  }
}

/** Not every browser can iterate over a stream. */
async function* chunks(stream) {
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}
