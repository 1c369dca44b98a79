// The one dialog of the page: filters, help, notes, names, bad photos, whole photos.
import { $, el, fill } from "./dom.js";

// Opens the dialog; `done` gets the form's values when it is confirmed. Escape closes it without.
export function open(title, body, confirm = null, done = null) {
  const dialog = $("dialog"), form = $("dialog-form");
  $("dialog-title").textContent = title;
  dialog.classList.remove("large");
  fill($("dialog-body"), body, el("div", { class: "buttons" },
    el("button", { value: "cancel", type: "button", text: confirm ? "Cancel (Esc)" : "Close (Esc)", on: { click: () => dialog.close("cancel") } }),
    confirm ? el("button", { value: "ok", type: "submit", class: "main", text: confirm }) : null));
  form.onsubmit = (event) => {
    event.preventDefault();
    const values = new FormData(form);
    dialog.close("ok");
    if (done) done(values);
  };
  // As in a field: Enter in a list confirms.
  form.onkeydown = (event) => {
    if (event.key !== "Enter" || event.target.tagName !== "SELECT") return;
    event.preventDefault();
    form.requestSubmit();
  };
  if (!dialog.open) dialog.showModal();
  const first = form.querySelector("[autofocus]");
  if (first) first.focus();
  return dialog;
}

export const isOpen = () => $("dialog").open;

export const HELP = [
  ["S", "same"], ["D", "different"], ["U", "unsure: cannot tell"], ["B", "bad photo"], ["O", "other name"],
  ["K, Space", "skip: comes again at the end"], ["Z", "undo your last answer"], ["N", "note that goes with the answer"],
  ["→, J", "next card"], ["←", "previous card"], ["V", "overlays off, and on again"],
  ["1 2 3 4", "relevance, matches, local inliers, pixel colours"], ["5", "explain by another method"],
  ["+ − 0", "zoom in, out, fit; also wheel, double click, pinch; drag to move"],
  ["L", "link or unlink both photos"], ["M", "mirror the right photo"], ["C", "brightness and contrast"],
  ["W", "whole photos with their boxes"], ["F", "full screen"], ["/", "filters"], ["?", "this help"],
];

export function help() {
  open("Keys", [el("dl", { class: "keys" }, HELP.flatMap(([keys, does]) => [
    el("dt", {}, keys.split(" ").map((key) => [el("kbd", { text: key.replace(",", "") }), " "])), el("dd", { text: does }),
  ])), el("p", { class: "quiet", text: "Order: likeliest errors first, or those that decide most: p (1 − p) times the photos whose name an answer may change; of two names those of the smaller one." })]);
}
