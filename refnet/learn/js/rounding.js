/* Chapter 3: the 32 bits of a number, sums in another order, and many orders at once. */

import { bitsOf, f32, ofBits, place, ulp } from "./float32.js";
import { exp } from "./float64.js";
import { decimal, nearest, raised, toNumber, units } from "./exact.js";
import { bits, brief, byId, element, shortest, svg } from "./draw.js";
import { facts } from "./state.js";

let number = 1;

/** What a float32 is made of, in words. @param {number} x @returns {string} */
export function anatomy(x) {
  const all = bitsOf(x);
  const [sign, exponent, mantissa] = [all >>> 31 ? "−" : "+", (all >>> 23) & 255, all & 0x7fffff];
  if (exponent === 255) return mantissa ? "Exponent 255 and a mantissa that is not 0: not a number (NaN)." : `Exponent 255 and mantissa 0: ${sign}infinity.`;
  if (exponent === 0 && mantissa === 0) return `All bits but the sign are 0: this is ${sign}0.`;
  const whole = (exponent ? 0x800000 : 0) + mantissa;
  const power = Math.max(exponent, 1) - 150;
  const kind = exponent ? `Exponent field ${exponent}; the mantissa has a leading 1 that is not stored` : "Exponent field 0: a subnormal number, without a leading 1";
  return `${kind}. ${sign}${whole.toLocaleString("en")} · 2${raised(power)}. The next float32 is 2${raised(power)} away: one ulp, ${brief(ulp(x))}.`;
}

/** @param {number} x */
function showNumber(x) {
  number = f32(x);
  const text = bitsOf(number).toString(2).padStart(32, "0");
  [...byId("toggles").querySelectorAll("button")].forEach((button, i) => {
    button.textContent = text[i];
    button.setAttribute("aria-pressed", String(text[i] === "1"));
  });
  byId("anatomy").textContent = anatomy(number);
  byId("anatomy-value").textContent = `= ${Number.isFinite(number) ? decimal(units(number), 12) : shortest(number)}`;
  const e = exp(number);
  byId("exp-said").replaceChildren(`exp(${shortest(number)}) in float64 is ${brief(e, 15)}. Rounded to float32 it is ${shortest(f32(e))} `, bits(f32(e)));
}

function startBits() {
  const holder = byId("toggles");
  [["sign", 31, 31], ["exponent", 30, 23], ["mantissa", 22, 0]].forEach(([name, first, last]) => {
    const group = element("span", { class: String(name), role: "group", "aria-label": String(name) });
    for (let bit = Number(first); bit >= Number(last); bit--) {
      const flip = () => showNumber(ofBits((bitsOf(number) ^ (1 << bit)) >>> 0));
      group.append(element("button", { type: "button", "aria-label": `bit ${bit}, ${name}`, onclick: flip }));
    }
    holder.append(group);
  });
  byId("number-in").addEventListener("input", (/** @type {any} */ event) => {
    const x = Number(event.target.value.replace("−", "-"));
    if (event.target.value.trim()) showNumber(x);
  });
  byId("presets").addEventListener("change", (/** @type {any} */ event) => {
    const x = ofBits(Number(event.target.value));
    byId("number-in").value = Number.isFinite(x) ? String(x) : "";
    showNumber(x);
  });
  byId("up").addEventListener("click", () => showNumber(ofBits((bitsOf(number) + 1) >>> 0)));
  showNumber(f32(0.1));
}

/** Adds in order, each sum rounded to float32. @param {number[]} numbers @returns {number} */
export function addUp(numbers) {
  return numbers.reduce((total, x) => f32(total + x), 0);
}

/** @type {number[]} */
let order = facts.rounding.summands;
/** @type {number} */
let held = -1;

/** Moves a summand and shows the new sum. @param {number} from @param {number} to */
function move(from, to) {
  if (to < 0 || to >= order.length) return;
  order = order.slice();
  order.splice(to, 0, ...order.splice(from, 1));
  showSum();
  /** @type {HTMLElement} */ (byId("summands").children[to]).focus();
}

function showSum() {
  let total = 0;
  byId("summands").replaceChildren(
    ...order.map((x, i) => {
      total = f32(total + x);
      const button = element("button", {
        type: "button", draggable: "true", "aria-label": `summand ${i + 1}: ${shortest(x)}; arrow keys move it`,
        ondragstart: () => (held = i),
        ondragover: (/** @type {Event} */ event) => event.preventDefault(),
        ondrop: (/** @type {Event} */ event) => {
          event.preventDefault();
          move(held, i);
        },
        onkeydown: (/** @type {KeyboardEvent} */ event) => {
          const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
          if (!by) return;
          event.preventDefault();
          move(i, i + by);
        },
        onclick: () => move(i, i + 1 < order.length ? i + 1 : 0),
      });
      button.append(element("b", {}, shortest(x)), element("small", {}, `sum ${shortest(total)}`));
      return button;
    }),
  );
  const exact = order.reduce((sum, x) => sum + units(x), 0n);
  const right = nearest(exact);
  const far = place(total) - place(right);
  byId("order-said").replaceChildren(
    `The sum in this order: ${shortest(total)} `, bits(total), element("br"),
    `The exact sum is ${decimal(exact, 12)}. `,
    far === 0 ? "The result is that, correctly rounded." : `The result is ${brief(Math.abs(toNumber(units(total) - exact)))} away from it.`,
  );
}

function startOrder() {
  const sorted = (/** @type {(a: number, b: number) => number} */ by) => () => {
    order = order.slice().sort(by);
    showSum();
  };
  byId("smallest-first").addEventListener("click", sorted((a, b) => Math.abs(a) - Math.abs(b)));
  byId("largest-first").addEventListener("click", sorted((a, b) => Math.abs(b) - Math.abs(a)));
  byId("as-given").addEventListener("click", () => {
    order = facts.rounding.summands;
    showSum();
  });
  showSum();
}

/** The next number of a linear congruential generator, 0 to 2 ** 32 - 1. @param {number} x @returns {number} */
function next(x) {
  return (Math.imul(x, 1664525) + 1013904223) >>> 0;
}

/**
 * A thousand numbers between -1/2 and 1/2, added in 200 random orders; the same for the same seed.
 * @param {number} seed @returns {{offsets: number[], half: number}} each result's distance from the exact sum,
 * and the bound's radius, in ulps of the correctly rounded sum
 */
export function manyOrders(seed) {
  let random = seed;
  const numbers = Array.from({ length: 1000 }, () => (random = next(random)) >>> 8).map((n) => n * 2 ** -24 - 0.5);
  const exact = numbers.reduce((sum, x) => sum + x, 0); // multiples of 2 ** -24 below 2 ** 10: exact in double
  const size = numbers.reduce((sum, x) => sum + Math.abs(x), 0);
  const u = ulp(f32(exact));
  const offsets = Array.from({ length: 200 }, () => {
    for (let i = numbers.length - 1; i > 0; i--) {
      random = next(random);
      const j = Math.floor((random / 2 ** 32) * (i + 1));
      [numbers[i], numbers[j]] = [numbers[j], numbers[i]];
    }
    return (addUp(numbers) - exact) / u;
  });
  const roundings = 999 * 2 ** -24;
  return { offsets, half: ((roundings / (1 - roundings)) * size) / u };
}

let seed = facts.rounding.seed;

function showOrders() {
  const { offsets, half } = manyOrders(seed);
  const most = Math.ceil(Math.max(...offsets.map(Math.abs)));
  const counts = new Array(2 * most + 1).fill(0);
  for (const offset of offsets) counts[Math.round(offset) + most]++;
  const highest = Math.max(...counts);
  const wide = 560 / counts.length;
  byId("orders").replaceChildren(
    svg("line", { class: "axis", x1: 20, x2: 580, y1: 120, y2: 120 }),
    ...counts.map((n, i) => svg("rect", { class: "minus", x: (20 + i * wide).toFixed(2), y: (120 - (110 * n) / highest).toFixed(2), width: Math.max(wide - 1, 0.5).toFixed(2), height: ((110 * n) / highest).toFixed(2) })),
    svg("path", { class: "centre", d: "M300 116v12" }),
    svg("text", { x: 20, y: 142 }, `−${most} ulp`), svg("text", { x: 580, y: 142, "text-anchor": "end" }, `+${most} ulp`));
  byId("orders-said").textContent =
    `200 orders gave ${new Set(offsets).size} different results, up to ${brief(Math.max(...offsets.map(Math.abs)))} ulp from the exact sum. ` +
    `The bound is ±${brief(half)} ulp: ${brief(half / Math.max(...offsets.map(Math.abs)), 2)} times as much.`;
}

/** Starts the chapter. */
export function startRounding() {
  startBits();
  startOrder();
  byId("again").addEventListener("click", () => {
    seed = next(seed);
    showOrders();
  });
  showOrders();
}
