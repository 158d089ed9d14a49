/* float32 in JavaScript: rounding, bits, ulp, and a fused multiply-add, all exact. */

const FLOATS = new Float32Array(1);
const WORDS = new Uint32Array(FLOATS.buffer);
const DOUBLES = new Float64Array(1);
const HALVES = new Uint32Array(DOUBLES.buffer); // [low, high] on every machine that browsers run on

/**
 * The float32 nearest to a double; of two that are equally near, the one whose last bit is 0.
 *
 * One addition, subtraction, product, quotient or square root of float32 that is computed in double and then
 * rounded by this is what float32 arithmetic gives: a double has more than twice the digits.
 */
export const f32 = Math.fround;

/** The 32 bits of a float32, as an unsigned integer. @param {number} x @returns {number} */
export function bitsOf(x) {
  FLOATS[0] = x;
  return WORDS[0];
}

/** The float32 that has these bits. @param {number} bits @returns {number} */
export function ofBits(bits) {
  WORDS[0] = bits;
  return FLOATS[0];
}

/** The distance to the next float32 away from zero. @param {number} x @returns {number} */
export function ulp(x) {
  const exponent = (bitsOf(x) >>> 23) & 255;
  return 2 ** (Math.max(exponent, 1) - 150);
}

/**
 * a * b + c of three float32, rounded once.
 *
 * The product of two float32 is exact in double. Their sum with c may not be; then it is rounded to odd: of
 * the two doubles around the exact sum, the one whose last bit is 1. A double that ends in 1 is no midpoint
 * of two float32, so rounding it once more goes the way that the exact sum would go.
 * @param {number} a @param {number} b @param {number} c @returns {number}
 */
export function fma32(a, b, c) {
  const p = a * b;
  const s = p + c;
  const t = s - p;
  const e = p - (s - t) + (c - t);
  if (e !== 0 && s - s === 0) {
    DOUBLES[0] = s;
    if ((HALVES[0] & 1) === 0) {
      if (e > 0 === s > 0) {
        HALVES[0] |= 1; // away from zero: even + 1
      } else {
        HALVES[1] -= HALVES[0] === 0 ? 1 : 0;
        HALVES[0] -= 1; // towards zero
      }
      return f32(DOUBLES[0]);
    }
  }
  return f32(s);
}

/** Which float32 in ascending order this is, zero being 0: the difference of two is their distance in ulps.
 * @param {number} x @returns {number} */
export function place(x) {
  const bits = bitsOf(x);
  return bits >>> 31 ? -(bits & 0x7fffffff) : bits;
}
