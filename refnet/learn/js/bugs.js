/* Chapter 6: twelve captures; the reader chooses the node with the bug, or none, and then sees the answer. */

import { byId } from "./draw.js";

/** @type {HTMLElement[]} */
const EXERCISES = [...document.querySelectorAll("figure.exercise")].map((one) => /** @type {HTMLElement} */ (one));

/** Whether the first choice was right; undefined before it. @type {(boolean | undefined)[]} */
const tries = EXERCISES.map(() => undefined);

/** @param {number} at */
function showExercise(at) {
  EXERCISES.forEach((one, i) => (one.hidden = i !== at));
  byId("exercise-choice").value = String(at);
  byId("exercise-next").disabled = at === EXERCISES.length - 1;
}

/** What is said to a choice. @param {string} chosen a node's name, "" for no bug @param {string} wanted @returns {string} */
export function reply(chosen, wanted) {
  if (chosen === wanted) return wanted ? `Right: the bug is at ${wanted}.` : "Right: no bug is proved.";
  if (!wanted) return `No: rounding can explain ${chosen}. No bug is proved here.`;
  return chosen ? `No: ${chosen} is right for the inputs that it got. The bug is at ${wanted}.` : `No: a bug is proved, at ${wanted}.`;
}

/** @param {number} at @param {string} chosen */
function answer(at, chosen) {
  const one = EXERCISES[at];
  const wanted = one.dataset.wanted ?? "";
  tries[at] ??= chosen === wanted;
  const said = /** @type {HTMLElement} */ (one.querySelector(".feedback"));
  said.textContent = reply(chosen, wanted);
  for (const row of one.querySelectorAll("tbody tr[data-name]")) {
    row.classList.toggle("right-node", /** @type {HTMLElement} */ (row).dataset.name === wanted);
  }
  /** @type {HTMLDetailsElement} */ (one.querySelector("details.answer")).open = true;
  const answered = tries.filter((right) => right !== undefined).length;
  byId("exercise-score").textContent = `${tries.filter(Boolean).length} of ${answered} right at the first try, of ${EXERCISES.length} exercises`;
}

/** Starts the chapter. */
export function startBugs() {
  EXERCISES.forEach((one, at) => {
    for (const row of one.querySelectorAll("tbody tr[data-name]")) {
      const name = /** @type {HTMLElement} */ (row).dataset.name ?? "";
      row.querySelector("button")?.addEventListener("click", () => answer(at, name));
    }
    one.querySelector("button.none")?.addEventListener("click", () => answer(at, ""));
  });
  byId("exercise-choice").addEventListener("change", (/** @type {any} */ event) => showExercise(Number(event.target.value)));
  byId("exercise-next").addEventListener("click", () => showExercise(Number(byId("exercise-choice").value) + 1));
  showExercise(0);
}
