// Names that the speakers of a transcript may have, from voices that people of this tenant have named before. A name is
// taken with one click, which is the same edit as writing it.

import { $, button, make } from "../dom.js";
import { renameSpeaker } from "./editing.js";

/** Offer these names. */
export function showSuggestions(suggestions) {
  $("suggestions").replaceChildren(...suggestions.map(({ speaker, name, similarity }) => {
    const accept = () => {
      item.remove();
      renameSpeaker(speaker, name);
    };
    const item = make("li", {}, `${speaker} sounds like ${name} (${similarity.toFixed(2)}). `, button(`Call ${speaker} ${name}`, accept));
    return item;
  }));
}
