// The recording of the job that is shown.

import { $ } from "../dom.js";
import { Player } from "./player.js";

export const player = new Player($("audio"), $("audio-load"), $("audio-none"));

/** Play from a position in milliseconds. */
export const playFrom = (ms) => player.play(ms);

/** Call `listener` with the position in milliseconds whenever it changes. */
export function onPosition(listener) {
  $("audio").addEventListener("timeupdate", () => listener($("audio").currentTime * 1000));
}
