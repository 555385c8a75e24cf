// The console: a tenant's jobs, one job's steps as they happen, and its transcript with the words that are in doubt.
// Everything shown comes from strangers in the end, so it is only ever written as text, never as markup.

const REFRESH_MS = 2000;
const AUDIO_AT_ONCE = 25e6; // bytes that are fetched without asking, where a key keeps the player from streaming
const PAUSE_MS = 1200; // a longer one begins a new paragraph
const LONG_TURN = 60; // words after which the next sentence does
const ENDED = new Set(["completed", "failed"]);

const $ = (id) => document.getElementById(id);

/** An element with properties, classes in `class`, and children that are nodes or text. */
function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("aria-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  return fill(node, ...children);
}

/** Give a node these children in place of those it has; null stands for none. */
function fill(node, ...children) {
  node.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(share * 100)} %`);
const number = (value) => (value === null || value === undefined ? "–" : value.toLocaleString(undefined, { maximumFractionDigits: 1 }));

function clock(ms) {
  if (ms === null || ms === undefined) return "–";
  const s = Math.floor(ms / 1000);
  const rest = `${String(Math.floor(s / 60) % 60).padStart(s >= 3600 ? 2 : 1, "0")}:${String(s % 60).padStart(2, "0")}`;
  return s >= 3600 ? `${Math.floor(s / 3600)}:${rest}` : rest;
}

function lasted(from, to) {
  const ms = Math.max(0, to - from);
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 60000 ? `${(ms / 1000).toFixed(1)} s` : `${clock(ms)} min`;
}

const RELATIVE = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
function ago(text) {
  const s = (new Date(text) - Date.now()) / 1000;
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]])
    if (Math.abs(s) >= size) return RELATIVE.format(Math.trunc(s / size), unit);
  return RELATIVE.format(Math.trunc(s), "second");
}

// --- Asking -----------------------------------------------------------------------------------------------------

const key = () => sessionStorage.getItem("concord-key") ?? "";
const headers = () => (key() ? { Authorization: `Bearer ${key()}` } : {});

class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { ...headers(), ...options.headers }, cache: "no-cache" });
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  if (response.status === 401) askForKey(said.detail);
  throw new Refused(response.status, said.detail ?? response.statusText);
}

const json = async (path, options) => (await ask(path, options)).json();

function askForKey(why) {
  $("key-why").textContent = why ?? "";
  $("key").value = key();
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

function complain(error) {
  if (error.name === "AbortError") return;
  const offline = !(error instanceof Refused);
  setLive("off", offline ? "Offline" : "Trouble");
  $("notice").textContent = offline ? "Concord does not answer. Trying again…" : error.message;
  $("notice").hidden = error.status === 401;
}

function setLive(state, text) {
  $("live").className = `live ${state}`;
  if ($("live").textContent !== text) $("live").textContent = text;
  if (state === "on") $("notice").hidden = true;
}

// --- Where we are: #/tenant/job ---------------------------------------------------------------------------------

const place = { tenant: "", job: "" };
const link = (tenant, job) => `#/${encodeURIComponent(tenant)}${job ? `/${encodeURIComponent(job)}` : ""}`;

function readPlace() {
  const [tenant = "", job = ""] = location.hash.replace(/^#\/?/, "").split("/").map((part) => {
    try { return decodeURIComponent(part); } catch { return ""; }
  });
  return { tenant, job };
}

function arrive() {
  const { tenant, job } = readPlace();
  const moved = tenant && tenant !== place.tenant;
  place.tenant = tenant || place.tenant;
  if (moved) {
    $("tenant").value = place.tenant;
    restartList();
  }
  document.body.classList.toggle("at-job", Boolean(job));
  if (job !== place.job || moved) openJob((place.job = job));
  markCurrent();
}

async function begin() {
  try {
    const { tenants } = await json("/tenants");
    if (place.tenant && !tenants.includes(place.tenant)) tenants.unshift(place.tenant);
    $("tenant").replaceChildren(...tenants.map((name) => make("option", { value: name }, name)));
    $("tenant").disabled = tenants.length < 2;
    setLive("on", "Live");
    const here = readPlace();
    const tenant = here.tenant || tenants[0] || "";
    $("tenant").value = tenant;
    if (!tenants.length) {
      $("no-jobs").hidden = false;
      setTimeout(begin, REFRESH_MS);
    } else if (here.tenant) {
      place.tenant = place.job = "";
      arrive();
    } else {
      place.tenant = "";
      location.replace(link(tenant, here.job));
    }
  } catch (error) {
    complain(error);
    if (error.status !== 401) setTimeout(begin, REFRESH_MS);
  }
}

// --- The list ---------------------------------------------------------------------------------------------------

let shown = new Map(); // job id -> { item, version }
let older = null; // cursor
let timer = 0;

function restartList() {
  shown = new Map();
  older = null;
  $("jobs").replaceChildren();
  $("more").hidden = $("no-jobs").hidden = true;
  refresh();
}

const listPath = (cursor) => {
  const query = new URLSearchParams({ limit: "50" });
  if ($("status").value) query.set("status", $("status").value);
  if (cursor) query.set("cursor", cursor);
  return `/tenants/${encodeURIComponent(place.tenant)}/jobs?${query}`;
};

async function refresh() {
  clearTimeout(timer);
  const asked = listPath();
  try {
    if (!document.hidden && place.tenant) {
      const page = await json(asked);
      if (asked !== listPath()) return; // another tenant or status was chosen meanwhile
      const first = shown.size === 0;
      showPage(page.jobs, false);
      if (first) older = page.next;
      $("more").hidden = !older;
      $("no-jobs").hidden = shown.size > 0;
      setLive("on", "Live");
    }
  } catch (error) {
    complain(error);
    if (error.status === 401) return;
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, REFRESH_MS);
}

async function showOlder() {
  $("more").disabled = true;
  try {
    const page = await json(listPath(older));
    showPage(page.jobs, true);
    older = page.next;
    $("more").hidden = !older;
  } catch (error) {
    complain(error);
  }
  $("more").disabled = false;
}

/** Put jobs in their places: older ones at the end, others in front, in the order given. Rows that stay are kept. */
function showPage(jobs, atEnd) {
  let before = atEnd ? null : $("jobs").firstChild;
  const narrowed = $("status").value;
  for (const job of jobs) {
    let row = shown.get(job.job_id);
    if (!row) {
      row = { item: make("li"), version: -1 };
      shown.set(job.job_id, row);
    }
    fillRow(row, job);
    if (atEnd) $("jobs").append(row.item);
    else if (row.item === before) before = before.nextSibling;
    else $("jobs").insertBefore(row.item, before);
  }
  if (narrowed && !atEnd) forget(jobs);
  markCurrent();
}

/** A narrowed list loses the jobs that have moved on; only those newer than the page's end can be told. */
function forget(jobs) {
  const kept = new Set(jobs.map((job) => job.job_id));
  const last = jobs.length < 50 ? "" : jobs.at(-1).created_at;
  for (const [id, row] of shown)
    if (!kept.has(id) && row.created >= last) {
      row.item.remove();
      shown.delete(id);
    }
}

function fillRow(row, job) {
  if (row.version === job.version && row.when) {
    row.when.textContent = ago(job.created_at);
    return;
  }
  row.version = job.version;
  row.created = job.created_at;
  row.when = make("span", { class: "when", title: new Date(job.created_at).toLocaleString() }, ago(job.created_at));
  const anchor = make("a", { href: link(job.tenant_id, job.job_id) },
    make("span", { class: "name", title: job.filename }, job.filename), pill(job.status), row.when);
  if (!ENDED.has(job.status)) anchor.append(make("progress", { value: job.progress, max: 1, "aria-label": "Progress" }));
  if (job.status === "failed" && job.reason) anchor.append(make("span", { class: "why" }, job.reason));
  const focused = row.item.contains(document.activeElement);
  row.item.replaceChildren(anchor);
  row.item.dataset.job = job.job_id;
  if (focused) anchor.focus();
}

const pill = (status) => make("span", { class: `pill ${ENDED.has(status) ? status : "busy"}` }, status);

function markCurrent() {
  for (const item of $("jobs").children) {
    const anchor = item.firstChild;
    if (item.dataset.job === place.job) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
}

// --- One job ----------------------------------------------------------------------------------------------------

let watching = new AbortController();
let newest = null;
let transcribed = 0; // the run whose transcript is shown

function openJob(job) {
  watching.abort();
  watching = new AbortController();
  newest = null;
  transcribed = 0;
  hideHeard();
  dropAudio();
  $("job").hidden = !job;
  $("choose").hidden = Boolean(job);
  $("transcript-area").hidden = true;
  $("head").replaceChildren();
  $("steps").replaceChildren();
  if (!job) return;
  watch(job, watching.signal);
  $("job").focus({ preventScroll: true });
}

/** Follow the job's events until its run ends; come back when the connection breaks. */
async function watch(job, signal) {
  while (!signal.aborted && !(newest && ENDED.has(newest.status))) {
    let pause = 1000;
    try {
      const seen = newest ? { "Last-Event-ID": String(newest.version) } : {};
      const whose = `tenant=${encodeURIComponent(place.tenant)}`;
      const response = await ask(`/jobs/${encodeURIComponent(job)}/events?${whose}`, { signal, headers: seen });
      if (response.status === 204) return;
      for await (const event of events(response.body)) showJob(event, signal);
    } catch (error) {
      if (signal.aborted) return;
      complain(error);
      if (error.status === 404) return gone(error.message);
      if (error.status === 401) return;
      if (error.status === 429) pause = 5000;  // too many windows watch: one may close
    }
    await new Promise((done) => setTimeout(done, pause));
  }
}

async function* events(body) {
  let text = "";
  for await (const piece of pieces(body.pipeThrough(new TextDecoderStream()))) {
    text += piece;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").find((line) => line.startsWith("data: "));
      if (data && block.includes("event: status")) yield JSON.parse(data.slice(6));
    }
  }
}

/** Not every browser can iterate over a stream. */
async function* pieces(stream) {
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

function gone(why) {
  $("notice").hidden = true;
  $("head").replaceChildren(make("h2", {}, "Not there"), make("p", { class: "sub" }, why));
}

function showJob(job, signal) {
  if (newest && newest.status !== job.status) $("announce").textContent = `${job.filename}: ${job.status}`;
  newest = job;
  const row = shown.get(job.job_id);
  if (row && row.version < job.version) fillRow(row, job), markCurrent();
  fill($("head"),
    make("div", { class: "title" }, make("h2", {}, job.filename), pill(job.status)),
    make("p", { class: "sub" }, job.reference ? `${job.reference} · ` : "",
      `${job.job_id} · run ${job.run} · ${new Date(job.created_at).toLocaleString()}`,
      job.completed_at ? ` · took ${lasted(new Date(job.created_at), new Date(job.completed_at))}` : ""),
    ENDED.has(job.status) ? null : make("progress", { value: job.progress, max: 1, "aria-label": "Progress" }),
    job.reason ? make("p", { class: "reason" }, job.reason) : null,
  );
  $("steps").replaceChildren(...Object.entries(job.steps).map(([name, step]) => showStep(name, step)));
  if (job.links.transcript && transcribed !== job.run && (job.status === "completed" || !transcribed)) showTranscript(job, signal);
}

const STATES = { done: "✓ done", failed: "✕ failed", running: "● running", retrying: "↻ retrying", waiting: "○ waiting" };

function showStep(name, step) {
  const [stage, ...which] = name.split(".");
  const from = step.started_at && new Date(step.started_at);
  const to = step.finished_at && new Date(step.finished_at);
  const times = from ? `${from.toLocaleString()} – ${to ? to.toLocaleString() : "now"}` : "";
  return make("li", { class: step.state, title: times },
    make("div", { class: "step" }, stage, which.length ? make("span", { class: "faint" }, ` ${which.join(".")}`) : null),
    make("div", { class: "state" }, make("b", {}, STATES[step.state] ?? step.state),
      make("span", {}, from && to ? lasted(from, to) : from && step.state === "running" ? `since ${from.toLocaleTimeString([], { timeStyle: "short" })}` : "")),
    step.attempts > 1 ? make("div", { class: "faint" }, `${step.attempts} attempts`) : null,
    step.state === "running" && step.progress ? make("progress", { value: step.progress, max: 1, "aria-label": "Progress" }) : null,
    step.error ? make("div", { class: "error" }, step.error) : null,
  );
}

// --- Its transcript ---------------------------------------------------------------------------------------------

let decisions = [];
let words = new Map(); // index of a decision -> its element
let doubts = []; // indices of the disputed ones, in order
let starts = []; // [start_ms, index], in order of time

async function showTranscript(job, signal) {
  transcribed = job.run;
  try {
    const transcript = await json(job.links.transcript, { signal });
    const raw = await json(transcript.links.raw, { signal }).catch((error) => {
      if (error.status !== 404) throw error;
      return null; // the apparatus is gone from the store; the words are still there
    });
    if (signal.aborted) return;
    transcribed = transcript.run;
    decisions = raw ? raw.decisions : fromSegments(transcript.segments);
    showFacts(transcript, raw);
    showWords();
    openAudio(transcript.links.audio, signal);
    $("transcript-area").hidden = false;
  } catch (error) {
    transcribed = 0;
    complain(error);
  }
}

/** Without the apparatus: the segments' words, none of them in doubt. */
const fromSegments = (segments) => segments.flatMap((segment) => segment.text.split(" ").map((text, n) => ({
  chosen: { text, providers: [], probability: segment.confidence ?? 1, start_ms: n ? null : segment.start_ms, end_ms: null },
  others: [], rule: "", speaker: segment.speaker,
})));

function showFacts(transcript, raw) {
  const quality = raw ? raw.quality : transcript.quality;
  const facts = [
    ["Length", clock(transcript.duration_ms)], ["Words", number(transcript.words)],
    ["Confidence", percent(transcript.confidence)], ["Agreement", percent(transcript.agreement)],
    ["Expected errors", number(quality.expected_word_errors)],
    ["Disputed per 1000", number(quality.disputed_spans_per_1000_words)],
    ["Language", transcript.language ?? "–"], ["Decided by", transcript.method],
  ];
  $("facts").replaceChildren(...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  const gaps = (quality.gaps ?? []).map(([from, to, who]) => `${clock(from)}–${clock(to)}: only ${who} heard words.`);
  $("notes").replaceChildren(...[...transcript.reconciliation_notes, ...gaps].map((note) => make("li", {}, note)));
  showRecognizers(quality.recognizers ?? {}, transcript.provider_confidences);
}

function showRecognizers(recognizers, confidences) {
  const names = Object.keys({ ...confidences, ...recognizers });
  $("recognizers-box").hidden = !names.length;
  const head = ["Recognizer", "Its confidence", "Words", "Coverage", "Agrees with the result"];
  $("recognizers").replaceChildren(
    make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text))),
    ...names.map((name) => {
      const { confidence = confidences[name], words: heard, coverage, agreement } = recognizers[name] ?? {};
      return make("tr", {}, ...[name, percent(confidence), number(heard), percent(coverage), percent(agreement)].map((text) => make("td", {}, text)));
    }),
  );
}

function showWords() {
  words = new Map();
  doubts = [];
  starts = [];
  $("transcript").replaceChildren(...turns().map(showTurn));
  if (!words.size) $("transcript").append(make("p", { class: "faint" }, "No speech was heard in this recording."));
  for (const [index] of words) if (decisions[index].chosen.start_ms !== null) starts.push([decisions[index].chosen.start_ms, index]);
  starts.sort((a, b) => a[0] - b[0]);
  highlight();
}

/** Indices of decisions, a list a turn: a speaker's words, or a stretch between pauses. */
function turns() {
  const found = [];
  let turn = null, last = null, count = 0;
  decisions.forEach((decision, index) => {
    const { text, start_ms } = decision.chosen;
    if (text === null) {
      if (turn && decision.others.length) turn.push(index);
      return;
    }
    const paused = last && start_ms !== null && last.chosen.end_ms !== null && start_ms - last.chosen.end_ms > PAUSE_MS;
    const long = count >= LONG_TURN && /[.?!]$/.test(last.chosen.text);
    if (!last || decision.speaker !== last.speaker || paused || long) {
      found.push((turn = []));
      count = 0;
    }
    turn.push(index);
    count += 1;
    last = decision;
  });
  return found;
}

function showTurn(turn) {
  const { speaker, chosen } = decisions[turn[0]];
  const text = make("p");
  for (const index of turn) text.append(showWord(index), " ");
  const at = chosen.start_ms === null ? null
    : make("button", { type: "button", class: "at", onclick: () => seek(chosen.start_ms), title: "Play from here" }, clock(chosen.start_ms));
  return make("div", { class: "turn" }, make("div", { class: "who" }, speaker ? make("strong", {}, speaker) : null, at), text);
}

function showWord(index) {
  const { chosen, others } = decisions[index];
  const disputed = others.length > 0;
  const node = make(disputed ? "button" : "span", { class: "word" }, chosen.text ?? "‸");
  node.dataset.index = index;
  words.set(index, node);
  if (!disputed) return node;
  node.type = "button";
  node.tabIndex = -1;
  const heard = others.map((other) => other.text ?? "nothing").join(", ");
  node.setAttribute("aria-label", `${chosen.text ?? "left out"}, ${percent(chosen.probability)} sure; also heard: ${heard}`);
  if (chosen.text === null) node.classList.add("omitted");
  return node;
}

/** Mark the disputed words that are less probable than the slider says; 100 % means all of them. */
function highlight() {
  const below = Number($("threshold").value) / 100;
  $("threshold-label").textContent = below === 1 ? "all disputed" : `below ${percent(below)}`;
  doubts = [];
  for (const [index, node] of words) {
    const { chosen, others } = decisions[index];
    if (!others.length) continue;
    const marked = below === 1 || chosen.probability < below;
    node.classList.remove("d1", "d2", "d3", "d4");
    node.classList.toggle("doubt", marked);
    if (!marked) continue;
    node.classList.add(chosen.probability >= 0.9 ? "d1" : chosen.probability >= 0.75 ? "d2" : chosen.probability >= 0.5 ? "d3" : "d4");
    doubts.push(index);
  }
  for (const node of words.values()) if (node.tagName === "BUTTON") node.tabIndex = -1;
  if (doubts.length) words.get(doubts[0]).tabIndex = 0; // one stop for the Tab key; arrows go on from there
  $("doubts").textContent = doubts.length ? `${number(doubts.length)} in doubt` : "nothing in doubt";
  $("previous").disabled = $("next").disabled = !doubts.length;
}

function goToDoubt(step) {
  if (!doubts.length) return;
  const at = doubts.indexOf(pinned);
  const beyond = step > 0 ? doubts.find((index) => index > pinned) : doubts.findLast((index) => index < pinned);
  const index = at >= 0 ? doubts[(at + step + doubts.length) % doubts.length] : beyond ?? doubts.at(step > 0 ? 0 : -1);
  const node = words.get(index);
  for (const other of doubts) words.get(other).tabIndex = other === index ? 0 : -1;
  node.scrollIntoView({ block: "center", behavior: "smooth" });
  node.focus({ preventScroll: true });
  pin(index);
}

// --- Who heard what ---------------------------------------------------------------------------------------------

let pinned = -1;

function pin(index) {
  words.get(pinned)?.classList.remove("chosen");
  pinned = index;
  words.get(index)?.classList.add("chosen");
  showHeard(index);
}

function showHeard(index) {
  const { chosen, others, rule } = decisions[index];
  const readings = [chosen, ...others].map((reading) => make("li", { class: reading === chosen ? "taken" : "" },
    make("span", { class: reading.text === null ? "text nothing" : "text" }, reading.text ?? "nothing was said"),
    make("span", { class: "right" }, percent(reading.probability)),
    make("progress", { value: reading.probability, max: 1, "aria-label": "Probability of being right" }),
    make("span", { class: "by" }, reading.providers.length ? `heard by ${reading.providers.join(", ")}` : "",
      reading.confidence === null || reading.confidence === undefined ? "" : `, its own confidence ${percent(reading.confidence)}`),
  ));
  const close = make("button", { type: "button", class: "close", onclick: hideHeard, "aria-label": "Close" }, "×");
  const when = chosen.start_ms === null ? "" : `${clock(chosen.start_ms)} · `;
  $("heard").replaceChildren(make("header", {}, make("span", {}, `${when}${RULES[rule] ?? rule}`), close), make("ul", {}, ...readings));
  $("heard").hidden = false;
  place_heard(words.get(index));
}

const RULES = { unanimous: "all agree", calibrated: "the most probable reading", single: "from one recognizer", "": "" };

function place_heard(node) {
  const word = node.getBoundingClientRect(), box = $("heard").getBoundingClientRect();
  const left = Math.min(Math.max(word.left, 12), document.documentElement.clientWidth - box.width - 12);
  const below = word.bottom + 8 + box.height < innerHeight || word.top < box.height + 8;
  $("heard").style.left = `${left + scrollX}px`;
  $("heard").style.top = `${(below ? word.bottom + 8 : word.top - box.height - 8) + scrollY}px`;
}

function hideHeard() {
  $("heard").hidden = true;
  words.get(pinned)?.classList.remove("chosen");
  pinned = -1;
}

const wordOf = (target) => (target instanceof Element ? target.closest(".word") : null);

$("transcript").addEventListener("click", ({ target }) => {
  const node = wordOf(target);
  if (!node) return;
  const index = Number(node.dataset.index);
  if (decisions[index].others.length) pin(index);
  else hideHeard();
  seek(timeOf(index));
});

$("transcript").addEventListener("pointerover", ({ target, pointerType }) => {
  const node = wordOf(target);
  if (pointerType === "mouse" && node?.classList.contains("doubt") && pinned < 0) showHeard(Number(node.dataset.index));
});

$("transcript").addEventListener("pointerout", ({ target, pointerType }) => {
  if (pointerType === "mouse" && wordOf(target) && pinned < 0) $("heard").hidden = true;
});

/** When a word is said; one that was left out, when the word before it ends. */
function timeOf(index) {
  const near = decisions[index].chosen.start_ms ?? decisions[index].others.find((other) => other.start_ms !== null)?.start_ms;
  if (near !== null && near !== undefined) return near;
  for (let before = index - 1; before >= 0; before--) if (decisions[before].chosen.end_ms !== null) return decisions[before].chosen.end_ms;
  return null;
}

// --- The recording ----------------------------------------------------------------------------------------------

let recording = ""; // an object URL to give back
let saying = null; // the word that is marked

function dropAudio() {
  $("audio").pause();
  $("audio").removeAttribute("src");
  $("audio").load();
  if (recording) URL.revokeObjectURL(recording);
  recording = "";
  saying = null;
}

/** A player cannot send a key: with one, the recording is fetched first, a large one only when asked for. */
async function openAudio(path, signal) {
  const url = `${path}${path.includes("?") ? "&" : "?"}direct=no`;
  dropAudio();
  $("audio").hidden = $("audio-load").hidden = $("audio-none").hidden = true;
  try {
    const size = Number((await ask(url, { method: "HEAD", signal })).headers.get("Content-Length"));
    if (!key()) showAudio(url);
    else if (size <= AUDIO_AT_ONCE) await fetchAudio(url, signal);
    else {
      $("audio-load").textContent = `Load the recording (${Math.round(size / 1e6)} MB)`;
      $("audio-load").onclick = () => fetchAudio(url, signal).catch(complain);
      $("audio-load").hidden = false;
    }
  } catch (error) {
    if (signal.aborted) return;
    $("audio-none").textContent = error.status === 404 ? "The recording is not in the storage any more." : "The recording cannot be played now.";
    $("audio-none").hidden = false;
  }
}

async function fetchAudio(url, signal) {
  $("audio-load").disabled = true;
  try {
    recording = URL.createObjectURL(await (await ask(url, { signal })).blob());
    if (!signal.aborted) showAudio(recording);
  } finally {
    $("audio-load").disabled = false;
  }
}

function showAudio(source) {
  $("audio").src = source;
  $("audio").hidden = false;
  $("audio-load").hidden = true;
}

function seek(ms) {
  if (ms === null || ms === undefined || $("audio").hidden) return;
  $("audio").currentTime = ms / 1000;
  $("audio").play().catch(() => {});
}

$("audio").addEventListener("error", () => {
  if (!$("audio").getAttribute("src")) return;
  $("audio").hidden = true;
  $("audio-none").textContent = "This browser cannot play the recording's format.";
  $("audio-none").hidden = false;
});

$("audio").addEventListener("timeupdate", () => {
  const now = $("audio").currentTime * 1000;
  let low = 0, high = starts.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (starts[middle][0] <= now) low = middle + 1;
    else high = middle;
  }
  const node = low ? words.get(starts[low - 1][1]) : null;
  if (node === saying) return;
  saying?.classList.remove("now");
  node?.classList.add("now");
  saying = node;
});

// --- Wiring -----------------------------------------------------------------------------------------------------

$("tenant").addEventListener("change", () => { location.hash = link($("tenant").value); });
$("status").addEventListener("change", restartList);
$("more").addEventListener("click", showOlder);
$("threshold").addEventListener("input", highlight);
$("next").addEventListener("click", () => goToDoubt(1));
$("previous").addEventListener("click", () => goToDoubt(-1));
$("key-open").addEventListener("click", () => askForKey(""));
$("key-forget").addEventListener("click", () => { $("key").value = ""; $("key-form").requestSubmit(); });
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const value = $("key").value.trim();
  if (value) sessionStorage.setItem("concord-key", value);
  else sessionStorage.removeItem("concord-key");
  $("key-dialog").close();
  $("notice").hidden = true;
  begin();
});
addEventListener("hashchange", arrive);
document.addEventListener("visibilitychange", () => { if (!document.hidden && place.tenant) refresh(); });
addEventListener("keydown", (event) => {
  if (event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey || $("transcript-area").hidden) return;
  const onWord = wordOf(event.target) !== null;
  if (event.key === "Escape") hideHeard();
  else if (event.key === "n" || (onWord && event.key === "ArrowRight")) goToDoubt(1);
  else if (event.key === "p" || (onWord && event.key === "ArrowLeft")) goToDoubt(-1);
  else return;
  event.preventDefault();
});

begin();
