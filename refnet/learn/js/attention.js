/* Chapter 5: split attention: two parts of every channel, the softmax that mixes them, and a part switched off. */

import { runNodes } from "./engine.js";
import { brief, byId, element, largestOf, paint, shortest } from "./draw.js";
import { choose, follow, networks, state, valueOf } from "./state.js";

/** @typedef {import("./engine.js").Tensor} Tensor */

const NETWORK = networks.findIndex((network) => network.nodes.some((node) => node.op === "RadixSoftmax"));

/** The nodes of each split attention, by what they are. */
const BLOCKS = networks[NETWORK].nodes
  .filter((node) => node.op === "WeightedSum")
  .map((node) => ({ name: node.name.replace(/\.[^.]*$/, ""), mixed: node.name, attention: node.data[0], parts: node.data[1] }));

let block = 0;
let off = -1; // the part that is switched off, -1 for none

/**
 * All values of a run in which one value is another one: what reads it gets the other.
 * @param {string} name @param {Tensor} other @returns {Map<string, Tensor>}
 */
export function runWith(name, other) {
  const network = networks[NETWORK];
  const at = network.nodes.findIndex((node) => node.name === name);
  return runNodes(network, network.nodes.slice(at + 1), new Map([...state.values[NETWORK], [name, other]]));
}

/** The attention with one part's weights 0 and the other's unchanged. @param {Tensor} attention @param {number} part @returns {Tensor} */
export function without(attention, part) {
  const size = attention.data.length / 2;
  return { shape: attention.shape, data: attention.data.map((a, i) => (Math.floor(i / size) === part ? 0 : a)) };
}

/** @param {ArrayLike<number>} probabilities */
function bestOf(probabilities) {
  const found = Array.from(probabilities);
  const digit = found.indexOf(Math.max(...found));
  return `${digit} (${found[digit].toFixed(6)})`;
}

function showAttention() {
  const { attention, parts, mixed, name } = BLOCKS[block];
  const weights = valueOf(NETWORK, attention).data;
  const x = valueOf(NETWORK, parts);
  const changed = off < 0 ? null : runWith(attention, without(valueOf(NETWORK, attention), off));
  const y = /** @type {Tensor} */ ((changed ?? state.values[NETWORK]).get(mixed)).data;
  const channels = weights.length / 2;
  const [, , height, width] = x.shape;
  const size = height * width;
  const largest = largestOf(x.data);
  const map = (/** @type {Float32Array} */ data, /** @type {string} */ label) => {
    const canvas = element("canvas", { role: "img", "aria-label": label });
    paint(canvas, data, width, height, largest);
    return canvas;
  };
  byId("attention-rows").replaceChildren(
    ...Array.from({ length: channels }, (_, c) => {
      const part = (/** @type {number} */ r) => x.data.subarray((r * channels + c) * size, (r * channels + c + 1) * size);
      const share = (/** @type {number} */ r) => (off === r ? 0 : weights[r * channels + c]);
      const cell = (/** @type {number} */ r) => element("td", { class: "number" }, shortest(share(r)));
      return element("tr", {},
        element("th", { scope: "row" }, String(c)),
        element("td", {}, map(part(0), `part 0 of channel ${c}`)), cell(0),
        element("td", {}, element("meter", { min: 0, max: 1, value: share(0), "aria-label": `share of part 0 in channel ${c}` })),
        cell(1), element("td", {}, map(part(1), `part 1 of channel ${c}`)),
        element("td", {}, map(y.subarray(c * size, (c + 1) * size), `channel ${c}, mixed`)));
    }),
  );
  const strongest = Array.from({ length: channels }, (_, c) => Math.max(weights[c], weights[channels + c]));
  byId("attention-said").textContent =
    `${name}: ${channels} channels. Part 0 has the larger weight in ${Array.from({ length: channels }).filter((_, c) => weights[c] > weights[channels + c]).length} of them. ` +
    `The most one-sided has ${brief(Math.max(...strongest), 4)} to ${brief(1 - Math.max(...strongest), 2)}.`;
  const output = networks[NETWORK].output;
  byId("attention-answer").textContent =
    `The network answers ${bestOf(valueOf(NETWORK, output).data)}` +
    (changed ? `; with part ${off} of this block switched off, ${bestOf(/** @type {Tensor} */ (changed.get(output)).data)}.` : ".");
}

/** Starts the chapter. */
export function startAttention() {
  BLOCKS.forEach(({ name }, i) => byId("attention-block").append(element("option", { value: i }, name)));
  byId("attention-block").addEventListener("change", (/** @type {any} */ event) => {
    block = Number(event.target.value);
    showAttention();
  });
  byId("attention-off").addEventListener("change", (/** @type {any} */ event) => {
    off = Number(event.target.value);
    showAttention();
  });
  byId("attention-open").addEventListener("click", () => choose(NETWORK, BLOCKS[block].attention, 0));
  follow("digit", showAttention);
}
