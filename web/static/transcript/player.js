// Plays a recording, or a part of it.

import { request } from "../api/client.js";
import { key } from "../api/key.js";
import { reportError } from "../notices.js";

const FETCHED_UNASKED = 25e6; // bytes that are fetched without asking, where a key keeps the player from streaming

/** A player in these elements: the audio, the button that loads a large recording, and where it says that there is none. */
export class Player {
  #audio; #load; #none;
  #objectUrl = ""; // of a fetched recording, to be revoked
  #path = "";
  #end = Infinity; // milliseconds at which it pauses
  #start = ""; // where it begins, as a fragment of the recording's address

  constructor(audio, load, none) {
    [this.#audio, this.#load, this.#none] = [audio, load, none];
    audio.addEventListener("timeupdate", () => {
      if (audio.currentTime * 1000 < this.#end) return;
      audio.pause();
      this.#end = Infinity;
    });
    audio.addEventListener("error", () => {
      if (!audio.getAttribute("src")) return;
      audio.hidden = true;
      this.#explain("This browser cannot play the recording's format.");
    });
  }

  /** Stop, and release the recording. */
  close() {
    this.#path = "";
    this.#end = Infinity;
    this.#audio.pause();
    this.#audio.removeAttribute("src");
    this.#audio.load();
    if (this.#objectUrl) URL.revokeObjectURL(this.#objectUrl);
    this.#objectUrl = "";
  }

  /**
   * Open a recording, unless it is open already. A player cannot send a key: with one, the recording is fetched first, a
   * large one only when asked for. It is ready to be played from `at`, in milliseconds.
   */
  async open(path, signal, at = null) {
    if (path === this.#path) return;
    const url = `${path}${path.includes("?") ? "&" : "?"}direct=no`;
    this.close();
    this.#path = path;
    this.#start = at === null ? "" : `#t=${at / 1000}`;
    this.#audio.hidden = this.#load.hidden = this.#none.hidden = true;
    try {
      const size = Number((await request(url, { method: "HEAD", signal })).headers.get("Content-Length"));
      if (!key()) this.#show(url);
      else if (size <= FETCHED_UNASKED) await this.#fetch(url, signal);
      else this.#offer(url, size, signal);
    } catch (error) {
      if (signal.aborted) return;
      this.#explain(error.status === 404 ? "The recording is not in the storage any more." : "The recording cannot be played now.");
    }
  }

  #offer(url, size, signal) {
    this.#load.textContent = `Load the recording (${Math.round(size / 1e6)} MB)`;
    this.#load.onclick = () => this.#fetch(url, signal).catch(reportError);
    this.#load.hidden = false;
  }

  async #fetch(url, signal) {
    this.#load.disabled = true;
    try {
      const blob = await (await request(url, { signal })).blob();
      if (signal.aborted) return;
      this.#objectUrl = URL.createObjectURL(blob);
      this.#show(this.#objectUrl);
    } finally {
      this.#load.disabled = false;
    }
  }

  #show(source) {
    this.#audio.src = source + this.#start;
    this.#audio.hidden = false;
    this.#load.hidden = true;
  }

  #explain(reason) {
    this.#none.textContent = reason;
    this.#none.hidden = false;
  }

  /** Play from one position in milliseconds to another; nothing happens without a position or a recording. */
  play(from, to = Infinity) {
    if (from === null || from === undefined || this.#audio.hidden) return;
    this.#end = to;
    this.#audio.currentTime = from / 1000;
    this.#audio.play().catch(() => {}); // a browser may refuse to play before the page is clicked at
  }
}
