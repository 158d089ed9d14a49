/* One sum in several arithmetics: its terms, plain's chain, the framework's revealed tree, exact, the bound. */

import { f32, fma32 } from "./float32.js";
import { nearest, product, toNumber, units } from "./exact.js";

/** @typedef {import("./engine.js").Network} Network */
/** @typedef {import("./engine.js").GraphNode} GraphNode */
/** @typedef {import("./engine.js").Tensor} Tensor */

/**
 * @typedef {object} Term one product of a sum
 * @property {number} w the weight; 1 in an average
 * @property {number} x the input, +0 in the padding
 * @property {boolean} inside false in the padding
 * @property {number[]} at channel, row, column of the input
 */

/**
 * @typedef {object} Summands
 * @property {Term[]} terms in plain order: channel, kernel row, kernel column
 * @property {number | null} bias
 * @property {number} [addend] the other summand of an addition that is joined with the sum
 * @property {number} divisor what the sum is divided by at last; 1 in a convolution
 */

/**
 * @typedef {object} Step
 * @property {number} lane which chain this belongs to; a framework may add several chains side by side
 * @property {string} what in words
 * @property {number} term index of the term that is added, -1 for none
 * @property {number} value the partial sum, a float32
 * @property {number} error value minus the exact result of this step
 */

const SUMS = new Set(["Conv", "Dense", "AvgPool", "GlobalAvgPool"]);

/** Whether the node's elements are sums whose order differs between frameworks. @param {GraphNode} node */
export function isSum(node) {
  return SUMS.has(node.op);
}

/**
 * The terms of one element.
 * @param {Network} network @param {GraphNode} node @param {Map<string, Tensor>} values
 * @param {number} at its index in the node's value @returns {Summands}
 */
export function summands(network, node, values, at) {
  const x = /** @type {Tensor} */ (values.get(node.data[0]));
  const [w, bias] = node.weights.map((name) => network.weights[name]);
  const { kernel, stride, pad, groups } = node.attributes;
  const [, outputs, rows = 1, columns = 1] = node.shape;
  const [, channels, height = 1, width = 1] = x.shape;
  const o = Math.floor(at / (rows * columns));
  /** @type {Term[]} */
  const terms = [];
  if (node.op === "Dense") {
    const size = x.data.length;
    for (let k = 0; k < size; k++) {
      terms.push({ w: w.data[o * size + k], x: x.data[k], inside: true, at: [k, 0, 0] });
    }
    return { terms, bias: bias ? bias.data[o] : null, divisor: 1 };
  }
  const whole = node.op === "GlobalAvgPool";
  const [kernelRows, kernelColumns] = whole ? [height, width] : kernel;
  const [top, left] = whole
    ? [0, 0]
    : [Math.floor(at / columns) % rows * stride[0] - pad[0], at % columns * stride[1] - pad[1]];
  const perGroup = w ? w.shape[1] : 1;
  const first = w ? Math.floor(o / (outputs / groups)) * perGroup : o;
  for (let c = 0; c < perGroup; c++) {
    for (let p = 0; p < kernelRows; p++) {
      for (let q = 0; q < kernelColumns; q++) {
        const [row, column] = [top + p, left + q];
        const inside = row >= 0 && row < height && column >= 0 && column < width;
        const weight = w ? w.data[((o * perGroup + c) * kernelRows + p) * kernelColumns + q] : 1;
        const value = inside ? x.data[((first + c) * height + row) * width + column] : 0;
        terms.push({ w: weight, x: value, inside, at: [first + c, row, column] });
      }
    }
  }
  return { terms, bias: bias ? bias.data[o] : null, divisor: w ? 1 : divisor(node, x, at, terms) };
}

/** What an average divides by. @param {GraphNode} node @param {Tensor} x @param {number} at @param {Term[]} terms */
function divisor(node, x, at, terms) {
  if (node.op === "GlobalAvgPool" || !node.attributes.count_include_pad) return terms.filter((t) => t.inside).length;
  const { kernel, stride, pad } = node.attributes;
  const [, , rows, columns] = node.shape;
  const [top, left] = [Math.floor(at / columns) % rows * stride[0] - pad[0], at % columns * stride[1] - pad[1]];
  const [, , height, width] = x.shape;
  return (Math.min(top + kernel[0], height + pad[0]) - top) * (Math.min(left + kernel[1], width + pad[1]) - left);
}

/**
 * value - (a + b), where value is that sum in float32: two doubles hold the exact sum, so nothing is lost before
 * the last subtraction. a: a float32; b: one, or the product of two, which is exact in double.
 * @param {number} value @param {number} a @param {number} b @returns {number}
 */
export function errorOf(value, a, b) {
  const sum = a + b;
  const t = sum - a;
  const rest = a - (sum - t) + (b - t);
  return value - sum - rest;
}

/** Adds one term after another and writes down each step. */
class Sum {
  /** @param {Summands} sum @param {boolean} padding whether terms in the padding are added, as w * (+0) */
  constructor(sum, padding) {
    this.sum = sum;
    this.padding = padding;
    /** @type {Step[]} */
    this.steps = [];
    this.lanes = 0;
  }

  /** @param {number} start @param {number[]} order @param {boolean} fused @returns {number} */
  chain(start, order, fused) {
    const lane = this.lanes++;
    let total = start;
    for (const k of order) {
      const { w, x, inside } = this.sum.terms[k];
      if (!inside && !this.padding) continue;
      const value = fused ? fma32(w, x, total) : f32(total + f32(w * x));
      this.steps.push({ lane, what: `+ term ${k + 1}`, term: k, value, error: errorOf(value, total, w * x) });
      total = value;
    }
    return total;
  }

  /** @param {number} a @param {number} b @param {string} what @returns {number} */
  add(a, b, what) {
    const value = f32(a + b);
    this.steps.push({ lane: -1, what, term: -1, value, error: errorOf(value, a, b) });
    return value;
  }

  /** @param {number} total @param {boolean} divides @returns {number} */
  finish(total, divides) {
    const d = this.sum.divisor;
    if (!divides) return total;
    const value = f32(total / d);
    const error = toNumber(units(value) * BigInt(d) - units(total)) / d;
    this.steps.push({ lane: -1, what: `divided by ${d}`, term: -1, value, error });
    return value;
  }
}

/**
 * Plain's order: one chain of fused multiply-adds from +0, then the bias, or the division of an average.
 * @param {Summands} sum @param {boolean} average @returns {{value: number, steps: Step[]}}
 */
export function plainSum(sum, average) {
  const made = new Sum(sum, false);
  let total = made.chain(0, sum.terms.map((_, k) => k), true);
  if (sum.bias !== null) total = made.add(total, sum.bias, "+ bias");
  return { value: made.finish(total, average), steps: made.steps };
}

/**
 * The framework's order, from the book: an expression of chains and sums (refnet's docs/replay.md).
 * @param {Summands} sum @param {any} part of the book @returns {{value: number, steps: Step[], lanes: number}}
 */
export function bookSum(sum, part) {
  const made = new Sum(sum, part.padding === "zero");
  /** @param {any} expression @returns {number} */
  const evaluate = (expression) => {
    if (expression === "zero") return 0;
    if (expression === "first") return -0;
    if (expression === "bias") return /** @type {number} */ (sum.bias);
    if (expression === "addend") return /** @type {number} */ (sum.addend);
    const [kind, ...rest] = expression;
    if (kind !== "add") return made.chain(evaluate(rest[0]), indices(rest[1]), kind === "fma");
    let total = evaluate(rest[0]);
    for (const one of rest.slice(1)) {
      const next = evaluate(one);
      total = made.add(total, next, one === "bias" ? "+ bias" : one === "addend" ? "+ the other summand" : "two sums joined");
    }
    return total;
  };
  const total = evaluate(part.sum);
  return { value: made.finish(total, part.finish === "divide"), steps: made.steps, lanes: made.lanes };
}

/** The recipe's part that computes this element. @param {Network} network @param {GraphNode} node @param {number} at */
export function partOf(network, node, at) {
  return partAt(network.book[node.name], at);
}

/** The part of a recipe that computes this element. @param {{parts: any[], part?: number[]}} recipe @param {number} at */
export function partAt({ parts, part }, at) {
  return parts[part ? part[at] : 0];
}

/** An expression in words. @param {any} expression @returns {string} */
export function inWords(expression) {
  /** @type {any[][]} */
  const chains = [];
  /** @type {string[]} */
  const leaves = [];
  const names = /** @type {Record<string, string>} */ ({ bias: "the bias", addend: "the other summand" });
  /** @param {any} one @param {boolean} begins */
  const walk = (one, begins) => {
    if (typeof one === "string") {
      if (names[one]) leaves.push(begins ? `${names[one]} starts the chain` : `${names[one]} is added ${chains.length < count ? "between them" : "last"}`);
    } else if (one[0] === "add") one.slice(1).forEach((/** @type {any} */ next) => walk(next, false));
    else {
      walk(one[1], true);
      chains.push(one);
    }
  };
  const counted = (/** @type {any} */ one) => (Array.isArray(one) ? one.slice(1, one[0] === "add" ? undefined : 2).reduce((n, next) => n + counted(next), one[0] === "add" ? 0 : 1) : 0);
  const count = counted(expression);
  walk(expression, false);
  const fused = chains.every((one) => one[0] === "fma") ? "fused multiply-adds" : "each product rounded first";
  const sizes = chains.map((one) => indices(one[2]).length);
  const terms = count < 12 ? ` of ${sizes.join(", ")} terms` : "";
  return [`${count === 1 ? "one chain" : `${count} chains`}${terms} (${fused})`, ...leaves].join("; ");
}

/** A book's order as a list of terms: pieces [start, count, step, ...], the last loop fastest.
 * @param {number[][]} pieces @returns {number[]} */
export function indices(pieces) {
  return pieces.flatMap(([start, ...loops]) => {
    let found = [start];
    for (let i = 0; i < loops.length; i += 2) {
      found = found.flatMap((at) => Array.from({ length: loops[i] }, (_, k) => at + k * loops[i + 1]));
    }
    return found;
  });
}

/** Whether the expression fuses multiplications with additions anywhere. @param {any} expression @returns {boolean} */
export function fuses(expression) {
  return Array.isArray(expression) && (expression[0] === "fma" || expression.slice(1).some(fuses));
}

/**
 * The exact sum, in units of exact.js, not yet divided, after each term; and its correctly rounded value.
 * @param {Summands} sum @returns {{value: number, exact: bigint, partial: bigint[]}}
 */
export function exactSum(sum) {
  let total = 0n;
  const partial = sum.terms.map(({ w, x }) => (total += product(w, x)));
  if (sum.bias !== null) partial.push((total += units(sum.bias)));
  return { value: nearest(total, sum.divisor), exact: total, partial };
}

/**
 * How far any float32 evaluation of this sum may lie from the exact value, whatever its order:
 * gamma(n) * sum of |w| |x|, and what products lose below the smallest float32. refnet's own radius is this
 * and a hair more, for the float64 in which it computes it.
 * @param {Summands} sum @param {boolean} average @returns {{radius: number, size: number, roundings: number}}
 */
export function bound(sum, average) {
  const absolute = (/** @type {bigint} */ n) => (n < 0n ? -n : n);
  let total = sum.bias === null ? 0n : absolute(units(sum.bias));
  for (const { w, x } of sum.terms) total += absolute(product(w, x));
  const inside = sum.terms.length;
  const roundings = inside + (sum.bias !== null || average ? 1 : 0);
  const u = 2 ** -24;
  const gamma = (roundings * u) / (1 - roundings * u);
  const size = toNumber(total) / sum.divisor;
  const lost = average ? inside + 1 : inside * (1 + gamma);
  return { radius: gamma * size + lost * 2 ** -150, size, roundings };
}
