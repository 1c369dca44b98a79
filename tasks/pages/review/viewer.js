// The two photos: zoom, pan, mirror, light. Places are shares (0-1) of a photo, so that both move alike whatever their sizes.
import { el } from "./dom.js";
import { get, picture } from "./api.js";

const MOST = 40;
const CUT = 1600; // longest side of a picture that was made smaller than its photo
const FULL_FROM = 1.3; // zoom from which the photo is loaded at its full size

class Pane {
  constructor(place, side, viewer) {
    this.side = side;
    this.viewer = viewer;
    this.place = place;
    this.image = el("img", { alt: "", draggable: "false", fetchpriority: "high" });
    this.layers = el("div", { class: "layers" });
    this.turn = el("div", { class: "turn" }, this.image, this.layers);
    this.sheet = el("div", { class: "sheet" }, this.turn);
    this.error = el("p", { class: "unreadable", hidden: true });
    this.head = el("div", { class: "head" });
    this.stage = el("div", { class: "stage", tabindex: "0", role: "img" }, this.sheet, this.error);
    place.append(this.head, this.stage);
    this.view = { zoom: 1, x: 0.5, y: 0.5 };
    this.mirrored = false;
    this.key = null;
    this.full = false;
    this.size = { width: 0, height: 0 }; // of the stage; read when it changes, not at each move
    new ResizeObserver((entries) => {
      this.size = entries[entries.length - 1].contentRect;
      this.viewer.draw();
    }).observe(this.stage);
    this.image.addEventListener("load", () => this.viewer.arranged());
    this.image.addEventListener("error", () => this.failed());
    this.listen();
  }

  show(photo) {
    if (this.key === photo.key) return;
    this.key = photo.key;
    this.full = false;
    this.error.hidden = true;
    this.image.src = picture(photo.key, "cut");
    this.stage.setAttribute("aria-label", `photo ${photo.id}, ${photo.name}`);
  }

  async failed() {
    const key = this.key;
    let words = "this photo cannot be shown";
    try {
      await get(picture(key, "cut"));
    } catch (error) {
      words = error.message;
    }
    if (key !== this.key) return;
    this.error.textContent = words;
    this.error.hidden = false;
  }

  // Width and height of the photo where it just fits, and whether it is there yet.
  fitted() {
    const w = this.image.naturalWidth, h = this.image.naturalHeight;
    if (!w || !h || !this.size.width) return null;
    const factor = Math.min(this.size.width / w, this.size.height / h);
    return { width: w * factor, height: h * factor };
  }

  draw() {
    const fit = this.fitted();
    if (!fit) return;
    const { zoom, x, y } = this.view;
    const left = this.size.width / 2 - (this.mirrored ? 1 - x : x) * fit.width * zoom;
    const top = this.size.height / 2 - y * fit.height * zoom;
    this.sheet.style.width = `${fit.width * zoom}px`;
    this.sheet.style.height = `${fit.height * zoom}px`;
    this.sheet.style.transform = `translate(${left}px, ${top}px)`;
    this.turn.style.transform = this.mirrored ? "scaleX(-1)" : "none";
    this.stage.classList.toggle("zoomed", zoom > 1); // else one finger scrolls the page
    this.image.classList.toggle("pixels", fit.width * zoom > 3 * this.image.naturalWidth);
    if (!this.full && zoom >= FULL_FROM) this.sharpen();
  }

  sharpen() {
    this.full = true;
    if (Math.max(this.image.naturalWidth, this.image.naturalHeight) < CUT) return; // it is all there
    const key = this.key, better = new Image();
    better.src = picture(key, "full");
    better.decode().then(() => { if (key === this.key) this.image.src = better.src; }, () => {});
  }

  // A place of the photo in pixels of the stage; null while there is no photo.
  toStage([x, y]) {
    const fit = this.fitted();
    if (!fit) return null;
    const { zoom, x: cx, y: cy } = this.view, side = this.mirrored ? -1 : 1;
    return [this.size.width / 2 + side * (x - cx) * fit.width * zoom, this.size.height / 2 + (y - cy) * fit.height * zoom];
  }

  listen() {
    const held = new Map();
    let before = null;
    const stage = this.stage;
    const middle = () => {
      const points = [...held.values()];
      const x = points.reduce((sum, p) => sum + p.x, 0) / points.length;
      const y = points.reduce((sum, p) => sum + p.y, 0) / points.length;
      const spread = points.length > 1 ? Math.hypot(points[0].x - points[1].x, points[0].y - points[1].y) : 0;
      return { x, y, spread };
    };
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      const step = event.deltaMode === 1 ? 24 * event.deltaY : event.deltaY;
      this.zoomAt(Math.exp(-step / 400), event.offsetX, event.offsetY, event);
    }, { passive: false });
    stage.addEventListener("pointerdown", (event) => {
      stage.setPointerCapture(event.pointerId);
      held.set(event.pointerId, { x: event.clientX, y: event.clientY });
      before = middle();
    });
    stage.addEventListener("pointermove", (event) => {
      if (!held.has(event.pointerId)) return;
      held.set(event.pointerId, { x: event.clientX, y: event.clientY });
      const now = middle();
      this.move(now.x - before.x, now.y - before.y);
      if (now.spread && before.spread) this.zoomAt(now.spread / before.spread, ...this.inside(now.x, now.y));
      before = now;
    });
    const drop = (event) => {
      held.delete(event.pointerId);
      before = held.size ? middle() : null;
    };
    stage.addEventListener("pointerup", drop);
    stage.addEventListener("pointercancel", drop);
    stage.addEventListener("dblclick", (event) => {
      if (this.view.zoom > 1.01) this.viewer.reset();
      else this.zoomAt(3, ...this.inside(event.clientX, event.clientY));
    });
  }

  inside(clientX, clientY) {
    const box = this.stage.getBoundingClientRect();
    return [clientX - box.left, clientY - box.top];
  }

  // The place under the pointer stays there in this photo; the other photo zooms about the same share of itself.
  zoomAt(factor, px, py, event = null) {
    const at = event && event.target !== this.stage ? this.inside(event.clientX, event.clientY) : [px, py];
    const fit = this.fitted();
    if (!fit) return;
    const zoom = Math.min(MOST, Math.max(1, this.view.zoom * factor));
    const flip = this.mirrored ? -1 : 1;
    const dx = (at[0] - this.size.width / 2) / fit.width * flip, dy = (at[1] - this.size.height / 2) / fit.height;
    const shift = 1 / this.view.zoom - 1 / zoom;
    this.viewer.change(this, zoom / this.view.zoom, dx * shift, dy * shift);
  }

  move(dx, dy) {
    const fit = this.fitted();
    if (!fit) return;
    const flip = this.mirrored ? -1 : 1;
    this.viewer.change(this, 1, -flip * dx / (fit.width * this.view.zoom), -dy / (fit.height * this.view.zoom));
  }
}

export class Viewer {
  constructor(a, b, drawn) {
    this.panes = { a: new Pane(a, "a", this), b: new Pane(b, "b", this) };
    this.linked = true;
    this.drawn = drawn;
    this.asked = false;
    this.light = [100, 100];
  }

  all() {
    return [this.panes.a, this.panes.b];
  }

  // On a narrow page tall photos stand side by side, others one above the other.
  arranged() {
    const tall = this.all().every((pane) => pane.image.naturalHeight > 1.15 * pane.image.naturalWidth);
    document.body.classList.toggle("tall", tall);
    this.draw();
  }

  change(pane, factor, dx, dy) {
    for (const each of this.linked ? this.all() : [pane]) {
      const view = each.view;
      view.zoom = Math.min(MOST, Math.max(1, view.zoom * factor));
      // A mirrored photo moves with the pointer, too.
      const flip = each.mirrored === pane.mirrored ? 1 : -1;
      view.x = view.zoom === 1 ? 0.5 : Math.min(1, Math.max(0, view.x + flip * dx));
      view.y = view.zoom === 1 ? 0.5 : Math.min(1, Math.max(0, view.y + dy));
    }
    this.draw();
  }

  zoom(factor) {
    for (const pane of this.linked ? [this.panes.a] : this.all()) this.change(pane, factor, 0, 0);
  }

  reset() {
    for (const pane of this.all()) pane.view = { zoom: 1, x: 0.5, y: 0.5 };
    this.draw();
  }

  mirror() {
    this.panes.b.mirrored = !this.panes.b.mirrored;
    this.draw();
    return this.panes.b.mirrored;
  }

  setLight(brightness, contrast) {
    this.light = [brightness, contrast];
    for (const pane of this.all()) pane.image.style.filter = brightness === 100 && contrast === 100 ? "" : `brightness(${brightness}%) contrast(${contrast}%)`;
  }

  // Any number of moves between two frames are drawn once.
  draw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      for (const pane of this.all()) pane.draw();
      this.drawn();
    });
  }
}
