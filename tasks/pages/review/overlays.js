// What is drawn over the photos: relevance as heat, matches as numbered rings and lines, pixel colours, other explanations.
import { $, el } from "./dom.js";
import { get, post } from "./api.js";

const COLOURS = ["#ff8a00", "#78c3ff", "#b4ff78", "#963cff", "#d23c1e", "#69ffff", "#3cb469", "#b45a87", "#6969c3", "#d2ffc3"];
const NUMBERED = 10;
const KEYS = { relevance: "1", matches: "2", inliers: "3", colours: "4" };
const INLIERS = "local_inliers";

export class Overlays {
  constructor(viewer, say) {
    this.viewer = viewer;
    this.say = say;
    this.on = new Set();
    this.before = new Set(["matches"]);
    this.method = "";
    this.card = null;
    this.cache = new Map();
    this.lines = [];
    this.turn = 0;
  }

  listen() {
    for (const button of document.querySelectorAll("[data-overlay]")) button.addEventListener("click", () => this.toggle(button.dataset.overlay));
    $("overlay-off").addEventListener("click", () => this.plain());
    const select = $("method");
    // What there is to explain by is asked for when somebody wants it: the server must load much for the answer.
    select.addEventListener("focus", () => this.offer(), { once: true });
    select.append(el("option", { value: "", text: "nothing else" }));
    select.addEventListener("change", () => {
      this.method = select.value;
      this.show();
    });
  }

  async offer() {
    const select = $("method"), waiting = el("option", { disabled: true, text: "a moment …" });
    select.append(waiting);
    try {
      for (const { name, about } of await get("/api/methods")) this.choice(name).title = about;
      waiting.remove();
    } catch (error) {
      waiting.textContent = error.message;
    }
    this.mark();
  }

  choice(name) {
    const select = $("method"), there = [...select.options].find((each) => each.value === name);
    return there ?? select.appendChild(el("option", { value: name, text: name }));
  }

  // Explanations of this pair that somebody asked for before are there at once: these are marked.
  mark() {
    const known = this.card?.explained ?? [];
    for (const name of known) this.choice(name);
    for (const option of $("method").options) if (option.value) option.textContent = known.includes(option.value) ? `${option.value} ✓` : option.value;
  }

  // Shown are the photos of the question itself? Only of these anything is stored.
  of(card, original) {
    this.card = original ? card : null;
    this.mark();
    this.show();
  }

  toggle(kind) {
    if (!this.on.delete(kind)) this.on.add(kind);
    this.show();
  }

  // Off, or on again as they were.
  plain() {
    if (this.on.size || this.method) {
      this.before = new Set(this.on);
      this.beforeMethod = this.method;
      this.on.clear();
      this.method = "";
    } else {
      this.on = new Set(this.before);
      this.method = this.beforeMethod || "";
    }
    $("method").value = this.method;
    this.show();
  }

  key(pressed) {
    const kind = Object.keys(KEYS).find((each) => KEYS[each] === pressed);
    if (kind) this.toggle(kind);
    return kind !== undefined;
  }

  async show() {
    const turn = ++this.turn, card = this.card;
    for (const button of document.querySelectorAll("[data-overlay]")) button.setAttribute("aria-pressed", this.on.has(button.dataset.overlay));
    $("overlay-off").setAttribute("aria-pressed", !this.on.size && !this.method);
    const layers = { a: [], b: [] }, lines = [], notes = [];
    const wanted = card ? [...this.on, ...(this.method ? ["method"] : [])] : [];
    this.put(layers, lines, "");
    if (!wanted.length) return;
    if (!card) return;
    for (const kind of wanted) {
      try {
        await this.add(kind, card, layers, lines, notes);
      } catch (error) {
        notes.push(error.message);
      }
      if (turn !== this.turn) return;
      this.put(layers, lines, notes.join(" · "));
    }
  }

  put(layers, lines, note) {
    for (const side of "ab") this.viewer.panes[side].layers.replaceChildren(...layers[side]);
    this.lines = lines;
    $("overlay-note").textContent = note;
    this.drawLines();
  }

  async add(kind, card, layers, lines, notes) {
    if (kind === "relevance" || kind === "matches") {
      const marks = await this.kept(`marks ${card.id}`, () => get(`/api/marks/${card.id}`));
      if (kind === "relevance") for (const side of "ab") layers[side].push(heat(marks.grids[side]));
      else {
        lines.push(...marks.matches.map((match, i) => ({ ...match, colour: COLOURS[i % 10], label: i < NUMBERED ? String(i + 1) : "" })));
        notes.push(`${marks.n_matches} deep matches, the ${Math.min(marks.matches.length, marks.n_matches)} most relevant drawn`);
      }
    } else if (kind === "colours") {
      if (!card.drawn) throw new Error("the run drew no pixel colours of this pair");
      for (const side of "ab") layers[side].push(el("img", { alt: "", src: `/colours/${card.id}/${side}.webp` }));
    } else {
      const method = kind === "inliers" ? INLIERS : this.method;
      if (!this.cache.has(`${method} ${card.id}`)) $("overlay-note").textContent = `computing ${method} …`;
      const found = await this.kept(`${method} ${card.id}`, () => post(`/api/explain/${card.id}/${encodeURIComponent(method)}`));
      if (kind === "method" && !card.explained.includes(method)) {
        card.explained.push(method);
        this.mark();
      }
      for (const side of found.heat) layers[side].push(el("img", { alt: "", src: `/explained/${card.id}/${encodeURIComponent(method)}/${side}.webp` }));
      lines.push(...found.matches.map((match) => ({ ...match, colour: kind === "inliers" ? "#69ffff" : "#dee2e6", label: "" })));
      notes.push([found.about, ...found.remarks].join("; "));
    }
  }

  async kept(key, ask) {
    if (!this.cache.has(key)) {
      const asked = ask();
      this.cache.set(key, asked);
      asked.catch(() => this.cache.delete(key));
      if (this.cache.size > 300) this.cache.delete(this.cache.keys().next().value);
    }
    return this.cache.get(key);
  }

  // Rings at both ends and a line between, where both ends are in sight.
  drawLines() {
    const svg = $("lines");
    if (!this.lines.length) {
      if (svg.childElementCount) svg.replaceChildren();
      return;
    }
    const frame = svg.getBoundingClientRect(), made = [];
    const offset = {};
    for (const pane of this.viewer.all()) {
      const box = pane.stage.getBoundingClientRect();
      offset[pane.side] = { left: box.left - frame.left, top: box.top - frame.top, width: box.width, height: box.height };
    }
    const place = (side, at) => {
      const found = this.viewer.panes[side].toStage(at), box = offset[side];
      if (!found || found[0] < 0 || found[1] < 0 || found[0] > box.width || found[1] > box.height) return null;
      return [found[0] + box.left, found[1] + box.top];
    };
    for (const line of [...this.lines].reverse()) {
      const a = place("a", line.a), b = place("b", line.b), strong = line.label !== "";
      if (a && b) {
        const ends = { x1: a[0], y1: a[1], x2: b[0], y2: b[1], svg: true };
        made.push(el("line", { ...ends, stroke: "#000", "stroke-width": 3, opacity: 0.25 }));
        made.push(el("line", { ...ends, stroke: line.colour, "stroke-width": strong ? 1.6 : 0.9, opacity: 0.3 + 0.6 * Math.min(1, line.share) }));
      }
      for (const end of [a, b]) {
        if (!end) continue;
        made.push(el("circle", { cx: end[0], cy: end[1], r: strong ? 6 : 4, fill: "none", stroke: "#000", "stroke-width": 3.5, opacity: 0.5, svg: true }));
        made.push(el("circle", { cx: end[0], cy: end[1], r: strong ? 6 : 4, fill: "none", stroke: line.colour, "stroke-width": 1.8, svg: true }));
        if (strong) made.push(el("text", { x: end[0] + 9, y: end[1] - 6, fill: line.colour, svg: true, text: line.label }));
      }
    }
    svg.replaceChildren(...made);
  }
}

// A grid of shares as heat, one pixel a cell; the browser stretches it smoothly.
function heat(grid) {
  const height = grid.length, width = grid[0].length;
  const canvas = el("canvas", { width, height }), paint = canvas.getContext("2d"), image = paint.createImageData(width, height);
  grid.flat().forEach((share, i) => {
    image.data.set([255, Math.round(70 + 160 * share), Math.round(40 * share), Math.round(190 * share)], 4 * i);
  });
  paint.putImageData(image, 0, 0);
  return canvas;
}
