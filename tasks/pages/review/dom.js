// Elements of the page. Every text is set as text: nothing that a catalogue holds is ever read as HTML.

export const $ = (id) => document.getElementById(id);

export function el(tag, given = {}, ...children) {
  const made = tag === "svg" || given.svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name === "svg" || value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, does] of Object.entries(value)) made.addEventListener(event, does);
    else if (name === "text") made.textContent = value;
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined) made.append(child);
  return made;
}

// A name stands apart from what is around it, whichever way it is written.
export const name = (text) => el("bdi", { text });

// Parts of a sentence: pairs of a text and whether it is a name.
export const sentence = (parts) => parts.map(([text, isName]) => (isName ? name(text) : document.createTextNode(text)));

export const fill = (place, ...children) => place.replaceChildren(...children.flat(Infinity).filter((c) => c !== null && c !== undefined));

export const percent = (share) => (share > 0.995 && share < 1 ? "> 99 %" : share > 0 && share < 0.005 ? "< 1 %" : `${Math.round(100 * share)} %`);

export const number = (value) => (value >= 10 ? Math.round(value).toString() : Math.max(0, value).toFixed(1));
