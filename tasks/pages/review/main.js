// The review: shows a card, takes an answer, and goes on when the server says that it is on disk.
import { $, el, fill, name, percent, sentence } from "./dom.js";
import { get, post } from "./api.js";
import { Deck } from "./deck.js";
import { help, isOpen, open } from "./dialogs.js";
import { Filters } from "./filters.js";
import { Overlays } from "./overlays.js";
import { head, measures, progress, strip, whole } from "./panels.js";
import { Viewer } from "./viewer.js";

const LOOK = 4000; // milliseconds after which the page asks what others answered
const deck = new Deck();
const viewer = new Viewer($("pane-a"), $("pane-b"), () => overlays.drawLines());
const overlays = new Overlays(viewer);
const filters = new Filters(reload);
let start = null, card = null, shown = { a: null, b: null }, note = "", busy = false, stopped = null;

async function begin() {
  // The first cards are those of no filter, whatever there is to choose from.
  const first = deck.load(filters.asked());
  start = await get("/api/start");
  const kept = localStorage.getItem("pairx-reviewer");
  $("reviewer").value = kept ?? start.reviewer ?? "";
  $("reviewer").addEventListener("change", () => localStorage.setItem("pairx-reviewer", $("reviewer").value.trim()));
  filters.begin(start);
  overlays.listen();
  wire();
  await first;
  await begun();
  setInterval(look, LOOK);
}

// Whether answers have to wait for the server; the page shows that they do.
function hold(wait) {
  busy = wait;
  document.body.classList.toggle("waiting", wait);
}

// No key answers the card that is about to go.
async function reload() {
  while (busy) await new Promise((done) => setTimeout(done, 20));
  hold(true);
  try {
    await deck.load(filters.asked());
  } catch (error) {
    return tell(error.message, true);
  } finally {
    hold(false);
  }
  await begun();
}

async function begun() {
  stopped = null;
  deck.rewind();
  progress($("progress"), start, deck.line);
  await go(deck.next());
}

async function go(id) {
  if (id === null) return finished();
  try {
    card = await deck.card(id);
  } catch (error) {
    return tell(error.message, true);
  }
  show();
  deck.ahead().catch(() => {});
}

function show() {
  document.body.classList.remove("empty");
  note = "";
  tell("");
  fill($("question"), sentence(card.question));
  $("kind").textContent = card.label;
  $("kind").dataset.kind = card.asks;
  $("chance").textContent = card.asks === "copy" ? `agreement ${card.probability.toFixed(2)}` : `probability ${percent(card.probability)}` + (card.affected > 1 ? ` · ${card.affected} photos` : "");
  viewer.reset();
  // Both large pictures are asked for before any small one: a browser fetches six things at a time.
  for (const side of ["a", "b"]) viewer.panes[side].show(card.sides[side].photo);
  for (const side of ["a", "b"]) put(side, card.sides[side].photo);
  overlays.of(card, true);
  measures($("measures"), card.measures, start.spreads);
  $("reason").textContent = card.reason;
  for (const choice of card.choices) {
    const button = document.querySelector(`[data-answer="${choice.key}"]`);
    button.querySelector("b").textContent = choice.label;
    fill(button.querySelector(".effect"), sentence(choice.effect));
  }
  document.querySelector('[data-answer="other"]').disabled = card.naming === null;
  $("note").setAttribute("aria-pressed", "false");
  state(card);
  advise();
}

function put(side, photo) {
  shown[side] = photo;
  const own = card.sides[side], pane = viewer.panes[side], original = photo.key === own.photo.key;
  pane.show(photo);
  head(pane, own, { photo }, original, () => put(side, own.photo));
  strip($(`strip-${side}`), own, side, photo.key, (chosen) => put(side, chosen));
  overlays.of(card, shown.a?.key === card.sides.a.photo.key && shown.b?.key === card.sides.b.photo.key);
}

// What was said of this card, if anything.
function state(found) {
  const notice = $("notice");
  notice.hidden = !found.said.length && found.standing !== "echo";
  fill(notice);
  if (found.standing === "echo") fill(notice, "Another answer settled this: both names are one animal.");
  if (found.said.length) {
    fill(notice, found.said.slice(0, 3).map((said, i) => el("span", {},
      i ? " · " : "", name(own(said) ? "you" : said.by ?? "somebody"), " said: ", el("b", { text: said.words }),
      said.photo ? [" ", name(said.photo)] : "", said.right_name ? [" → ", name(said.right_name)] : "",
      said.note ? [" “", name(said.note), "”"] : "", ` (${since(said.at)})`)));
    notice.append(found.said.some(own) ? ". Z takes yours back; another answer replaces it." : ". You may answer, too, or go on with →.");
  }
}

function since(at) {
  const minutes = Math.round((Date.now() - Date.parse(at)) / 60000);
  return minutes < 1 ? "just now" : minutes < 60 ? `${minutes} min ago` : minutes < 1440 ? `${Math.round(minutes / 60)} h ago` : `${Math.round(minutes / 1440)} days ago`;
}

function advise() {
  if (!deck.line.stop_at || stopped || deck.current() !== deck.line.stop_at) return;
  stopped = deck.line.stop_at;
  $("notice").append(` From here on fewer than ${percent(filters.asked().stop_below)} of the cards are likely real errors: you may stop here.`);
  $("notice").hidden = false;
}

function finished() {
  card = null;
  document.body.classList.add("empty");
  const open = deck.ids.length, none = !deck.found && filters.count();
  fill($("question"), open ? `That was the last card. ${open} that you passed ${open === 1 ? "is" : "are"} still listed.` : none ? "No card fits these filters." : "Nothing is left to answer here.");
  $("kind").textContent = "";
  $("chance").textContent = "";
  $("notice").hidden = false;
  const button = (text, does) => el("button", { text, on: { click: does } });
  fill($("notice"),
    open ? button("Back to the first", begun) : filters.count() ? button("Show all cards", () => filters.clear()) : "pairx apply writes a catalogue by these answers; the next pairx run asks what is new.",
    " ", button("Undo (Z)", undo));
}

const own = (said) => (said.by ?? "") === reviewer();
const reviewer = () => $("reviewer").value.trim().replace(/\s+/g, " ");

// Store an answer; the page goes on only when the server says that it is on disk.
async function answer(key, more = {}) {
  if (busy || !card) return;
  hold(true);
  const about = card, seen = about.said.length ? about.said[0].review_id : null;
  const said = { card: about.id, key, reviewer: reviewer() || null, note: note || null, seen, ...more };
  try {
    const stored = await post("/api/verdict", said);
    deck.answered(about.id, stored.moved);
    deck.keep({ ...about, ...stored.state });
    deck.line.answered += stored.state.standing === "answered" && about.standing !== "answered" ? 1 : 0;
    if (stored.state.standing === "answered" && about.standing !== "answered") {
      deck.line.errors -= about.probability;
      deck.line.open_errors -= about.probability;
    } else if (stored.state.standing !== "answered") deck.ids.push(about.id);
    deck.version = stored.version;
    progress($("progress"), start, deck.line);
    const words = stored.state.said[0];
    await go(deck.next());
    tell(`Stored: ${words.words}${words.right_name ? ` → ${words.right_name}` : ""}. Z takes it back.`);
  } catch (error) {
    if (error.status === 409 && card === about) {
      Object.assign(about, error.body.state);
      state(about);
      tell("Somebody else answered this card while you looked at it. See above; answer again to add yours.", true);
    } else tell(`Not stored: ${error.message}. You are still on the same card; try again.`, true);
  } finally {
    hold(false);
  }
}

async function undo() {
  if (busy) return;
  hold(true);
  try {
    const mine = card?.said.find(own);
    const { card: back } = await post("/api/undo", { reviewer: reviewer() || null, review_id: mine?.review_id ?? null });
    deck.cards.clear();
    await deck.load(filters.asked());
    progress($("progress"), start, deck.line);
    if (back) {
      deck.visit(back);
      card = await deck.card(back);
      show();
    }
    tell("Taken back: the question is open again.");
  } catch (error) {
    tell(`Nothing was taken back: ${error.message}`, true);
  } finally {
    hold(false);
  }
}

function tell(words, wrong = false) {
  $("stored").textContent = words;
  $("stored").classList.toggle("wrong", wrong);
}

// Others answer, too.
async function look() {
  if (document.hidden || busy || !start) return;
  const seen = card;
  try {
    const news = await get("/api/changes", { since: deck.version, ...(seen ? { card: seen.id } : {}) });
    if (news.run !== start.run) tell("A newer run has finished: load the page again to see its questions.");
    if (news.version === deck.version) return;
    deck.version = news.version;
    if (news.state && card === seen) { // not where another card has come meanwhile
      const more = news.state.said.length > card.said.length;
      Object.assign(card, news.state);
      state(card);
      if (more) tell("This card was answered by somebody else just now.");
    }
    const line = await post("/api/queue", filters.asked());
    deck.version = line.version;
    deck.line = line;
    const open = new Set(line.ids);
    for (const id of deck.ids.filter((each) => !open.has(each) && each !== card?.id)) deck.drop(id);
    progress($("progress"), start, line);
  } catch {
    // The next answer will say what is wrong.
  }
}

function other() {
  const list = el("datalist", { id: "names" });
  const input = el("input", { name: "name", list: "names", autocomplete: "off", autofocus: true, maxlength: 200, spellcheck: "false" });
  input.addEventListener("input", async () => {
    const found = await get("/api/names", { text: input.value }).catch(() => []);
    fill(list, found.map((each) => el("option", { value: each })));
  });
  const empty = card.asks === "name" ? el("p", { class: "quiet", text: "Leave it empty where the right name is not known." }) : null;
  open("Other name", [el("p", {}, sentence(card.naming.effect), " …"), input, list, empty], "Store (Enter)",
    (values) => answer("other", { name: values.get("name").trim() || null }));
}

function bad() {
  const button = (side) => el("button", { type: "submit", value: side, autofocus: card.sides[side].blamed || (side === "a" && !card.sides.b.blamed),
    on: { click: () => { chosen = side; } } }, side === "a" ? "The first: " : "The second: ", name(card.sides[side].photo.id));
  let chosen = "a";
  open("Which photo is too bad to tell?", el("div", { class: "sides" }, button("a"), button("b")));
  $("dialog-form").onsubmit = (event) => {
    event.preventDefault();
    $("dialog").close();
    answer("bad", { photo: card.sides[chosen].photo.key });
  };
}

function write() {
  const input = el("textarea", { name: "note", rows: 3, maxlength: 2000, autofocus: true });
  input.value = note;
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      $("dialog-form").requestSubmit();
    }
  });
  open("Note", [el("p", { class: "quiet", text: "It is stored with your answer to this card." }), input], "Keep (Enter)", (values) => {
    note = values.get("note").trim();
    $("note").setAttribute("aria-pressed", note ? "true" : "false");
  });
}

function wholePhotos() {
  open("Whole photos", el("div", { class: "wholes" }, whole(shown.a), whole(shown.b))).classList.add("large");
}

function skip() {
  if (!card) return;
  const id = card.id, following = deck.ids[deck.ids.indexOf(id) + 1] ?? null;
  if (following !== null && deck.step === deck.trail.length - 1) deck.later(id);
  if (following === null) return go(deck.next());
  deck.visit(following);
  go(following);
}

const previous = () => { const id = deck.previous(); if (id) go(id); };
const next = () => go(deck.next());

const toggle = {
  mirror: () => $("mirror").setAttribute("aria-pressed", viewer.mirror()),
  link: () => { viewer.linked = !viewer.linked; $("link").setAttribute("aria-pressed", viewer.linked); },
  light: () => { $("sliders").hidden = !$("sliders").hidden; $("adjust").setAttribute("aria-expanded", !$("sliders").hidden); },
  full: () => (document.fullscreenElement ? document.exitFullscreen() : $("viewer").requestFullscreen?.()),
};

const KEYS = {
  s: () => answer("same"), d: () => answer("different"), u: () => answer("unsure"), b: () => card && bad(),
  o: () => card?.naming && other(), k: skip, " ": skip, z: undo, n: () => card && write(),
  ArrowRight: next, j: next, ArrowLeft: previous, v: () => overlays.plain(), 5: () => $("method").focus(),
  "+": () => viewer.zoom(1.4), "=": () => viewer.zoom(1.4), "-": () => viewer.zoom(1 / 1.4), 0: () => viewer.reset(),
  l: toggle.link, m: toggle.mirror, c: toggle.light, w: () => card && wholePhotos(), f: toggle.full, "/": () => filters.open(), "?": help,
};

function wire() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || isOpen()) return;
    // What had the focus in a dialog keeps it until the browser has drawn the page without it: the key is meant for the page.
    const left = event.target.closest("dialog"), target = left ? document.body : event.target;
    if (left) event.target.blur();
    const typed = target.closest("input:not([type=range]), textarea, select");
    // A list takes no letters: who has just chosen there means the page.
    const letter = typed?.tagName === "SELECT" && event.key.length === 1 && event.key !== " ";
    if (typed && !letter) {
      if (event.key === "Escape" || (event.key === "Enter" && typed.id === "reviewer")) typed.blur();
      return;
    }
    // Space and Enter press the button that has the focus.
    if ((event.key === " " || event.key === "Enter") && target.closest("button")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (overlays.key(key)) return event.preventDefault();
    if (KEYS[key]) {
      event.preventDefault();
      KEYS[key]();
    }
  });
  for (const button of document.querySelectorAll("[data-answer]")) {
    const key = button.dataset.answer;
    button.addEventListener("click", () => KEYS[{ same: "s", different: "d", unsure: "u", other: "o", bad: "b" }[key]]());
  }
  // A button that was clicked would take the next Space for itself, and answer a card that was to be skipped.
  document.addEventListener("click", (event) => { if (event.detail) event.target.closest("main button")?.blur(); });
  const clicks = { skip, note: KEYS.n, undo, next, previous, "zoom-in": KEYS["+"], "zoom-out": KEYS["-"], "zoom-reset": KEYS[0], link: toggle.link,
    mirror: toggle.mirror, adjust: toggle.light, whole: KEYS.w, full: toggle.full, "open-help": help, "open-filters": () => filters.open() };
  for (const [id, does] of Object.entries(clicks)) $(id).addEventListener("click", () => does());
  const light = () => viewer.setLight(Number($("brightness").value), Number($("contrast").value));
  $("brightness").addEventListener("input", light);
  $("contrast").addEventListener("input", light);
  $("sliders-reset").addEventListener("click", () => { $("brightness").value = $("contrast").value = 100; light(); });
  $("order").addEventListener("change", () => { $("order").blur(); reload(); });
}

begin().catch((error) => tell(error.message, true));
