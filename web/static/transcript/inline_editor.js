// A field in the place of a text that is being edited.

import { make } from "../dom.js";

let closed = Promise.resolve();
let discard = () => {};

/** Close the field that is open, if one is, without saving it: what it belongs to goes. */
export const closeEditor = () => discard();

/** Waits until no field is open: what is written there is not to be lost by drawing its surroundings anew. */
export const editorClosed = () => closed;

/** Edit a text in the place of `node`: Enter or leaving the field saves it, Escape does not. `onSave` gets what is new. */
export function editInPlace(node, value, label, onSave) {
  const field = make("input", { class: "in-place", value, size: Math.max(4, value.length + 1), maxLength: 2000, autocomplete: "off" });
  field.setAttribute("aria-label", label);
  let isOver = false, close;
  closed = new Promise((resolve) => { close = resolve; });
  const end = ({ isSaved, isByKey }) => {
    if (isOver) return;
    isOver = true;
    field.replaceWith(node);
    if (isByKey) node.focus({ preventScroll: true });
    if (isSaved && field.value.trim() !== value.trim()) onSave(field.value.trim());
    close();
  };
  discard = () => end({ isSaved: false, isByKey: false });
  field.addEventListener("input", () => { field.size = Math.max(4, field.value.length + 1); });
  field.addEventListener("blur", () => end({ isSaved: true, isByKey: false }));
  field.addEventListener("keydown", (event) => {
    if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    end({ isSaved: event.key === "Enter", isByKey: true });
  });
  node.replaceWith(field);
  field.focus();
  field.select();
}
