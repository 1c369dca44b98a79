(() => {
  "use strict";
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = (name) => document.getElementById(name);
  const bar = byId("toolbar");
  if (!bar) return;
  const told = JSON.parse(bar.dataset.page);
  const cards = all(".suspect");
  const asked = new Map(cards.filter((card) => card.dataset.card).map((card) => [card, JSON.parse(card.dataset.card)]));
  const shown = () => cards.filter((card) => !card.hidden);

  // What is to be seen: overlays, kinds, enlarged pictures.
  const master = byId("all-overlays");
  const setOverlays = (on) => {
    master.checked = on;
    all(".overlay-switch").forEach((box) => { box.checked = on; });
  };
  master.addEventListener("change", () => setOverlays(master.checked));
  const filters = all(".kind-filter");
  const filter = () => {
    const wanted = new Set(filters.filter((box) => box.checked).map((box) => box.value));
    cards.forEach((card) => { card.hidden = !wanted.has(card.dataset.kind); });
    byId("visible-count").textContent = String(shown().length);
  };
  filters.forEach((box) => box.addEventListener("change", filter));
  all(".pictures").forEach((figure) => figure.addEventListener("click", () => figure.closest(".suspect").classList.toggle("wide")));

  // Answers by question. The browser keeps them where it may; else they last as long as the page is open.
  const prefix = `pairx ${told.place} `;
  const answers = new Map();
  let keeps = true;
  const valid = (found) => Boolean(found) && typeof found.choice === "string" && typeof found.saved === "boolean"
    && Array.isArray(found.rows) && found.rows.length > 0
    && found.rows.every((row) => Boolean(row) && told.columns.every((name) => typeof row[name] === "string"));
  const parsed = (text) => {
    try {
      const found = JSON.parse(text);
      return valid(found) ? found : null;
    } catch {
      return null;
    }
  };
  const load = () => {
    try {
      const names = Array.from({ length: localStorage.length }, (_, i) => localStorage.key(i)).filter((name) => name.startsWith(prefix));
      answers.clear();
      for (const name of names) {
        const found = parsed(localStorage.getItem(name));
        if (found) answers.set(name.slice(prefix.length), found);
      }
      byId("reviewer").value = localStorage.getItem("pairx reviewer") ?? "";
    } catch {
      keeps = false;
    }
  };
  const keep = (id, record) => {
    if (record) answers.set(id, record);
    else answers.delete(id);
    try {
      if (record) localStorage.setItem(prefix + id, JSON.stringify(record));
      else localStorage.removeItem(prefix + id);
    } catch {
      keeps = false;
    }
  };
  const moment = (later = 0) => new Date(Date.now() + later).toISOString();
  // What was downloaded may be in the warehouse by now: there it is taken back by a row of its own.
  const takenBack = (record) => {
    if (!record) return [];
    const rows = record.rows.filter((row) => row.answer === told.withdrawn);
    if (!record.saved || !record.choice) return rows;
    return [...rows, { ...record.rows.at(-1), answer: told.withdrawn, at: moment(), note: "" }];
  };
  const give = (card, choice) => {
    const { id, rows } = asked.get(card);
    if (!rows[choice]) return false;
    const note = card.querySelector(".note").value.trim();
    const row = { ...rows[choice], reviewer: byId("reviewer").value.trim(), at: moment(1), note };
    keep(id, { choice, rows: [...takenBack(answers.get(id)), row], saved: false });
    show();
    return true;
  };
  const undo = () => {
    const given = [...answers].filter(([, record]) => record.choice);
    if (!given.length) return;
    const [id, record] = given.reduce((one, two) => (one[1].rows.at(-1).at > two[1].rows.at(-1).at ? one : two));
    const rows = takenBack(record);
    keep(id, rows.length ? { choice: "", rows, saved: false } : null);
    show();
    const card = shown().find((each) => asked.get(each)?.id === id);
    if (card) go(card);
  };
  const show = () => {
    for (const [card, { id }] of asked) {
      const record = answers.get(id);
      const button = record?.choice ? all("[data-choice]", card).find((each) => each.dataset.choice === record.choice) : null;
      all("[data-choice]", card).forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
      card.classList.toggle("answered", Boolean(button));
      const row = record?.rows.at(-1);
      card.querySelector(".said").textContent = button
        ? `${button.querySelector("b").textContent} · ${row.reviewer ? `${row.reviewer} · ` : ""}${new Date(row.at).toLocaleString()}` : "";
      const note = card.querySelector(".note");
      if (button && document.activeElement !== note) note.value = row.note;
    }
    const fresh = [...answers.values()].filter((record) => !record.saved).length;
    const again = [...asked.values()].filter(({ id }) => answers.get(id)?.saved).length;
    byId("download").disabled = !fresh && !again;
    byId("download").textContent = fresh || !again ? `Download ${fresh} verdict${fresh === 1 ? "" : "s"}` : "Download again";
    byId("unkept").hidden = keeps;
  };

  // The CSV that `pairx review import` reads, by the rules of all CSV that pairx writes: no text of a catalogue is a formula.
  const blank = "[ \\t-\\r\\x1c-\\x1f\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
  const formula = new RegExp(`^'*(?:${blank}*[=+\\-@\\uff1d\\uff0b\\uff0d\\uff20]|[\\t\\r])`);
  const number = /^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf(inity)?)$/;
  const control = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/g;
  const cell = (text) => {
    const safe = (formula.test(text) && !number.test(text) ? `'${text}` : text).replace(control, "\ufffd");
    return `"${safe.replaceAll('"', '""')}"`;
  };
  const csv = (rows) => [told.columns.join(","), ...rows.map((row) => told.columns.map((name) => cell(row[name])).join(","))]
    .map((line) => `${line}\n`).join("");
  const download = () => {
    const fresh = [...answers].filter(([, record]) => !record.saved);
    const again = [...new Set([...asked.values()].map(({ id }) => id))].filter((id) => answers.has(id)).map((id) => [id, answers.get(id)]);
    const chosen = fresh.length ? fresh : again;
    const rows = chosen.flatMap(([, record]) => record.rows).sort((one, two) => (one.at < two.at ? -1 : 1));
    if (!rows.length) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff", csv(rows)], { type: "text/csv" }));
    link.download = `verdicts-${moment().replaceAll(/[-:]|\..*/g, "")}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    for (const [id, record] of chosen) keep(id, { ...record, saved: true });
    show();
  };

  // One card is current. A key never answers a card that is not in sight.
  let current = null;
  const below = () => (getComputedStyle(bar).position === "sticky" ? bar.getBoundingClientRect().height : 0);
  const inSight = (card) => {
    const { top, bottom } = card.getBoundingClientRect();
    return bottom > below() + 80 && top < innerHeight - 80;
  };
  const mark = (card) => {
    current?.removeAttribute("aria-current");
    current = card;
    current?.setAttribute("aria-current", "true");
  };
  const go = (card) => {
    mark(card);
    scrollBy({ top: card.getBoundingClientRect().top - below() - 12 });
  };
  const settle = () => {
    if (!current || current.hidden || !inSight(current)) mark(shown().find(inSight) ?? null);
  };
  const step = (by, wanted = () => true) => {
    const list = shown();
    const at = list.indexOf(current);
    const ahead = at < 0 ? list.filter((card) => (by > 0) === card.getBoundingClientRect().top > 0) : by > 0 ? list.slice(at + 1) : list.slice(0, at);
    const next = by > 0 ? ahead.find(wanted) : ahead.findLast(wanted);
    if (next) go(next);
  };
  const answer = (choice) => {
    if (current && give(current, choice)) step(1, (card) => !card.classList.contains("answered"));
  };
  const byKey = {
    s: () => answer("same"), d: () => answer("different"), u: () => answer("unsure"),
    b: () => answer(current && asked.get(current)?.bad[0]), B: () => answer(current && asked.get(current)?.bad[1]),
    k: () => step(1), z: undo, ArrowRight: () => step(1), ArrowLeft: () => step(-1), v: () => setOverlays(!master.checked),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.matches("input:not([type=checkbox])") || !Object.hasOwn(byKey, event.key)) return;
    byKey[event.key]();
  });
  document.addEventListener("scroll", settle, { passive: true });
  addEventListener("resize", settle);
  addEventListener("storage", () => { load(); show(); });
  cards.forEach((card) => card.addEventListener("click", (event) => {
    mark(card);
    const button = event.target.closest("button");
    if (button?.dataset.choice) answer(button.dataset.choice);
    if (button?.classList.contains("skip")) step(1);
  }));
  for (const [card, { id }] of asked) {
    card.querySelector(".note").addEventListener("change", () => {
      const choice = answers.get(id)?.choice;
      if (choice) give(card, choice);
    });
  }
  byId("reviewer").addEventListener("change", (event) => {
    try {
      localStorage.setItem("pairx reviewer", event.target.value.trim());
    } catch {
      keeps = false;
    }
  });
  byId("undo").addEventListener("click", undo);
  byId("download").addEventListener("click", download);
  load();
  filter();
  show();
  settle();
})();
