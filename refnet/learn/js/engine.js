/* An interpreter of refnet's graphs: the ops in refnet's plain order, with refnet's bits. */

import { f32, fma32 } from "./float32.js";
import { exp } from "./float64.js";

/**
 * @typedef {object} Tensor
 * @property {number[]} shape batch, channels, rows, columns; or batch, features
 * @property {Float32Array} data the last axis fastest
 */

/**
 * @typedef {object} GraphNode one operation that makes one value; the value has the node's name
 * @property {string} name
 * @property {string} op
 * @property {Record<string, any>} attributes refnet's names: kernel, stride, pad, ...
 * @property {string[]} data names of the values that it reads
 * @property {string[]} weights names of the weights that it reads
 * @property {number[]} shape of its value
 */

/**
 * @typedef {object} Network
 * @property {string} name
 * @property {string} framework whose names the values have
 * @property {string} output the value with the ten probabilities
 * @property {GraphNode[]} nodes in the order of execution
 * @property {Record<string, Tensor>} weights
 * @property {Record<string, any>} book node -> in which order the framework adds; see orders.js
 */

/** @typedef {(inputs: Tensor[], weights: Tensor[], attributes: Record<string, any>, shape: number[]) => Float32Array} Op */

/**
 * Every value of a network for one input, by name.
 * @param {Network} network @param {Tensor} input @returns {Map<string, Tensor>}
 */
export function run(network, input) {
  return runNodes(network, network.nodes, new Map([["data", input]]));
}

/**
 * The values that are known, and those of the nodes, which may read them.
 * @param {Network} network @param {GraphNode[]} nodes @param {Map<string, Tensor>} known @returns {Map<string, Tensor>}
 */
export function runNodes(network, nodes, known) {
  const values = new Map(known);
  for (const node of nodes) values.set(node.name, evaluate(network, node, values));
  return values;
}

/** One node's value. @param {Network} network @param {GraphNode} node @param {Map<string, Tensor>} values @returns {Tensor} */
export function evaluate(network, node, values) {
  const inputs = node.data.map((name) => /** @type {Tensor} */ (values.get(name)));
  const weights = node.weights.map((name) => network.weights[name]);
  return { shape: node.shape, data: OPS[node.op](inputs, weights, node.attributes, node.shape) };
}

/** @type {Record<string, Op>} */
export const OPS = {
  Conv: conv,
  Dense: dense,
  BatchNorm: batchNorm,
  MaxPool: maxPool,
  AvgPool: averagePool,
  GlobalAvgPool: globalAverage,
  Relu: ([x]) => x.data.map((v) => (v <= 0 ? 0 : v)),
  Sigmoid: ([x]) => x.data.map(sigmoid),
  Add: add,
  Mul: multiply,
  UpsampleNearest: upsample,
  RadixSum: radixSum,
  RadixSoftmax: radixSoftmax,
  WeightedSum: weightedSum,
  Softmax: ([x]) => softmax(x.data, x.shape[1], 1),
  Flatten: ([x]) => x.data.slice(),
  ExpandDims: ([x]) => x.data.slice(),
};

/**
 * Convolution: each output is one chain of fused multiply-adds from +0, over channels, kernel rows, kernel
 * columns. What lies in the padding is left out. Then the bias is added.
 * @type {Op}
 */
function conv([x], [w, bias], { stride, pad, groups }, shape) {
  const [, outputs, rows, columns] = shape;
  const [, , height, width] = x.shape;
  const [, channels, kernelRows, kernelColumns] = w.shape;
  const y = new Float32Array(outputs * rows * columns);
  for (let o = 0; o < outputs; o++) {
    const first = Math.floor(o / (outputs / groups)) * channels; // of the channels that this group sees
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        let sum = 0;
        for (let c = 0; c < channels; c++) {
          for (let p = 0; p < kernelRows; p++) {
            const row = i * stride[0] - pad[0] + p;
            if (row < 0 || row >= height) continue;
            for (let q = 0; q < kernelColumns; q++) {
              const column = j * stride[1] - pad[1] + q;
              if (column < 0 || column >= width) continue;
              const weight = w.data[((o * channels + c) * kernelRows + p) * kernelColumns + q];
              sum = fma32(weight, x.data[((first + c) * height + row) * width + column], sum);
            }
          }
        }
        y[(o * rows + i) * columns + j] = bias ? f32(sum + bias.data[o]) : sum;
      }
    }
  }
  return y;
}

/** A dense layer: a chain of fused multiply-adds from +0, then the bias. @type {Op} */
function dense([x], [w, bias]) {
  const [outputs, terms] = w.shape;
  const y = new Float32Array(outputs);
  for (let o = 0; o < outputs; o++) {
    let sum = 0;
    for (let k = 0; k < terms; k++) sum = fma32(w.data[o * terms + k], x.data[k], sum);
    y[o] = bias ? f32(sum + bias.data[o]) : sum;
  }
  return y;
}

/**
 * What batch norm multiplies with and adds, per channel, computed in double and rounded once each.
 * @param {Tensor[]} weights gamma, beta, mean, variance @param {{eps: number, fix_gamma: boolean}} attributes
 * @param {number} c the channel @returns {[number, number]}
 */
export function scaleAndShift([gamma, beta, mean, variance], { eps, fix_gamma: fixed }, c) {
  const s = (fixed ? 1 : gamma.data[c]) / Math.sqrt(variance.data[c] + eps);
  return [f32(s), f32(beta.data[c] - mean.data[c] * s)];
}

/** Batch norm: one fused multiply-add per element. @type {Op} */
function batchNorm([x], weights, attributes) {
  const channels = x.shape[1];
  const size = x.data.length / channels;
  const y = new Float32Array(x.data.length);
  for (let c = 0; c < channels; c++) {
    const [s, t] = scaleAndShift(weights, /** @type {any} */ (attributes), c);
    for (let i = c * size; i < (c + 1) * size; i++) y[i] = fma32(x.data[i], s, t);
  }
  return y;
}

/**
 * Calls `each` for every output of a pool with the rows and columns of its window that lie in the image.
 * @param {Tensor} x @param {Record<string, any>} attributes @param {number[]} shape
 * @param {(at: number, plane: number, window: [number, number, number, number], size: number) => void} each
 */
function windows(x, { kernel, stride, pad, count_include_pad: padded }, shape, each) {
  const [, channels, rows, columns] = shape;
  const [, , height, width] = x.shape;
  for (let c = 0; c < channels; c++) {
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        const top = i * stride[0] - pad[0];
        const left = j * stride[1] - pad[1];
        const [firstRow, lastRow] = [Math.max(top, 0), Math.min(top + kernel[0], height)];
        const [firstColumn, lastColumn] = [Math.max(left, 0), Math.min(left + kernel[1], width)];
        const size = padded
          ? (Math.min(top + kernel[0], height + pad[0]) - top) * (Math.min(left + kernel[1], width + pad[1]) - left)
          : (lastRow - firstRow) * (lastColumn - firstColumn);
        const at = (c * rows + i) * columns + j;
        each(at, c * height * width, [firstRow, lastRow, firstColumn, lastColumn], size);
      }
    }
  }
}

/** The largest of each window, the first of equals. @type {Op} */
function maxPool([x], _, attributes, shape) {
  const y = new Float32Array(shape.reduce((a, b) => a * b));
  const width = x.shape[3];
  windows(x, attributes, shape, (at, plane, [top, bottom, left, right]) => {
    let best = -Infinity;
    for (let row = top; row < bottom; row++) {
      for (let column = left; column < right; column++) {
        const v = x.data[plane + row * width + column];
        if (v > best || v !== v) best = v;
      }
    }
    y[at] = best;
  });
  return y;
}

/** The sum of each window from +0, row by row, then one division. @type {Op} */
function averagePool([x], _, attributes, shape) {
  const y = new Float32Array(shape.reduce((a, b) => a * b));
  const width = x.shape[3];
  windows(x, attributes, shape, (at, plane, [top, bottom, left, right], size) => {
    let sum = 0;
    for (let row = top; row < bottom; row++) {
      for (let column = left; column < right; column++) sum = f32(sum + x.data[plane + row * width + column]);
    }
    y[at] = f32(sum / size);
  });
  return y;
}

/** The average of each channel. @type {Op} */
function globalAverage([x]) {
  const channels = x.shape[1];
  const size = x.data.length / channels;
  const y = new Float32Array(channels);
  for (let c = 0; c < channels; c++) {
    let sum = 0;
    for (let i = c * size; i < (c + 1) * size; i++) sum = f32(sum + x.data[i]);
    y[c] = f32(sum / size);
  }
  return y;
}

/** 1 / (1 + e ** -x), each of the three results rounded. @param {number} x @returns {number} */
export function sigmoid(x) {
  return f32(1 / f32(1 + f32(exp(-x))));
}

/** All inputs added, left to right. @type {Op} */
function add([first, ...others]) {
  const y = first.data.slice();
  for (const x of others) for (let i = 0; i < y.length; i++) y[i] = f32(y[i] + x.data[i]);
  return y;
}

/** The product with one factor per channel. @type {Op} */
function multiply([x, factors]) {
  const size = x.data.length / factors.data.length;
  return x.data.map((v, i) => f32(v * factors.data[Math.floor(i / size)]));
}

/** Every element scale x scale times. @type {Op} */
function upsample([x], _, { scale }, shape) {
  const [, channels, rows, columns] = shape;
  const [, , height, width] = x.shape;
  const y = new Float32Array(channels * rows * columns);
  for (let at = 0; at < y.length; at++) {
    const [c, i, j] = [Math.floor(at / (rows * columns)), Math.floor(at / columns) % rows, at % columns];
    y[at] = x.data[(c * height + Math.floor(i / scale)) * width + Math.floor(j / scale)];
  }
  return y;
}

/** Split attention: +0 + part 0 + part 1 + ... @type {Op} */
function radixSum([x], _, { radix }) {
  const size = x.data.length / radix;
  const y = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    let sum = 0;
    for (let r = 0; r < radix; r++) sum = f32(sum + x.data[r * size + i]);
    y[i] = sum;
  }
  return y;
}

/** Split attention: the parts, each times its attention, by fused multiply-adds from +0. @type {Op} */
function weightedSum([attention, x], _, { radix }) {
  const size = x.data.length / radix; // of a part
  const channels = attention.data.length / radix;
  const y = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    const c = Math.floor(i / (size / channels));
    let sum = 0;
    for (let r = 0; r < radix; r++) sum = fma32(attention.data[r * channels + c], x.data[r * size + i], sum);
    y[i] = sum;
  }
  return y;
}

/** Split attention: per channel a softmax over the parts (cardinality 1). @type {Op} */
function radixSoftmax([x], _, { radix }) {
  return softmax(x.data, radix, x.data.length / radix);
}

/**
 * e = exp(x - largest), s = +0 + e + e + ..., e / s, each rounded to float32. The parts of element i lie
 * `size` apart.
 * @param {Float32Array} x @param {number} parts @param {number} size @returns {Float32Array}
 */
export function softmax(x, parts, size) {
  const y = new Float32Array(x.length);
  for (let i = 0; i < size; i++) {
    let largest = x[i];
    for (let p = 1; p < parts; p++) largest = Math.max(largest, x[p * size + i]);
    let sum = 0;
    for (let p = 0; p < parts; p++) {
      const e = f32(exp(f32(x[p * size + i] - largest)));
      y[p * size + i] = e;
      sum = f32(sum + e);
    }
    for (let p = 0; p < parts; p++) y[p * size + i] = f32(y[p * size + i] / sum);
  }
  return y;
}
