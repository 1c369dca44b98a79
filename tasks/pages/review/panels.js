// What stands around the photos: their heads, the strips of other photos, and where the pair stands in the catalogue.
import { $, el, fill, name, number, percent } from "./dom.js";
import { picture } from "./api.js";

const WIDE = 240, HIGH = 30;

export function head(pane, side, shown, original, back) {
  const photo = shown.photo;
  const facts = [photo.date, photo.viewpoint, photo.encounter && `encounter ${photo.encounter}`].filter(Boolean);
  const count = side.part === null ? `${side.photos} photo${side.photos === 1 ? "" : "s"}` : `${side.part} of ${side.photos} photos on this side`;
  fill(
    pane.head,
    el("strong", {}, name(side.name)),
    el("span", { class: "count", text: count }),
    side.blamed && original ? el("span", { class: "blamed", text: "name in doubt" }) : null,
    original ? null : el("button", { class: "back", text: "Back to the question’s photo", on: { click: back } }),
    el("span", { class: "facts" }, name(photo.id), ...facts.flatMap((fact) => [" · ", name(fact)])),
  );
  pane.place.classList.toggle("other", !original);
}

export function strip(place, side, letter, current, choose) {
  const part = side.part === null ? "" : letter === "a" ? ", first side" : ", second side";
  const title = el("h2", {}, "Other photos of ", name(side.name), part);
  const choices = [side.photo, ...side.others].map((photo, i) => {
    const facts = [photo.date, photo.viewpoint].filter(Boolean).join(" · ");
    return el(
      "button",
      {
        "aria-pressed": photo.key === current, title: `${photo.id}${facts ? ` · ${facts}` : ""}`,
        "aria-label": `show ${photo.id} as the ${letter === "a" ? "first" : "second"} photo`, on: { click: () => choose(photo) },
      },
      el("img", { src: picture(photo.key, "thumb"), alt: "", loading: i > 8 ? "lazy" : "eager", decoding: "async", fetchpriority: "low", draggable: "false" }),
      el("span", {}, i ? (photo.date ? name(photo.date) : name(photo.id)) : "in question"),
      photo.viewpoint || photo.encounter ? el("span", { class: "facts" }, name([photo.viewpoint, photo.encounter].filter(Boolean).join(" · "))) : null,
    );
  });
  fill(place, title, choices.length > 1 ? el("div", { class: "row" }, choices) : el("p", { class: "alone", text: `no other photo of this ${part ? "side" : "name"}` }));
}

export function measures(place, listed, spreads) {
  fill(place, listed.map((each) => measure(each, spreads[each.name])));
}

function measure({ label, about, value, below }, spread) {
  const words = value === null ? "not known for this pair" : below === null ? value.toPrecision(3)
    : `${value.toPrecision(3)}: above ${percent(below[0])} of pairs of one name, ${percent(below[1])} of two`;
  return el("figure", { class: "measure", title: about }, el("figcaption", {}, el("span", { text: label }), el("b", { text: value === null ? "–" : value.toPrecision(3) })),
    spread ? plot(spread, value, `${label}: ${words}`) : null,
    el("span", { class: "stands", text: value === null ? words : below === null ? "" : `above ${percent(below[0])} of one, ${percent(below[1])} of two` }));
}

// Pairs of one name above the line, of two below it.
function plot(spread, value, words) {
  const svg = el("svg", { viewBox: `0 0 ${WIDE} ${2 * HIGH}`, role: "img", "aria-label": words, preserveAspectRatio: "none" });
  const most = Math.max(...spread.one, ...spread.two, 1e-9), step = WIDE / spread.one.length;
  const side = (shares, sign) => {
    // The root keeps rare values visible.
    const tops = shares.map((share) => HIGH + sign * Math.sqrt(share / most) * (HIGH - 3));
    const steps = tops.map((top, i) => `L${(i * step).toFixed(1)} ${top.toFixed(1)}L${((i + 1) * step).toFixed(1)} ${top.toFixed(1)}`);
    return `M0 ${HIGH}${steps.join("")}L${WIDE} ${HIGH}Z`;
  };
  svg.append(el("path", { d: side(spread.one, -1), class: "one", svg: true }), el("path", { d: side(spread.two, 1), class: "two", svg: true }));
  svg.append(el("line", { x1: 0, x2: WIDE, y1: HIGH, y2: HIGH, class: "axis", svg: true }));
  if (value !== null) {
    const on = spread.log ? (each) => Math.log(Math.max(each, spread.low)) : (each) => each;
    const at = Math.min(1, Math.max(0, (on(value) - on(spread.low)) / (on(spread.high) - on(spread.low) || 1))) * (WIDE - 4) + 2;
    svg.append(el("line", { x1: at, x2: at, y1: 0, y2: 2 * HIGH, class: "mark", svg: true }));
  }
  return svg;
}

// The whole photo with the box that was cut out of it, turned as the animal is.
export function whole(photo) {
  const [w, h] = photo.size, svg = el("svg", { viewBox: `0 0 ${w} ${h}`, class: "box", "aria-hidden": "true" });
  if (photo.box) {
    const [x, y, bw, bh] = photo.box, middle = `${x + bw / 2} ${y + bh / 2}`;
    const turn = `rotate(${(photo.theta * 180) / Math.PI} ${middle})`;
    for (const colour of ["dark", "light"]) svg.append(el("rect", { x, y, width: bw, height: bh, transform: turn, class: colour, svg: true }));
  }
  return el("figure", { class: "whole" },
    el("div", {}, el("img", { src: picture(photo.key, "whole"), alt: `the whole photo ${photo.id}` }), svg),
    el("figcaption", {}, name(photo.id), " · ", name(photo.path), ` · ${w} × ${h}`, photo.box ? "" : " · no box: the whole photo was taken"));
}

export function progress(place, start, line) {
  const left = line.open_errors, expected = start.expected;
  fill(
    place,
    el("b", { text: `${line.answered} of ${start.cards} answered` }),
    el("span", { text: `${line.ids.length} listed, about ${number(line.errors)} real errors among them` }),
    el("span", { class: "quiet long", text: `${number(left)} left in all` + (expected ? ` · wrong names expected at the last run: ${number(expected[0])} (${number(expected[1])}–${number(expected[2])})` : "") }),
  );
}
