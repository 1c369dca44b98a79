// The cards that are at hand: ids in order, where we are among them, and pictures that are fetched ahead.
import { get, picture, post } from "./api.js";

const AHEAD = 4; // cards whose texts and pictures are fetched ahead
const KEPT = 60;

export class Deck {
  constructor() {
    this.cards = new Map();
    this.ids = [];
    this.found = 0;
    this.at = 0;
    this.trail = [];
    this.step = -1;
    this.pictures = new Map();
    this.line = { ids: [], errors: 0, answered: 0, open_errors: 0, stop_at: null };
    this.version = 0;
  }

  async load(asked) {
    const line = await post("/api/queue", asked);
    this.line = line;
    this.ids = line.ids;
    this.found = line.ids.length; // before any is answered
    this.version = line.version;
    this.at = 0;
    for (const card of line.first) this.keep(card);
  }

  keep(card) {
    this.cards.delete(card.id);
    this.cards.set(card.id, card);
    while (this.cards.size > KEPT) this.cards.delete(this.cards.keys().next().value);
  }

  async card(id) {
    if (!this.cards.has(id)) for (const card of await get("/api/cards", { ids: [id] })) this.keep(card);
    return this.cards.get(id);
  }

  current() {
    return this.trail[this.step] ?? null;
  }

  rewind() {
    this.trail = [];
    this.step = -1;
    this.at = 0;
  }

  // Go to a card, from which "previous" leads back.
  visit(id) {
    if (this.current() === id) return;
    this.trail = [...this.trail.slice(0, this.step + 1), id].slice(-500);
    this.step = this.trail.length - 1;
    const at = this.ids.indexOf(id);
    if (at >= 0) this.at = at;
  }

  // The next id to show; null at the end.
  next() {
    if (this.step < this.trail.length - 1) return this.trail[++this.step];
    const here = this.ids.indexOf(this.current());
    const at = here >= 0 ? here + 1 : this.at;
    if (at >= this.ids.length) return null;
    this.visit(this.ids[at]);
    return this.ids[at];
  }

  previous() {
    return this.step > 0 ? this.trail[--this.step] : null;
  }

  // An answered card leaves the line; the one behind it takes its place.
  answered(id, moved) {
    this.drop(id);
    for (const [other, standing] of Object.entries(moved)) {
      this.cards.delete(other);
      if (standing === "open") continue;
      const had = this.ids.indexOf(other) >= 0;
      this.drop(other);
      if (standing === "later" && had) this.ids.push(other);
    }
    this.trail = this.trail.slice(0, this.step + 1);
  }

  drop(id) {
    const here = this.ids.indexOf(id);
    if (here < 0) return;
    this.ids.splice(here, 1);
    if (here < this.at) this.at -= 1;
  }

  later(id) {
    this.drop(id);
    this.ids.push(id);
  }

  async ahead() {
    const here = this.ids.indexOf(this.current());
    const from = here >= 0 ? here + 1 : this.at;
    const ids = this.ids.slice(from, from + AHEAD);
    const missing = ids.filter((id) => !this.cards.has(id));
    if (missing.length) for (const card of await get("/api/cards", { ids: missing })) this.keep(card);
    for (const id of ids) {
      const card = this.cards.get(id);
      if (card) for (const side of ["a", "b"]) this.fetch(card.sides[side].photo.key);
    }
  }

  fetch(key) {
    if (this.pictures.has(key)) return;
    const image = new Image();
    image.src = picture(key, "cut");
    image.decode().catch(() => {});
    this.pictures.set(key, image);
    while (this.pictures.size > 24) this.pictures.delete(this.pictures.keys().next().value);
  }
}
