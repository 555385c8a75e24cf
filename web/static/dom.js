// Creates and fills elements. Everything shown comes from outside (file names, transcripts, error texts), so it is only
// ever written as text, never as markup.

/** The element with this id. */
export const $ = (id) => document.getElementById(id);

/** An element with properties, classes in `class`, and children that are nodes or text. */
export function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("aria-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  return fill(node, ...children);
}

/** Give a node these children in place of those it has; null stands for none. */
export function fill(node, ...children) {
  node.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Whether the keys that are pressed belong to a field or a dialog, and are no commands. */
export const isTyping = ({ target }) => target instanceof Element
  && (target.matches("input:not([type=range]):not([type=checkbox]), textarea, select") || target.closest("dialog") !== null);

/** Whether a key is pressed with one that makes it the browser's. */
export const isModified = ({ ctrlKey, metaKey, altKey }) => ctrlKey || metaKey || altKey;

/** A button; `kind` is its class. */
export const button = (text, onclick, kind = "quiet") => make("button", { type: "button", class: kind, onclick }, text);
