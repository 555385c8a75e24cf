// The recording of a job, and its position.

import { request } from "../api/client.js";
import { key } from "../api/key.js";
import { $ } from "../dom.js";
import { reportError } from "../notices.js";

const FETCHED_UNASKED = 25e6; // bytes that are fetched without asking, where a key keeps the player from streaming

let objectUrl = ""; // of a fetched recording, to be revoked

/** Stop, and release the recording. */
export function closePlayer() {
  $("audio").pause();
  $("audio").removeAttribute("src");
  $("audio").load();
  if (objectUrl) URL.revokeObjectURL(objectUrl);
  objectUrl = "";
}

/** Open a recording. A player cannot send a key: with one, the recording is fetched first, a large one only when asked for. */
export async function openPlayer(path, signal) {
  const url = `${path}${path.includes("?") ? "&" : "?"}direct=no`;
  closePlayer();
  $("audio").hidden = $("audio-load").hidden = $("audio-none").hidden = true;
  try {
    const size = Number((await request(url, { method: "HEAD", signal })).headers.get("Content-Length"));
    if (!key()) show(url);
    else if (size <= FETCHED_UNASKED) await fetchRecording(url, signal);
    else offer(url, size, signal);
  } catch (error) {
    if (signal.aborted) return;
    explain(error.status === 404 ? "The recording is not in the storage any more." : "The recording cannot be played now.");
  }
}

function offer(url, size, signal) {
  $("audio-load").textContent = `Load the recording (${Math.round(size / 1e6)} MB)`;
  $("audio-load").onclick = () => fetchRecording(url, signal).catch(reportError);
  $("audio-load").hidden = false;
}

async function fetchRecording(url, signal) {
  $("audio-load").disabled = true;
  try {
    objectUrl = URL.createObjectURL(await (await request(url, { signal })).blob());
    if (!signal.aborted) show(objectUrl);
  } finally {
    $("audio-load").disabled = false;
  }
}

function show(source) {
  $("audio").src = source;
  $("audio").hidden = false;
  $("audio-load").hidden = true;
}

function explain(text) {
  $("audio-none").textContent = text;
  $("audio-none").hidden = false;
}

/** Play from a position in milliseconds; nothing happens without a position or a recording. */
export function playFrom(ms) {
  if (ms === null || ms === undefined || $("audio").hidden) return;
  $("audio").currentTime = ms / 1000;
  $("audio").play().catch(() => {});
}

/** Call `listener` with the position in milliseconds whenever it changes. */
export function onPosition(listener) {
  $("audio").addEventListener("timeupdate", () => listener($("audio").currentTime * 1000));
}

$("audio").addEventListener("error", () => {
  if (!$("audio").getAttribute("src")) return;
  $("audio").hidden = true;
  explain("This browser cannot play the recording's format.");
});
