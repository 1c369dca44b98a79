// Which cards are wanted, in which order, and when to stop.
import { $, el } from "./dom.js";
import { open } from "./dialogs.js";

const EMPTY = { kinds: null, species: null, least: null, most: null, name: null, since: null, answered: null, stop_below: 0 };

// The time of a run as people here write it.
const when = (at) => new Date(at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

export class Filters {
  constructor(changed) {
    this.values = { ...EMPTY };
    this.changed = changed;
  }

  begin(start) {
    this.start = start;
    this.tell();
  }

  asked() {
    return { ...this.values, order: $("order").value };
  }

  count() {
    return Object.entries(this.values).filter(([key, value]) => key !== "stop_below" && value !== null).length;
  }

  clear() {
    this.values = { ...EMPTY };
    this.tell();
    this.changed();
  }

  tell() {
    $("filter-count").textContent = this.count() ? ` (${this.count()})` : "";
  }

  open() {
    const { kinds, species, reviewers, earlier } = this.start, now = this.values;
    const checks = (label, field, options) => options.length < 2 ? null : el("fieldset", {}, el("legend", { text: label }), options.map(([value, text]) =>
      el("label", {}, el("input", { type: "checkbox", name: field, value, checked: now[field] === null || now[field].includes(value) }), " ", el("bdi", { text }))));
    const number = (label, field, value) => el("label", {}, `${label} `, el("input", { name: field, type: "number", min: 0, max: 100, step: "any", value }), " %");
    const said = el("select", { name: "answered" }, el("option", { value: "open", text: "open questions", selected: now.answered === null }),
      el("option", { value: "any", text: "all that were answered", selected: now.answered === "" }),
      [...new Set([...reviewers, $("reviewer").value.trim()])].filter(Boolean).map((who) => el("option", { value: `by ${who}`, text: `answered by ${who}`, selected: now.answered === who })));
    const since = earlier.length ? el("label", { class: "line" }, "News ", el("select", { name: "since" }, el("option", { value: "", text: "all cards, new or not" }),
      earlier.map(({ run, at }, i) => el("option", { value: run, text: `${i ? "new" : "new in the last run:"} since ${when(at)}`, selected: now.since === run })))) : null;
    open("Which cards", [
      since,
      checks("Kind", "kinds", Object.entries(kinds)),
      checks("Species", "species", species.map((each) => [each, each || "not known"])),
      el("fieldset", {}, el("legend", { text: "Probability" }), number("from", "least", now.least === null ? "" : 100 * now.least), number("to", "most", now.most === null ? "" : 100 * now.most)),
      el("label", { class: "line" }, "Name or photo ", el("input", { name: "name", value: now.name ?? "", maxlength: 200, autocomplete: "off" })),
      el("label", { class: "line" }, "Answers ", said),
      el("fieldset", {}, el("legend", { text: "Advise me to stop" }), number("where the share of real errors among the next 20 cards falls below", "stop_below", now.stop_below ? 100 * now.stop_below : "")),
    ], "Show", (form) => this.take(form));
  }

  take(form) {
    const share = (field) => (form.get(field) === "" || form.get(field) === null ? null : Number(form.get(field)) / 100);
    const some = (field, all) => {
      const chosen = form.getAll(field);
      return all.length < 2 || chosen.length === all.length ? null : chosen;
    };
    const answered = form.get("answered");
    this.values = {
      kinds: some("kinds", Object.keys(this.start.kinds)), species: some("species", this.start.species), least: share("least"), most: share("most"),
      name: form.get("name").trim() || null, since: form.get("since") || null, answered: answered === "open" ? null : answered === "any" ? "" : answered.slice(3), stop_below: share("stop_below") ?? 0,
    };
    this.tell();
    this.changed();
  }
}
