// The HTML report: folds what is unsuspicious, and filters by verdict, op and name. All is there without it.
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);
  const form = one("#filter"), kind = one("#kind"), text = one("#text"), unfold = one("#unfold");
  const pressed = (chip) => chip.getAttribute("aria-pressed") === "true";
  const chips = all(".chip"), groups = all(".group"), pointed = one("#pointed");
  const marks = new Map(all(".map a").map((mark) => [mark.hash.slice(1), mark]));
  const nodes = all(".node").map((row) => ({
    row,
    details: row.firstElementChild,
    name: row.querySelector("summary .name").textContent.toLowerCase(),
    mark: marks.get(row.id),
  }));

  const apply = () => {
    const verdicts = new Set(chips.filter(pressed).map((c) => c.dataset.verdict));
    const wanted = text.value.trim().toLowerCase();
    let shown = 0;
    for (const { row, name, mark } of nodes) {
      const fits = verdicts.has(row.dataset.verdict) &&
        (kind.value === "" || kind.value === row.dataset.kind) && name.includes(wanted);
      row.hidden = !fits;
      mark.classList.toggle("faint", !fits);
      shown += fits;
    }
    for (const group of groups) group.hidden = !group.querySelector(".node:not([hidden])");
    one("#nothing").hidden = shown > 0;
    one("#shown").textContent = `${shown} of ${nodes.length} nodes`;
  };
  const fold = (open) => {
    for (const { row, details } of nodes) if (!row.hidden) details.open = open;
    unfold.textContent = open ? "Fold all" : "Unfold all";
  };
  // A link to a node that is folded or filtered away shows it.
  const reach = () => {
    const row = nodes.map((node) => node.row).find((each) => each.id === location.hash.slice(1));
    if (!row) return;
    if (row.hidden) form.reset();
    row.firstElementChild.open = true;
    row.scrollIntoView();
  };

  for (const chip of chips) {
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", String(!pressed(chip)));
      apply();
    });
  }
  kind.addEventListener("change", apply);
  text.addEventListener("input", apply);
  unfold.addEventListener("click", () => fold(unfold.textContent === "Unfold all"));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    for (const chip of chips) chip.setAttribute("aria-pressed", "true");
    kind.value = text.value = "";
    apply();
  });
  const say = (event) => {
    const mark = event.target.closest("a");
    pointed.textContent = mark && event.type !== "mouseleave" && event.type !== "focusout" ? mark.title : "";
  };
  for (const type of ["mouseover", "mouseleave", "focusin", "focusout"]) one(".map").addEventListener(type, say);
  window.addEventListener("hashchange", reach);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (link && link.hash && link.hash === location.hash) reach(); // no hashchange follows
  });

  form.hidden = false;
  for (const { row, details } of nodes) details.open = row.dataset.verdict === "defect";
  apply();
  reach();
})();
