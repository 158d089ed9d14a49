/* Chapter 7: one value in two settings of a framework: another order, an addition joined, a batch norm folded. */

import { bitsOf, f32, fma32, place, ulp } from "./float32.js";
import { bookSum, inWords, partAt, summands } from "./orders.js";
import { bits, brief, byId, element, largestOf, paint, shortest, svg, where } from "./draw.js";
import { facts, follow, networks, state, unpack, valueOf } from "./state.js";

/** @typedef {import("./orders.js").Summands} Summands */
/** @typedef {import("./orders.js").Step} Step */
/** @typedef {{value: number, steps: Step[], sum: Summands, expression: any}} Found */

/** Values of a network of this page, or one stored sum of a larger one. @type {any[]} */
const SHOWN = facts.settings.shown;
const MXNET = networks.findIndex((network) => network.nodes.some((node) => node.op === "UpsampleNearest"));

/** The stored sums. @type {(Summands | null)[]} */
const STORED = SHOWN.map((one) => {
  if (!one.stored) return null;
  const [w, x] = [one.stored.w, one.stored.x].map((packed) => unpack(packed).data);
  return { terms: Array.from(w, (weight, k) => ({ w: weight, x: x[k], inside: true, at: [k, 0, 0] })), bias: null, divisor: 1 };
});

/** @param {string} name */
function nodeNamed(name) {
  return /** @type {import("./engine.js").GraphNode} */ (networks[MXNET].nodes.find((node) => node.name === name));
}

/** gamma, beta, mean and variance of a channel, and eps. @param {string} name @param {number} channel */
function normOf(name, channel) {
  const node = nodeNamed(name);
  const [gamma, beta, mean, variance] = node.weights.map((weight) => networks[MXNET].weights[weight].data[channel]);
  return { gamma, beta, mean, variance, eps: node.attributes.eps };
}

/**
 * The batch norm as MXNet folds it: what the weights are multiplied with, and the bias.
 * @param {ReturnType<typeof normOf>} norm @returns {{factor: number, bias: number}}
 */
function fold({ gamma, beta, mean, variance, eps }) {
  const factor = f32(gamma / Math.sqrt(variance + eps));
  return { factor, bias: f32(beta + f32(factor * f32(-mean))) };
}

/** One element of a shown value in a setting. @param {number} which @param {string} key @param {number} at @returns {Found} */
function compute(which, key, at) {
  const one = SHOWN[which];
  const part = partAt(one.orders[key], at);
  const stored = STORED[which];
  if (stored) return { ...bookSum(stored, part), sum: stored, expression: part.sum };
  const base = summands(networks[MXNET], nodeNamed(one.conv), state.values[MXNET], at);
  const alone = key === "one";
  if (one.kind === "add") {
    const addend = addendOf(one, at);
    const sum = alone ? base : { ...base, addend };
    const found = bookSum(sum, part);
    return alone ? then(found, f32(found.value + addend), "+ the other summand", sum, part) : { ...found, sum, expression: part.sum };
  }
  const [, , rows, columns] = nodeNamed(one.node).shape;
  const norm = normOf(one.node, Math.floor(at / (rows * columns)));
  if (alone) {
    const found = bookSum(base, part);
    const scale = f32(norm.gamma / f32(Math.sqrt(f32(norm.variance + f32(norm.eps)))));
    const centred = f32(found.value - norm.mean);
    const value = one.norm.endsWith("fused") ? fma32(centred, scale, norm.beta) : f32(f32(centred * scale) + norm.beta);
    return then(found, value, "batch norm", base, part);
  }
  const { factor, bias } = fold(norm);
  const sum = { ...base, terms: base.terms.map((term) => ({ ...term, w: f32(term.w * factor) })), bias };
  return { ...bookSum(sum, part), sum, expression: part.sum };
}

/** The element of the other input of an addition. @param {any} one @param {number} at */
function addendOf(one, at) {
  return valueOf(MXNET, one.other).data[at];
}

/** A sum and the node after it. @param {ReturnType<typeof bookSum>} found @param {number} value @param {string} what
 * @param {Summands} sum @param {any} part @returns {Found} */
function then(found, value, what, sum, part) {
  return { value, steps: [...found.steps, { lane: -1, what, term: -1, value, error: 0 }], sum, expression: part.sum };
}

/** The bits of an element in a setting; for tests. @param {number} which @param {string} key @param {number} at */
export function inSetting(which, key, at) {
  return bitsOf(compute(which, key, at).value);
}

let chosenItem = 0;
let chosenKey = "one";
let spotAt = SHOWN[0].index;

function showReplay() {
  const one = SHOWN[chosenItem];
  const keys = Object.keys(one.orders);
  const found = Object.fromEntries(keys.map((key) => [key, compute(chosenItem, key, spotAt)]));
  const now = found[chosenKey];
  const [first, other] = keys.map((key) => found[key].value);
  for (const key of keys) byId(`replay-${key === "one" ? "first" : "second"}`).checked = key === chosenKey;
  byId("replay-second-said").textContent = one.title;
  byId("replay-at-label").hidden = !!one.stored;
  byId("replay-at").value = String(spotAt);
  const spot = one.stored ? "" : `, ${where(nodeNamed(one.node).shape, spotAt)}`;
  byId("replay-value").replaceChildren(element("b", {}, one.node), `${spot}: `, element("b", {}, shortest(now.value)), " ", bits(now.value, chosenKey === "one" ? other : first));
  const far = Math.abs(place(first) - place(other));
  byId("replay-said").textContent =
    (far ? `The two settings are ${far.toLocaleString("en")} float32 apart here (${brief(Math.abs(first - other))}). ` : "Here both settings give the same bits. ") +
    `This one: ${inWords(now.expression)}${now.steps.some((step) => step.what === "batch norm") ? "; then the batch norm as a node of its own" : ""}` +
    `${chosenKey === "one" && one.kind === "add" ? "; then one addition as a node of its own" : ""}.`;
  drawOrder(now);
  showWeights(one);
  showChannel(one, keys);
}

/** Which term is added when: a point per step. @param {Found} found */
function drawOrder({ steps, sum }) {
  const [left, right, top, bottom] = [44, 590, 8, 118];
  const x = (/** @type {number} */ step) => (left + ((right - left) * (step + 0.5)) / steps.length).toFixed(1);
  const y = (/** @type {number} */ term) => (top + ((bottom - top) * (term + 0.5)) / sum.terms.length).toFixed(1);
  const size = Math.max(Math.min(450 / steps.length, 5), 1.6);
  /** @type {Map<number, string[]>} */
  const lanes = new Map();
  const joins = /** @type {string[]} */ ([]);
  steps.forEach((step, i) => {
    if (step.term < 0) joins.push(`M${x(i)} ${top}V${bottom}`);
    else {
      const points = lanes.get(step.lane) ?? [];
      points.push(`M${x(i)} ${y(step.term)}h${size}v${size}h-${size}z`);
      lanes.set(step.lane, points);
    }
  });
  byId("replay-order").replaceChildren(
    svg("path", { d: joins.join(""), class: "join" }),
    ...[...lanes].map(([lane, points]) => svg("path", { d: points.join(""), class: ["plain", "book", "exact"][lane % 3] })),
    svg("text", { x: left, y: 134 }, "first step"), svg("text", { x: right, y: 134, "text-anchor": "end" }, "last step"),
    svg("text", { x: 0, y: top + 8 }, "1"), svg("text", { x: 0, y: bottom }, String(sum.terms.length)),
  );
}

/** The weights before and after folding. @param {any} one */
function showWeights(one) {
  byId("replay-weights").hidden = one.kind !== "norm";
  if (one.kind !== "norm") return;
  const [, , rows, columns] = nodeNamed(one.node).shape;
  const { factor, bias } = fold(normOf(one.node, Math.floor(spotAt / (rows * columns))));
  const { terms } = summands(networks[MXNET], nodeNamed(one.conv), state.values[MXNET], spotAt);
  byId("replay-weights-rows").replaceChildren(
    ...terms.slice(0, 4).map((term, k) => element("tr", {}, element("th", { scope: "row" }, `weight ${k + 1}`), element("td", {}, shortest(term.w)), element("td", {}, shortest(f32(term.w * factor))))),
    element("tr", {}, element("th", { scope: "row" }, "bias"), element("td", {}, "none"), element("td", {}, shortest(bias))));
}

/** Where in the channel the two settings differ. @param {any} one @param {string[]} keys */
function showChannel(one, keys) {
  byId("replay-channel").hidden = !!one.stored;
  if (one.stored) return;
  const [, , rows, columns] = nodeNamed(one.node).shape;
  const start = Math.floor(spotAt / (rows * columns)) * rows * columns;
  const apart = Array.from({ length: rows * columns }, (_, i) => {
    const [a, b] = keys.map((key) => compute(chosenItem, key, start + i).value);
    return (b - a) / ulp(a);
  });
  paint(byId("replay-map"), apart, columns, rows, Math.max(largestOf(apart), 1));
  byId("replay-map-said").textContent = `${apart.filter((d) => d !== 0).length} of ${apart.length} elements of this channel have other bits, by up to ${brief(largestOf(apart))} ulp.`;
}

/** @param {number} item */
function chooseItem(item) {
  chosenItem = item;
  chosenKey = "one";
  spotAt = SHOWN[item].index;
  showReplay();
}

/** Starts the chapter. */
export function startReplay() {
  SHOWN.forEach((one, i) => byId("replay-item").append(element("option", { value: i }, `${one.node}: ${one.label}`)));
  byId("replay-item").addEventListener("change", (/** @type {any} */ event) => chooseItem(Number(event.target.value)));
  for (const id of ["replay-first", "replay-second"]) {
    byId(id).addEventListener("change", () => {
      chosenKey = id === "replay-first" ? "one" : SHOWN[chosenItem].setting;
      showReplay();
    });
  }
  byId("replay-at").addEventListener("change", (/** @type {any} */ event) => {
    const size = nodeNamed(SHOWN[chosenItem].node).shape.reduce((a, b) => a * b);
    spotAt = Math.min(Math.max(Math.round(Number(event.target.value)) || 0, 0), size - 1);
    showReplay();
  });
  byId("replay-map").addEventListener("click", (/** @type {MouseEvent} */ event) => {
    const [, , rows, columns] = nodeNamed(SHOWN[chosenItem].node).shape;
    const box = byId("replay-map").getBoundingClientRect();
    const [i, j] = [((event.clientY - box.top) / box.height) * rows, ((event.clientX - box.left) / box.width) * columns].map(Math.floor);
    spotAt = Math.floor(spotAt / (rows * columns)) * rows * columns + Math.min(i, rows - 1) * columns + Math.min(j, columns - 1);
    showReplay();
  });
  follow("digit", showReplay);
}
