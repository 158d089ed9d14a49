/* What refnet's exp needs: a float64 fused multiply-add, exact by integers, and exp itself. */

const ONE = new Float64Array(1);
const PAIR = new BigUint64Array(ONE.buffer);
const MANTISSA = (1n << 52n) - 1n;

/**
 * A finite double as an integer times a power of two.
 * @param {number} x @returns {[bigint, number]}
 */
export function split(x) {
  ONE[0] = x;
  const bits = PAIR[0];
  const exponent = Number((bits >> 52n) & 2047n);
  const whole = (bits & MANTISSA) | (exponent ? 1n << 52n : 0n);
  return [bits >> 63n ? -whole : whole, Math.max(exponent, 1) - 1075];
}

/** How many bits a positive integer has. @param {bigint} n @returns {number} */
export function bitLength(n) {
  const text = n.toString(16);
  return 4 * text.length - Math.clz32(parseInt(text[0], 16)) + 28;
}

/**
 * An integer times a power of two as the nearest double, ties to even.
 * @param {bigint} whole @param {number} exponent @returns {number}
 */
export function join(whole, exponent) {
  if (whole === 0n) return 0;
  const size = whole < 0n ? -whole : whole;
  const length = bitLength(size);
  const cut = Math.max(length - 53, -1074 - exponent, 0); // how many low bits a double has no room for
  let kept = size >> BigInt(cut);
  const rest = size - (kept << BigInt(cut));
  const half = cut > 0 ? 1n << BigInt(cut - 1) : 1n;
  if (cut > 0 && (rest > half || (rest === half && kept & 1n))) kept += 1n;
  const value = scale(Number(kept), exponent + cut);
  return whole < 0n ? -value : value;
}

/** x * 2 ** n, in two factors so that neither leaves the range. @param {number} x @param {number} n @returns {number} */
export function scale(x, n) {
  const first = Math.trunc(n / 2);
  return x * power(first) * power(n - first);
}

/** 2 ** n for a normal result, made from its bits. @param {number} n @returns {number} */
function power(n) {
  PAIR[0] = BigInt(n + 1023) << 52n;
  return ONE[0];
}

/**
 * a * b + c of three doubles, rounded once: computed in integers.
 * @param {number} a @param {number} b @param {number} c @returns {number}
 */
export function fma64(a, b, c) {
  const [am, ae] = split(a);
  const [bm, be] = split(b);
  const [cm, ce] = split(c);
  const low = Math.min(ae + be, ce);
  const sum = ((am * bm) << BigInt(ae + be - low)) + (cm << BigInt(ce - low));
  return sum === 0n ? a * b + c : join(sum, low); // an exact zero has the sign that IEEE 754 gives it
}

const LOG2_E = 1.4426950408889634;
const LN2_HIGH = 0.6931471805582987; // the leading 36 bits of ln 2: n * LN2_HIGH is exact
const LN2_LOW = 1.6465949582897082e-12; // ln 2 - LN2_HIGH, rounded
const SHIFT = 6755399441055744; // 1.5 * 2 ** 52: adding it rounds to the nearest integer
const INVERSE_FACTORIALS = (() => {
  const found = [1];
  let factorial = 1;
  for (let i = 1; i < 14; i++) found.push(1 / (factorial *= i));
  return found;
})();

/**
 * e ** x, with refnet's bits (refnet/loops/functions.py): x = n ln 2 + r, the Taylor series of exp(r), 2 ** n.
 *
 * The mathematics library's Math.exp differs between browsers in its last bit; this one does not.
 * @param {number} x @returns {number}
 */
export function exp(x) {
  if (Number.isNaN(x)) return x;
  if (x > 128) return Infinity;
  if (x < -128) return 0;
  const n = x * LOG2_E + SHIFT - SHIFT;
  const r = fma64(-n, LN2_LOW, fma64(-n, LN2_HIGH, x));
  let y = INVERSE_FACTORIALS[13];
  for (let i = 12; i >= 0; i--) y = fma64(y, r, INVERSE_FACTORIALS[i]);
  return scale(y, n);
}
