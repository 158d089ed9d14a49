"""How far a float32 normalisation of rows may lie from the exact one, by whatever formula."""

from __future__ import annotations

import math

import numpy as np

from refnet.core.op import F64, Interval
from refnet.core.rounding import ETA, U, gamma, outward


def normalised_bound(
    x: Interval, scale: Interval, shift: Interval | None, eps: float, centred: bool
) -> Interval:
    """Bound of y = (x - m) / s * scale + shift, with s = sqrt(v + eps), over the rows of x (rows, n).

    centred: m is the row's mean and v the mean of (x - m)**2; otherwise m = 0 and v is the mean of x**2.
    scale, shift: (rows, n). Covered are, with or without FMA, with eps rounded to float32 or not:

    1. m: any order of the sum, divided or multiplied by a rounded 1/n; Welford's m += (x - m) / k; merges of
       parts, m = m1 + (m2 - m1) * n2 / (n1 + n2), in which at most 1 + log2(n) are of a larger into a smaller
       part (PyTorch's cascade).
    2. v: the mean of (x - m)**2; the mean of x**2 minus m**2; Welford's sum of (x - m)(x - m'); merges.
    3. y: (x - m) / s * scale + shift, with 1/s multiplied instead; (x - m) * (scale / s) + shift;
       x * a + (shift - m * a) with a = scale / s.

    **m.** A sum is off by gamma(n + 1) mean|x|. In Welford's form and in merges a part of k terms, whose |x|
    sum to A, is given a local error of at most U |m| + 3 U |x - m| / k, or U |m| + 4 U (A / k) where a part
    is merged into one not smaller. Times k these add up to U A for each step that a term passes, and
    3 U (|x| + A / k): f(k) U A with f(k) = k + 6 + 3 ln k in a chain, 4 U A per level of merges. Both are
    below gamma(2 n + 8) mean|x|. A merge of a larger into a smaller part has the local error 4 U max|x|. So
    m is off by e = gamma(2 n + 8) mean|x| + gamma(4 (1 + log2 n)) max|x| + (n + 1) ETA.

    **v.** (x - m)**2 sums to n v + n e**2: the first form is off by gamma(n + 5) v + (1 + gamma) e**2. The
    second by gamma(n + 9) E + 2 |m| e + e**2 + gamma(2) (|m| + e)**2 with E = mean of x**2. In the third, the
    means are off by e_k; a term by |e_(k-1)| |x - m_k| + |e_k| |x - m_(k-1)| + |e_(k-1) e_k|. The squares of
    the differences sum to n v and 2 n v at most, as (x - m_(k-1))**2 (k - 1) / k sums to n v; and
    k (A / k)**2 <= n E, so e_k**2 sums to U**2 n E W**2 with W**2 = sum of f(k)**2 / k. Merges add
    min(n1, n2) (e1 + e2)**2, and their (m2 - m1)**2 n1 n2 / (n1 + n2) sum to n v. Altogether the third form
    is off by gamma(n + 9) v + (1 + sqrt(2)) U W sqrt(v E) + (U W)**2 E, where
    W**2 = 0.65 n**2 + 61 n + 2 L (10 + 4 L)**2, L = log2 n, holds for chains, merges and both
    (tests/ops/test_normalised.py adds them up). The largest of the three is taken, and (n + 2) ETA for
    products that underflow.

    **s.** q = v + eps is then q (1 + d), |d| <= R = (that + max(U eps, ETA / 2)) / q (1 + 2 U) + U, and 1/s
    grows by at most K = 1 / sqrt(1 - R) - 1. From R = 1 on, or where q (1 - R) is subnormal, there is no
    bound: the second form may find 0 or less under the root.

    **y.** |x - m| |scale| / s is off by K; what passes the root, the division and two more roundings of 1/s,
    two products and two sums by gamma(8), relative to (|x| + |m| + e) |scale| / s in the last form; e moves y
    by e |scale| / s. Underflow: (|x| + |m| + |scale| + 4) ETA.

    **Inputs in radii r.** m moves by mean(r) at most; s by the root of mean(r**2), since centring is a
    projection and the root is a norm divided by sqrt(n); and s never falls below sqrt(eps).

    This evaluation is the first of these forms, in float64, so it is off by 2**-29 of their error. The forms:
    Chan, Golub, LeVeque, "Algorithms for computing the sample variance", The American Statistician 37, 1983.
    """
    n = x.center.shape[1]
    with np.errstate(all="ignore"):
        size = x.magnitude
        most, mean_abs, e2 = (_kept(a) for a in (size.max(1), size.mean(1), np.square(size).mean(1)))
        m = _kept(x.center.mean(1)) if centred else np.zeros_like(most)
        moved = _kept(x.radius.mean(1)) if centred else np.zeros_like(most)
        d, v = x.center - m, _kept(np.square(x.center - m).mean(1))
        s = np.sqrt(v + eps)
        wider = np.sqrt(_kept(np.square(x.radius).mean(1)))
        low = np.maximum(s - wider, math.sqrt(eps))
        t = d / s
        t_moved = (x.radius + moved) / low + np.where(wider > 0, np.abs(d) * (wider / (s * low)), 0.0)
        weight, m_size = scale.magnitude, np.abs(m) + moved
        spread = t_moved * weight + np.abs(t) * scale.radius
        e = np.zeros_like(most)
        if centred:
            e = gamma(2 * n + 8) * mean_abs + gamma(4 * (1 + math.log2(n))) * most + (n + 1) * ETA
        v_most = np.square(np.sqrt(v) + wider)
        off = _variance_error(n, v_most, e2, m_size, e) if centred else gamma(n + 5) * e2
        q = np.square(low)
        relative = (off + (n + 2) * ETA + max(U * eps, ETA / 2)) / q * (1 + 2 * U) + U
        k = 1 / np.sqrt(1 - relative) - 1
        k = np.where(q * (1 - relative) >= 2.0**-126, k * (1 + 2.0**-50) + 2.0**-50, np.nan)
        g, per = gamma(8), weight / low
        sizes = size + m_size
        radius = spread + (k * (1 + g) * (np.abs(d) + x.radius + moved) + g * (1 + k) * (sizes + e)) * per
        radius = radius + (1 + k) * (1 + g) * e * per + (sizes + e + weight + 4) * ETA
        total = (1 + k) * (sizes + e) * per
        center = t * scale.center
        if shift is not None:
            center = center + shift.center
            radius = radius + shift.radius + gamma(2) * shift.magnitude
            total = total + shift.magnitude
        middle = (sizes + e) / low + weight / low
        largest = np.maximum(4 * n * np.square(most) + n * mean_abs, total + (1 + k) * middle)
        return outward(center, radius * (1 + 2.0**-27), largest + 0 * center, n + 10)


def _variance_error(n: int, v: F64, e2: F64, m: F64, e: F64) -> F64:
    """How far v may be off; see `normalised_bound`."""
    levels = math.log2(n)
    w = U * math.sqrt(0.65 * n * n + 61 * n + 2 * levels * (10 + 4 * levels) ** 2)
    two_pass = gamma(n + 5) * v + (1 + gamma(n + 5)) * np.square(e)
    one_pass = gamma(n + 9) * e2 + 2 * m * e + np.square(e) + gamma(2) * np.square(m + e)
    welford = gamma(n + 9) * v + (1 + math.sqrt(2)) * w * np.sqrt(v * e2) + w * w * e2
    found: F64 = np.maximum(np.maximum(two_pass, one_pass), welford)
    return found


def _kept(row: F64) -> F64:
    """(rows,) -> (rows, 1)."""
    return row[:, None]
