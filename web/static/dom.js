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
