/* Exact sums of products of float32, as integers that count in units of 2 ** -298. */

import { bitsOf } from "./float32.js";
import { bitLength, join } from "./float64.js";

export const UNIT = -298; // the product of two smallest float32 is one unit

/** A float32 as an integer times 2 ** -149. @param {number} x @returns {bigint} */
function whole(x) {
  const bits = bitsOf(x);
  const exponent = (bits >>> 23) & 255;
  const mantissa = BigInt((bits & 0x7fffff) | (exponent ? 0x800000 : 0)) << BigInt(Math.max(exponent, 1) - 1);
  return bits >>> 31 ? -mantissa : mantissa;
}

/** A finite float32 in units. @param {number} x @returns {bigint} */
export function units(x) {
  return whole(x) << 149n;
}

/** The product of two float32 in units. @param {number} a @param {number} b @returns {bigint} */
export function product(a, b) {
  return whole(a) * whole(b);
}

/** The nearest double. @param {bigint} n @returns {number} */
export function toNumber(n) {
  return join(n, UNIT);
}

/**
 * n / divisor, n in units, rounded to float32 once: what refnet calls golden.
 * @param {bigint} n @param {number} [divisor] @returns {number}
 */
export function nearest(n, divisor = 1) {
  if (n === 0n) return 0;
  const size = n < 0n ? -n : n;
  const by = BigInt(divisor);
  // The quotient as m * 2 ** e with 24 bits in m; fewer if it is subnormal.
  let e = Math.max(bitLength(size) - bitLength(by) + UNIT - 24, -149);
  for (;;) {
    const shift = UNIT - e;
    const [top, bottom] = shift < 0 ? [size, by << BigInt(-shift)] : [size << BigInt(shift), by];
    let m = top / bottom;
    const rest = 2n * (top - m * bottom);
    if (rest > bottom || (rest === bottom && m & 1n)) m += 1n;
    if (m <= 1n << 24n) {
      const value = e > 104 ? Infinity : Number(m) * 2 ** e;
      return Math.fround(n < 0n ? -value : value);
    }
    e += 1;
  }
}

/**
 * n / divisor in decimal, with so many digits; n in units.
 * @param {bigint} n @param {number} digits @param {number} [divisor] @returns {string}
 */
export function decimal(n, digits, divisor = 1) {
  if (n === 0n) return "0";
  const size = n < 0n ? -n : n;
  const by = BigInt(divisor) << BigInt(-UNIT);
  let power = Math.floor(Math.log10(Math.abs(toNumber(n)) / divisor));
  let text = "";
  for (let tries = 0; tries < 3; tries++) {
    const places = digits - 1 - power; // digits behind the point
    const scaled = places >= 0 ? size * 10n ** BigInt(places) : size / 10n ** BigInt(-places);
    text = ((2n * scaled + by) / (2n * by)).toString();
    if (text.length === digits) break;
    power += text.length - digits;
  }
  const sign = n < 0n ? "−" : "";
  if (power >= 0 && power < digits) return sign + point(text, power + 1);
  if (power < 0 && power > -6) return `${sign}0.${"0".repeat(-power - 1)}${text}`;
  return `${sign}${point(text, 1)} · 10${raised(power)}`;
}

/** @param {string} text @param {number} at @returns {string} */
function point(text, at) {
  return at < text.length ? `${text.slice(0, at)}.${text.slice(at)}` : text;
}

/** An exponent in raised digits. @param {number} n @returns {string} */
export function raised(n) {
  return [...String(n)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)])).join("");
}
