// Search: the utterances of a tenant's transcripts that match, each a link to its moment.

import { getJson } from "../api/client.js";
import { $, fill, make } from "../dom.js";
import { clock } from "../format.js";
import { link } from "../location.js";
import { tellError } from "../notices.js";

let tenant = "";
let asked = null; // the query of the page that is shown
let next = null; // cursor of the next page
let searching = new AbortController();

/** Show the search of a tenant's transcripts; what was found stays until another tenant's is shown. */
export function openSearch(of) {
  if (of !== tenant) forget();
  tenant = of;
  $("find").hidden = false;
  $("find-q").focus({ preventScroll: true });
}

/** Hide it. */
export function closeSearch() {
  searching.abort();
  $("find").hidden = true;
}

function forget() {
  asked = next = null;
  $("find-hits").replaceChildren();
  $("find-how").textContent = "";
  $("find-more").hidden = true;
}

async function search(cursor = "") {
  searching.abort();
  searching = new AbortController();
  const { signal } = searching;
  try {
    const query = new URLSearchParams([...asked, ...(cursor ? [["cursor", cursor]] : [])]);
    const page = await getJson(`/search?${query}`, { signal });
    const items = page.hits.map(showHit);
    if (cursor) $("find-hits").append(...items);
    else fill($("find-hits"), ...items);
    next = page.next;
    $("find-more").hidden = !next;
    $("find-how").textContent = told(page, $("find-hits").children.length);
  } catch (error) {
    tellError(error);
  }
}

function told({ searched, next: more }, count) {
  const found = count ? `${count}${more ? " or more" : ""} found` : "Nothing is found";
  const how = searched.vectors ? "by words and by meaning" : `by words alone${searched.reason ? `: ${searched.reason}` : ""}`;
  return `${found}, ${how}.${searched.is_cut ? " More have the words than were ranked: use rarer words, or filters." : ""}`;
}

function showHit(hit) {
  const { utterance } = hit;
  const others = hit.other_readings.map(({ heard }) => heard);
  return make("li", {},
    make("a", { href: link(tenant, hit.job_id, hit.start_ms === null ? "" : `at=${hit.start_ms}`), dir: "auto" },
      ...marked(utterance.text, hit.highlights)),
    others.length ? make("p", { class: "faint" }, `Also heard: ${others.join(", ")}`) : null,
    ...[...hit.before, ...hit.after].map(({ speaker, text }) => make("p", { class: "faint around", dir: "auto" }, speaker ? `${speaker}: ${text}` : text)),
    make("p", { class: "sub" }, [utterance.speaker, clock(hit.start_ms), new Date(hit.created_at).toLocaleString(), hit.job_id].filter(Boolean).join(" · ")));
}

/** The parts of a text; those from and to these characters (code points) are marked. */
function marked(text, places) {
  const characters = [...text];
  const parts = [];
  let at = 0;
  for (const { begin, end } of places) {
    parts.push(characters.slice(at, begin).join(""), make("mark", {}, characters.slice(begin, end).join("")));
    at = end;
  }
  return [...parts, characters.slice(at).join("")];
}

$("find-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = [...new FormData($("find-form"))].filter(([, value]) => value.trim());
  asked = [["tenant", tenant], ...given];
  search();
});
$("find-more").addEventListener("click", () => search(next));
