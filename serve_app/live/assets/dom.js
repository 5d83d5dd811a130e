// Elements from values. Text is only ever set as text: names come from outside.

export const $ = (id) => document.getElementById(id);

/** An element of a tag, with classes ("td.num"), attributes, and children: elements or texts; null is left out. */
export function el(tag, attributes, ...children) {
  const [name, ...classes] = tag.split(".");
  const made = document.createElement(name);
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** The same for SVG; numbers are rounded to a tenth. */
export function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    made.setAttribute(key, typeof value === "number" ? Math.round(value * 10) / 10 : value);
  }
  made.append(...children);
  return made;
}

/** Set a text where it has changed. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set an attribute where it has changed. */
export function mark(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}
