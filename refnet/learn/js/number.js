/* Chapter 2: one number of a feature map: its terms, and its sum in three arithmetics, step by step. */

import { bitsOf, f32, fma32, place, ulp } from "./float32.js";
import { exp } from "./float64.js";
import { decimal, units } from "./exact.js";
import { scaleAndShift } from "./engine.js";
import { bound, bookSum, exactSum, fuses, isSum, partOf, plainSum, summands } from "./orders.js";
import { bits, brief, byId, element, largestOf, paint, shortest, svg, where } from "./draw.js";
import { listValues } from "./digit.js";
import { choose, chosen, follow, networks, state, valueOf } from "./state.js";

/** @typedef {import("./orders.js").Summands} Summands */
/** @typedef {import("./orders.js").Step} Step */

/**
 * @typedef {object} Explained
 * @property {Summands} sum
 * @property {boolean} average
 * @property {ReturnType<typeof plainSum>} plain
 * @property {ReturnType<typeof bookSum>} book
 * @property {ReturnType<typeof exactSum>} exact
 * @property {ReturnType<typeof bound>} bound
 */

/** Everything about one element that is a sum.
 * @param {number} network @param {import("./engine.js").GraphNode} node @param {number} at @returns {Explained} */
export function explain(network, node, at) {
  const sum = summands(networks[network], node, state.values[network], at);
  const average = node.op.endsWith("AvgPool");
  return {
    sum,
    average,
    plain: plainSum(sum, average),
    book: bookSum(sum, partOf(networks[network], node, at)),
    exact: exactSum(sum),
    bound: bound(sum, average),
  };
}

/** @type {Explained | null} */
let shown = null;
let timer = 0;

function show() {
  const node = chosen();
  const value = valueOf(state.network, node.name).data[state.at];
  byId("number-network").value = String(state.network);
  listValues(byId("number-value"), state.network);
  byId("number-value").value = node.name;
  byId("number-at").value = String(state.at);
  byId("number-at").max = String(valueOf(state.network, node.name).data.length - 1);
  byId("number-line").replaceChildren(
    element("b", {}, node.name), ` (${node.op}), ${where(node.shape, state.at)}: `,
    element("b", {}, shortest(value)), " ", bits(value),
  );
  pause();
  shown = isSum(node) ? explain(state.network, node, state.at) : null;
  byId("sum").hidden = !shown;
  byId("formula").hidden = !!shown;
  if (shown) {
    showTerms(shown);
    showColumns(shown);
    showInterval(shown);
  } else {
    byId("formula").replaceChildren(...lines(node, state.at).map(([left, x]) =>
      element("div", {}, element("span", {}, left), element("b", {}, shortest(x)), bits(x))));
  }
}

/** @param {Explained} one */
function showTerms({ sum }) {
  const terms = sum.terms;
  const channels = new Set(terms.map((t) => t.at[0])).size;
  const per = terms.length / channels;
  const across = Math.max(...terms.map((t) => t.at[2])) - Math.min(...terms.map((t) => t.at[2])) + 1;
  const rows = per / across;
  /** All channels side by side, with a gap between them. @param {(k: number) => number} of */
  const strip = (of) => {
    const width = channels * (across + 1) - 1;
    const data = new Float32Array(width * rows).fill(NaN);
    terms.forEach((_, k) => {
      const [c, p, q] = [Math.floor(k / per), Math.floor((k % per) / across), k % across];
      data[p * width + c * (across + 1) + q] = of(k);
    });
    return { data, width };
  };
  const kinds = /** @type {[string, (k: number) => number][]} */ ([
    ["window-inputs", (k) => (terms[k].inside ? terms[k].x : NaN)],
    ["window-weights", (k) => terms[k].w],
    ["window-products", (k) => (terms[k].inside ? terms[k].w * terms[k].x : NaN)],
  ]);
  for (const [id, of] of kinds) {
    const { data, width } = strip(of);
    paint(byId(id), data, width, rows, largestOf(data.filter((v) => !Number.isNaN(v))));
    byId(id).style.width = `${Math.min(width * (channels > 24 ? 5 : 12), 2000)}px`;
  }
  listTerms();
  const left = terms.filter((t) => !t.inside).length;
  byId("terms-said").textContent =
    `${terms.length} terms from ${channels} channel${channels > 1 ? "s" : ""}` +
    (left ? `, ${left} of them in the padding` : "") + (sum.bias !== null ? `, and the bias ${shortest(sum.bias)}` : "") +
    (sum.divisor > 1 ? `, divided by ${sum.divisor}` : "");
}

/** Fills the table of all terms if it is open; it may have hundreds of rows. */
function listTerms() {
  if (!byId("all-terms").open) return byId("terms").replaceChildren();
  const rows = (shown?.sum.terms ?? []).map((t, k) =>
    element("tr", { class: t.inside ? "" : "outside" },
      ...[k + 1, t.at.join(", "), shortest(t.w), t.inside ? shortest(t.x) : "padding", t.inside ? brief(t.w * t.x, 9) : ""]
        .map((text) => element("td", {}, String(text)))));
  byId("terms").replaceChildren(...rows);
}

/** @param {Explained} one */
function showColumns(one) {
  const network = networks[state.network];
  const part = partOf(network, chosen(), state.at);
  const lanes = one.book.lanes;
  byId("book-title").textContent = network.framework;
  byId("book-how").textContent =
    (lanes === 1 ? "One chain" : `${lanes} chains, then joined`) +
    (fuses(part.sum) ? ", fused multiply-adds" : ", each product rounded before it is added") +
    (part.padding === "zero" && one.sum.terms.some((t) => !t.inside) ? "; the padding's zeros are added, too" : "");
  const steps = Math.max(one.plain.steps.length, one.book.steps.length);
  const slider = byId("step");
  slider.max = String(steps);
  slider.value = String(steps);
  const final = [one.plain.value, one.book.value, one.exact.value];
  const distance = (/** @type {number} */ x) => {
    const d = place(x) - place(one.exact.value);
    return d === 0 ? "correctly rounded" : `${Math.abs(d).toLocaleString("en")} float32 ${d > 0 ? "above" : "below"} the correctly rounded value`;
  };
  byId("results").replaceChildren(
    ...["refnet’s plain", network.framework, "exact, rounded once"].map((name, i) =>
      element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, shortest(final[i])),
        element("td", {}, bits(final[i])), element("td", {}, distance(final[i])))));
  drawPaths(one);
  showStep();
}

/** The three columns after some steps. */
function showStep() {
  const one = shown;
  if (!one) return;
  const at = Number(byId("step").value);
  byId("step-said").textContent = `after step ${at} of ${byId("step").max}`;
  for (const [id, steps] of /** @type {[string, Step[]][]} */ ([["plain", one.plain.steps], ["book", one.book.steps]])) {
    const step = steps[Math.min(at, steps.length) - 1];
    if (!step) {
      byId(`${id}-step`).replaceChildren(...partial("+0", 0), element("p", { class: "lost" }, "The sum starts at +0."));
      continue;
    }
    const u = ulp(step.value);
    const lost = step.error === 0
      ? "This step was exact: nothing was rounded away."
      : `Rounded ${step.error > 0 ? "up" : "down"} by ${brief(Math.abs(step.error))}, ${brief(Math.abs(step.error) / u, 2)} ulp.`;
    byId(`${id}-step`).replaceChildren(
      ...partial(step.what + (id === "book" && step.lane >= 0 && one.book.lanes > 1 ? ` in chain ${step.lane + 1}` : ""), step.value),
      element("p", { class: "lost" }, lost));
  }
  const exact = one.exact.partial;
  const done = Math.min(at, exact.length);
  const n = done ? exact[done - 1] : 0n;
  const divided = at >= exact.length ? one.sum.divisor : 1;
  byId("exact-step").replaceChildren(
    element("p", { class: "what" }, done ? `the first ${done} ${done <= one.sum.terms.length ? "terms" : "terms and the bias"}` : "0"),
    element("p", { class: "value" }, decimal(n, 30, divided)),
    element("p", { class: "lost" }, "Nothing is rounded; only the result will be, once."));
}

/** @param {string} what @param {number} value */
function partial(what, value) {
  return [element("p", { class: "what" }, what), element("p", { class: "value" }, shortest(value)), bits(value)];
}

/** The errors added up, step by step: where each line ends is how far the result is from the exact sum. @param {Explained} one */
function drawPaths(one) {
  const u = ulp(one.exact.value);
  const paths = [one.plain.steps, one.book.steps].map((steps) => {
    let total = 0;
    return [0, ...steps.map((s) => (total += s.error / u))];
  });
  const most = Math.max(1, ...paths.flat().map(Math.abs));
  const [width, height] = [600, 120];
  const line = (/** @type {number[]} */ path) =>
    path.map((v, i) => `${(10 + (i * (width - 20)) / Math.max(path.length - 1, 1)).toFixed(1)},${(height / 2 - (v / most) * (height / 2 - 10)).toFixed(1)}`).join(" ");
  byId("paths").replaceChildren(
    svg("line", { x1: 10, x2: width - 10, y1: height / 2, y2: height / 2, class: "axis" }),
    svg("polyline", { points: line(paths[0]), class: "plain" }),
    svg("polyline", { points: line(paths[1]), class: "book" }),
    svg("text", { x: 10, y: 12 }, `+${brief(most, 2)} ulp`), svg("text", { x: 10, y: height - 4 }, `−${brief(most, 2)} ulp`));
}

/** @param {Explained} one */
function showInterval(one) {
  const u = ulp(one.exact.value);
  const { radius, size, roundings } = one.bound;
  const marks = /** @type {[string, number][]} */ ([["plain", one.plain.value], ["book", one.book.value], ["exact", one.exact.value]]);
  const exact = decimal(one.exact.exact, 12, one.sum.divisor);
  // A float32 minus the exact value, in ulps: exact in integers, then one rounding to a double.
  const offset = (/** @type {number} */ x) => {
    const by = BigInt(one.sum.divisor);
    return Number(((units(x) * by - one.exact.exact) * 1000000n) / (by * units(u))) / 1e6;
  };
  const share = Math.max(...marks.slice(0, 2).map(([, x]) => (Math.abs(offset(x)) * u) / radius));
  byId("interval-said").textContent =
    `Σ|w||x| = ${brief(size)}; at most ${roundings} roundings per term; so every order ends within ±${brief(radius)} ` +
    `(${brief(radius / u)} ulp) of ${exact}. The two float32 sums use at most ${brief(100 * share, 2)} % of that.`;
  const lines = /** @type {[string, number][]} */ ([["interval", radius / u], ["interval-near", Math.max(...marks.map(([, x]) => Math.abs(offset(x))), 1) * 1.5]]);
  for (const [id, half] of lines) {
    const x = (/** @type {number} */ ulps) => 300 + (ulps / half) * 280;
    const ticks = half < 30 ? Array.from({ length: Math.floor(half) * 2 + 1 }, (_, i) => i - Math.floor(half) + offset(one.exact.value)) : [];
    byId(id).replaceChildren(
      svg("line", { x1: 20, x2: 580, y1: 40, y2: 40, class: "axis" }),
      ...(id === "interval" ? [svg("path", { d: "M20 28v24M580 28v24", class: "end" })] : []),
      ...ticks.filter((t) => Math.abs(t) <= half).map((t) => svg("line", { x1: x(t), x2: x(t), y1: 35, y2: 45, class: "axis" })),
      svg("path", { d: `M${x(0)} 30v20`, class: "centre" }),
      ...marks.map(([name, v], i) => svg("circle", { cx: x(offset(v)).toFixed(2), cy: 22 + 18 * i, r: 5, class: name })),
      svg("text", { x: 20, y: 74 }, `−${brief(half)} ulp`), svg("text", { x: 580, y: 74, "text-anchor": "end" }, `+${brief(half)} ulp`));
  }
}

/**
 * What is computed where no order could differ, line by line.
 * @param {import("./engine.js").GraphNode} node @param {number} at @returns {[string, number][]}
 */
function lines(node, at) {
  const inputs = node.data.map((name) => valueOf(state.network, name));
  const [x, y] = inputs;
  const value = valueOf(state.network, node.name).data[at];
  const [, channels, rows = 1, columns = 1] = node.shape;
  const size = rows * columns;
  const c = Math.floor(at / size);
  const radix = node.attributes.radix;
  switch (node.op) {
    case "BatchNorm": {
      const weights = node.weights.map((name) => networks[state.network].weights[name]);
      const [s, t] = scaleAndShift(weights, /** @type {any} */ (node.attributes), c);
      const [g, b, m, v] = weights.map((w) => w.data[c]);
      return [["input x", x.data[at]], ["gamma", g], ["beta", b], ["mean", m], ["variance", v],
        ["s = gamma / √(variance + eps)", s], ["t = beta − mean · s", t], ["fma(x, s, t), rounded once", fma32(x.data[at], s, t)]];
    }
    case "Add":
      return [...inputs.map((one, i) => /** @type {[string, number]} */ ([`input ${i + 1}`, one.data[at]])), ["their sum, rounded once", value]];
    case "Mul":
      return [["input", x.data[at]], ["factor of the channel", y.data[c]], ["their product, rounded once", value]];
    case "Relu":
      return [["input", x.data[at]], ["0 if that is 0 or less, else the same", value]];
    case "Sigmoid": {
      const e = f32(exp(-x.data[at]));
      return [["input x", x.data[at]], ["e = exp(−x), rounded", e], ["1 + e, rounded", f32(1 + e)], ["1 / (1 + e), rounded", value]];
    }
    case "RadixSum":
      return [...Array.from({ length: radix }, (_, r) => /** @type {[string, number]} */ ([`part ${r}`, x.data[r * channels * size + at]])), ["their sum, rounded once", value]];
    case "WeightedSum":
      return [...Array.from({ length: radix }, (_, r) => /** @type {[string, number][]} */ ([
        [`attention of part ${r}`, x.data[r * channels + c]], [`part ${r}`, y.data[r * channels * size + at]]])).flat(),
        ["attention · part, added by fused multiply-adds", value]];
    case "RadixSoftmax": {
      const per = channels / radix;
      return [...Array.from({ length: radix }, (_, r) => /** @type {[string, number]} */ ([`input of part ${r}`, x.data[r * per + (at % per)]])),
        [`softmax over the parts: part ${Math.floor(at / per)}`, value]];
    }
    case "Softmax":
      return [...[...x.data].map((v, i) => /** @type {[string, number]} */ ([`input of class ${i}`, v])), [`e to its power, divided by the sum: class ${at}`, value]];
    case "MaxPool":
      return [["the largest input of its window", value]];
    default:
      return [["a copy of an input", value]];
  }
}

function pause() {
  clearInterval(timer);
  timer = 0;
  byId("play").textContent = "Play";
}

function play() {
  if (timer) return pause();
  const slider = byId("step");
  if (slider.value === slider.max) slider.value = "0";
  byId("play").textContent = "Pause";
  timer = window.setInterval(() => {
    slider.value = String(Number(slider.value) + 1);
    showStep();
    if (slider.value === slider.max) pause();
  }, Math.max(60, 6000 / Number(slider.max)));
}

/** Starts the chapter. */
export function startNumber() {
  networks.forEach((network, i) => byId("number-network").append(element("option", { value: i }, network.title)));
  byId("number-network").addEventListener("change", (/** @type {any} */ event) => {
    const network = Number(event.target.value);
    choose(network, networks[network].nodes[0].name, 0);
  });
  byId("number-value").addEventListener("change", (/** @type {any} */ event) => choose(state.network, event.target.value, 0));
  byId("number-at").addEventListener("change", (/** @type {any} */ event) => {
    const size = valueOf(state.network, state.node).data.length;
    choose(state.network, state.node, Math.min(Math.max(Math.round(Number(event.target.value)) || 0, 0), size - 1));
  });
  byId("step").addEventListener("input", () => {
    pause();
    showStep();
  });
  byId("play").addEventListener("click", play);
  byId("all-terms").addEventListener("toggle", listTerms);
  follow("element", show);
}

/** The bits of an element in the framework's order; for tests. @param {number} network @param {string} name @param {number} at */
export function inBookOrder(network, name, at) {
  const node = networks[network].nodes.find((one) => one.name === name);
  if (!node) throw new Error(name);
  const { plain, book, exact, bound: within } = explain(network, node, at);
  return [bitsOf(plain.value), bitsOf(book.value), bitsOf(exact.value), within.radius];
}
