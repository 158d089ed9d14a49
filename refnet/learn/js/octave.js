/* Chapter 4: octave convolution: four paths with their maps, what alpha costs, and which frequencies maps hold. */

import { byId, element, largestOf, paint } from "./draw.js";
import { choose, facts, follow, networks, valueOf } from "./state.js";

/** @typedef {import("./engine.js").Tensor} Tensor */

const OCTAVE = networks.findIndex((network) => network.nodes.some((node) => node.op === "UpsampleNearest"));

/** The convolutions that have all four paths, and the inputs of their paths. */
const OCTAVES = networks[OCTAVE].nodes
  .filter((node) => node.name.endsWith("-l2l") && node.op === "Conv")
  .map((node) => node.name.slice(0, -4))
  .filter((name) => ["h2h", "h2l", "l2h"].every((path) => nodeOf(`${name}-${path}`)))
  .filter((name) => nodeOf(`${name}-h`)?.op === "Add" && nodeOf(`${name}-l`)?.op === "Add");

let octave = 0;

/** @param {string} name */
function nodeOf(name) {
  return networks[OCTAVE].nodes.find((node) => node.name === name);
}

/** The values of an octave convolution in the order of its figure: name, and what it is. @param {string} name @returns {string[][]} */
function pathsOf(name) {
  const read = (/** @type {string} */ path) => /** @type {any} */ (nodeOf(path)).data[0];
  const up = /** @type {any} */ (nodeOf(`${name}-h`)).data[1];
  const repeated = up === `${name}-l2h` ? [] : [[up, "the same, repeated"]]; // none where the layer halves the image
  return [
    [read(`${name}-h2h`), "input, high"],
    [read(`${name}-l2l`), "input, low"],
    [`${name}-h2h`, "high to high"],
    [read(`${name}-h2l`), "high, averaged"],
    [`${name}-h2l`, "high to low"],
    [`${name}-l2l`, "low to low"],
    [`${name}-l2h`, "low to high"],
    ...repeated,
    [`${name}-h`, "output, high"],
    [`${name}-l`, "output, low"],
  ];
}

/**
 * How much of maps' variation has low frequency: at most a quarter of a cycle per pixel along both axes. Each map's
 * mean (frequency 0) is left out. Fourier transforms in double, along the rows and then along the columns.
 * @param {ArrayLike<number>} data maps of n x n, one after another @param {number} n @returns {number} from 0 to 1
 */
export function lowShare(data, n) {
  const cosine = Float64Array.from({ length: n }, (_, i) => Math.cos((2 * Math.PI * i) / n));
  const sine = Float64Array.from({ length: n }, (_, i) => -Math.sin((2 * Math.PI * i) / n));
  const [rowRe, rowIm] = [new Float64Array(n * n), new Float64Array(n * n)]; // [row, frequency along it]
  let [low, all] = [0, 0];
  for (let start = 0; start < data.length; start += n * n) {
    for (let i = 0; i < n; i++) {
      for (let v = 0; v < n; v++) {
        let [re, im] = [0, 0];
        for (let j = 0; j < n; j++) {
          re += data[start + i * n + j] * cosine[(v * j) % n];
          im += data[start + i * n + j] * sine[(v * j) % n];
        }
        rowRe[i * n + v] = re;
        rowIm[i * n + v] = im;
      }
    }
    for (let u = 0; u < n; u++) {
      for (let v = 0; v < n; v++) {
        if (u + v === 0) continue;
        let [re, im] = [0, 0];
        for (let i = 0; i < n; i++) {
          const [c, s] = [cosine[(u * i) % n], sine[(u * i) % n]];
          re += rowRe[i * n + v] * c - rowIm[i * n + v] * s;
          im += rowRe[i * n + v] * s + rowIm[i * n + v] * c;
        }
        const power = re * re + im * im;
        all += power;
        if (Math.min(u, n - u) <= n / 4 && Math.min(v, n - v) <= n / 4) low += power;
      }
    }
  }
  return all ? low / all : 0;
}

/** Averages of 2 x 2. @param {ArrayLike<number>} data @param {number} n @returns {number[]} */
function halved(data, n) {
  const m = n / 2;
  return Array.from({ length: data.length / 4 }, (_, at) => {
    const i = Math.floor(at / m); // counts the rows of all maps
    const from = 2 * i * n + 2 * (at % m);
    return (data[from] + data[from + 1] + data[from + n] + data[from + n + 1]) / 4;
  });
}

/** Each element 2 x 2 times. @param {ArrayLike<number>} data @param {number} m @returns {number[]} */
function doubled(data, m) {
  const n = 2 * m;
  return Array.from({ length: data.length * 4 }, (_, at) => data[(Math.floor(at / n) >> 1) * m + ((at % n) >> 1)]);
}

/**
 * Shares of low frequencies of an octave convolution's outputs: on the high grid, and on the maps' own.
 * The spectrum of one single pixel is what white noise has on average.
 * @param {string} name @returns {[string, number, number][]}
 */
export function frequencies(name) {
  const [high, low] = ["h", "l"].map((one) => valueOf(OCTAVE, `${name}-${one}`));
  const n = high.shape[2];
  const m = n / 2;
  const [small, spot] = [halved(high.data, n), [1, ...Array(m * m - 1).fill(0)]];
  const whole = lowShare(high.data, n);
  return [
    ["high", whole, whole],
    .../** @type {[string, ArrayLike<number>][]} */ ([["low", low.data], ["high, averaged", small], ["noise", spot]]).map(
      ([label, maps]) => /** @type {[string, number, number]} */ ([label, lowShare(doubled(maps, m), n), lowShare(maps, m)]),
    ),
  ];
}

function showOctave() {
  const name = OCTAVES[octave];
  const rows = pathsOf(name).map(([value, label]) => {
    const { shape, data } = valueOf(OCTAVE, value);
    const size = shape[2] * shape[3];
    const largest = largestOf(data);
    const maps = Array.from({ length: Math.min(shape[1], 8) }, (_, c) => {
      const canvas = element("canvas", { role: "img", "aria-label": `${label}, channel ${c}`, class: shape[2] < valueOf(OCTAVE, `${name}-h`).shape[2] ? "half" : "" });
      paint(canvas, data.subarray(c * size, (c + 1) * size), shape[3], shape[2], largest);
      return canvas;
    });
    const open = element("button", { type: "button", onclick: () => choose(OCTAVE, value, 0), "aria-label": `Take ${value} apart in chapter 2` }, value);
    return element("tr", {},
      element("th", { scope: "row" }, label), element("td", {}, element("div", { class: "few" }, ...maps)),
      element("td", {}, open), element("td", {}, `${shape[1]} × ${shape[2]}×${shape[3]}`));
  });
  byId("octave-rows").replaceChildren(...rows);
  byId("octave-shares").replaceChildren(
    ...frequencies(name).map(([label, ...shares]) =>
      element("tr", {}, element("th", { scope: "row" }, label), ...shares.map((s) => element("td", {}, `${(100 * s).toFixed(1)} %`)))),
  );
}

function showAlpha() {
  const alpha = Number(byId("alpha").value) / 16;
  const [counted, [a, b, c]] = [facts.octave.macs, facts.octave.formula];
  const found = counted.find((/** @type {number[]} */ one) => one[0] === alpha);
  const macs = found ? found[1] : a + b * alpha + c * alpha * alpha;
  byId("alpha-said").textContent =
    `α = ${alpha}: one layer costs ${(100 * (1 - 0.75 * alpha * (2 - alpha))).toFixed(1)} % of the usual convolution. ` +
    `The network: ${(macs / 1e9).toFixed(3)} billion multiply-adds (${found ? "counted" : "by the formula"}), ${((100 * macs) / counted[0][1]).toFixed(1)} %.`;
}

/** Starts the chapter. */
export function startOctave() {
  OCTAVES.forEach((name, i) => byId("octave-layer").append(element("option", { value: i }, name)));
  byId("octave-layer").addEventListener("change", (/** @type {any} */ event) => {
    octave = Number(event.target.value);
    showOctave();
  });
  byId("alpha").addEventListener("input", showAlpha);
  showAlpha();
  follow("digit", showOctave);
}
