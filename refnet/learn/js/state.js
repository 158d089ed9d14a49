/* What the page shows now: the digit, both networks' values for it, the chosen element; and who wants to know. */

import { run } from "./engine.js";
import { f32 } from "./float32.js";

/** @typedef {import("./engine.js").Network} Network */
/** @typedef {import("./engine.js").GraphNode} GraphNode */
/** @typedef {import("./engine.js").Tensor} Tensor */
/** @typedef {Network & {title: string}} Titled */
/** @typedef {{label: number, file: string, levels: number[][]}} Digit */

/** Weights arrive as base64 of float32, lowest byte first. @param {{shape: number[], data: string}} packed @returns {Tensor} */
export function unpack({ shape, data }) {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return { shape, data: Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true)) };
}

const given = JSON.parse(/** @type {HTMLElement} */ (document.getElementById("data")).textContent || "");
for (const network of given.networks) {
  for (const name of Object.keys(network.weights)) network.weights[name] = unpack(network.weights[name]);
}

/** @type {Titled[]} */
export const networks = given.networks;
/** @type {Digit[]} */
export const digits = given.digits;
/** Numbers that refnet computed when the page was made. @type {Record<string, any>} */
export const facts = given.facts;

export const state = {
  /** @type {number[][]} 8 x 8 levels from 0 to 16 */
  levels: digits[3].levels,
  /** @type {Map<string, Tensor>[]} per network: every value by name */
  values: [],
  network: 0,
  node: "",
  at: 0,
};

/** @type {Record<string, (() => void)[]>} */
const listeners = { digit: [], element: [] };

/** Calls `act` now and after each change of the digit, or of the chosen element.
 * @param {"digit" | "element"} what @param {() => void} act */
export function follow(what, act) {
  listeners[what].push(act);
  act();
}

/**
 * The pipeline "digits": level v becomes the byte 15 v; each pixel is repeated 4 x 4 times; (p - 120) / 60.
 * @param {number[][]} levels @returns {Tensor}
 */
export function tensor(levels) {
  const data = new Float32Array(32 * 32);
  for (let i = 0; i < 32; i++) {
    for (let j = 0; j < 32; j++) data[32 * i + j] = f32(f32(15 * levels[i >> 2][j >> 2] - 120) / 60);
  }
  return { shape: [1, 1, 32, 32], data };
}

/** Runs both networks on a digit. @param {number[][]} levels */
export function take(levels) {
  state.levels = levels;
  const input = tensor(levels);
  state.values = networks.map((network) => run(network, input));
  for (const act of listeners.digit) act();
  for (const act of listeners.element) act();
}

/** Chooses an element of a value. @param {number} network @param {string} node @param {number} at */
export function choose(network, node, at) {
  Object.assign(state, { network, node, at });
  for (const act of listeners.element) act();
}

/** The chosen node. @returns {GraphNode} */
export function chosen() {
  return /** @type {GraphNode} */ (networks[state.network].nodes.find((node) => node.name === state.node));
}

/** The value of a name, for the digit shown. @param {number} network @param {string} name @returns {Tensor} */
export function valueOf(network, name) {
  return /** @type {Tensor} */ (state.values[network].get(name));
}
