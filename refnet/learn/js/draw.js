/* Elements, numbers in words, bits, pictures of values: what the chapters draw with. */

import { bitsOf, f32 } from "./float32.js";
import { raised } from "./exact.js";

/** The element of the page with this id. @param {string} id @returns {any} */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element ${id}`);
  return found;
}

/**
 * A new element. Attributes whose value is false or undefined are left out.
 * @param {string} name @param {Record<string, any>} [attributes] @param {...(Node | string)} children @returns {any}
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children);
  return made;
}

/** The same for SVG. @param {string} name @param {Record<string, any>} attributes @param {...(Node | string)} children @returns {SVGElement} */
export function svg(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.append(...children);
  return made;
}

/** The shortest decimal that names this float32 and no other. @param {number} x @returns {string} */
export function shortest(x) {
  if (!Number.isFinite(x) || x === 0) return Object.is(x, -0) ? "−0" : signed(String(x));
  for (let digits = 1; digits < 9; digits++) {
    if (f32(Number(x.toPrecision(digits))) === x) return readable(Number(x.toPrecision(digits)));
  }
  return readable(Number(x.toPrecision(9)));
}

/** A number with few digits. @param {number} x @param {number} [digits] @returns {string} */
export function brief(x, digits = 3) {
  return readable(Number(x.toPrecision(digits)));
}

/** @param {number} x @returns {string} */
function readable(x) {
  const text = Math.abs(x) < 1e-5 || Math.abs(x) >= 1e9 ? x.toExponential() : String(x);
  const [mantissa, exponent] = text.split("e");
  return signed(mantissa) + (exponent && x !== 0 ? ` · 10${raised(Number(exponent))}` : "");
}

/** With a minus sign for a hyphen. @param {string} text @returns {string} */
function signed(text) {
  return text.replace("-", "−");
}

/**
 * The 32 bits, in three groups: sign, exponent, mantissa. Those that another number has otherwise are marked.
 * @param {number} x @param {number} [other] @returns {HTMLElement}
 */
export function bits(x, other = x) {
  const [text, base] = [x, other].map((one) => bitsOf(one).toString(2).padStart(32, "0"));
  const hex = bitsOf(x).toString(16).padStart(8, "0");
  const changed = [...text].filter((bit, i) => bit !== base[i]).length;
  const group = (/** @type {string} */ name, /** @type {number} */ from, /** @type {number} */ to) =>
    element("i", { class: name }, ...(changed
      ? [...text.slice(from, to)].map((bit, i) => (bit === base[from + i] ? bit : element("u", {}, bit)))
      : [text.slice(from, to)]));
  return element(
    "code",
    { class: "bits", title: `0x${hex}`, role: "img", "aria-label": `bits ${hex} in hexadecimal${changed ? `, ${changed} of them changed` : ""}` },
    group("sign", 0, 1), group("exponent", 1, 9), group("mantissa", 9, 32),
  );
}

const STEPS = 256; // of a colour's strength, each way

/** Colours from blue over the ground to orange, as a canvas keeps them: 2 * STEPS + 1 of red, green, blue, alpha. @param {boolean} dark */
function shades(dark) {
  const ground = dark ? [32, 36, 44] : [247, 245, 240];
  const [below, above] = dark ? [[110, 168, 255], [255, 176, 84]] : [[24, 78, 168], [196, 84, 0]];
  const made = new Uint8ClampedArray(4 * (2 * STEPS + 1));
  for (let i = -STEPS; i <= STEPS; i++) {
    const end = i < 0 ? below : above;
    made.set([...ground.map((g, k) => g + (Math.abs(i) / STEPS) * (end[k] - g)), 255], 4 * (i + STEPS));
  }
  return made;
}

const LIGHT = new Uint32Array(shades(false).buffer);
const DARK = new Uint32Array(shades(true).buffer);
const scheme = matchMedia("(prefers-color-scheme: dark)");

/**
 * Paints numbers into a canvas, one pixel each; NaN stays empty.
 * @param {HTMLCanvasElement} canvas @param {ArrayLike<number>} data @param {number} width @param {number} height
 * @param {number} largest what gets the full colour
 */
export function paint(canvas, data, width, height, largest) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const colours = scheme.matches ? DARK : LIGHT;
  const size = Math.min(data.length, pixels.length);
  for (let i = 0; i < size; i++) {
    const share = largest ? data[i] / largest : 0;
    if (share - share === 0) pixels[i] = colours[STEPS + Math.sign(share) * Math.round(STEPS * Math.sqrt(Math.min(Math.abs(share), 1)))];
  }
  context.putImageData(image, 0, 0);
}

/** The largest absolute value. @param {ArrayLike<number>} data @returns {number} */
export function largestOf(data) {
  let found = 0;
  for (let i = 0; i < data.length; i++) found = Math.max(found, Math.abs(data[i]));
  return found;
}

/**
 * Channel, rows and columns as pictures: a value of one pixel per channel is one picture of all channels.
 * @param {number[]} shape @returns {{maps: number, width: number, height: number}}
 */
export function layout(shape) {
  const [, channels, height = 1, width = 1] = shape;
  if (height * width > 1) return { maps: channels, width, height };
  const across = Math.min(channels, 16);
  return { maps: 1, width: across, height: Math.ceil(channels / across) };
}

/** Where an element lies, in words. @param {number[]} shape @param {number} at @returns {string} */
export function where(shape, at) {
  const [, , rows = 1, columns = 1] = shape;
  const size = rows * columns;
  if (size === 1) return `channel ${at}`;
  return `channel ${Math.floor(at / size)}, row ${Math.floor(at / columns) % rows}, column ${at % columns}`;
}
