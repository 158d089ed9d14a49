"""The frameworks' exp and logistic: their published steps in exact arithmetic, and their bits on record."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from refnet import ops
from refnet.frameworks import live
from refnet.kernels import formulas as kernels
from refnet.loops.libm import glibc, mlas, onednn, sleef
from tests.helpers.bits import AWKWARD, floats, same_bits
from tests.helpers.definition import round_float32
from tests.helpers.engines import FAST
from tests.helpers.formula_bits import digest


def points() -> np.ndarray:
    """float32 of all sizes, and both neighbours of every threshold that the functions have."""
    limits = np.array(
        [-104, -103.972, -88.37626, -87.33655, -87.68, 0, 18, -18, 88.72284, 88.77626, 100], np.float32
    )
    sizes = (floats((200,), "sizes").astype(np.float64) * 2.0 ** np.arange(-40, 10).repeat(4)).astype(
        np.float32
    )
    near = [np.nextafter(limits, np.float32(end), dtype=np.float32) for end in (-np.inf, np.inf)]
    found = np.concatenate([limits, *near, sizes, floats((400,), "usual") * np.float32(105)])
    return np.concatenate([found, AWKWARD[np.isfinite(AWKWARD)]])


# The published steps, each rounded once by integer arithmetic. e is None where a rule of its own decides.


def fl(value: Fraction) -> Fraction:
    """Rounded to float32 (finite)."""
    return Fraction(float(round_float32(value)))


def add(a: Fraction, b: Fraction, c: Fraction, fused: bool) -> Fraction:
    """a * b + c in float32."""
    return fl(a * b + c) if fused else fl(fl(a * b) + c)


def polynomial(coefficients: list[str] | list[float], r: Fraction, fused: bool) -> Fraction:
    """Horner, the leading coefficient first, each coefficient rounded to float32."""
    first, *rest = (fl(Fraction(float(np.float32(float(c))))) for c in coefficients)
    for c in rest:
        first = add(first, r, c, fused)
    return first


def nearest(value: Fraction) -> int:
    """The nearest integer, ties to even."""
    return round(value)


def sleef_exp(x: float) -> np.float32:
    if x < -104 or x > 100:
        return np.float32(0 if x < 0 else np.inf)
    v = Fraction(x)
    n = nearest(fl(v * fl(Fraction(1.4426950408889634))))
    r = add(Fraction(n), Fraction(-float(np.float32(0.693145751953125))), v, True)
    r = add(Fraction(n), Fraction(-float(np.float32(1.428606765330187045e-06))), r, True)
    c = [0.00019852761761285365, 0.0013930435525253415, 0.008333360776305199, 0.041666485369205475]
    u = polynomial([*c, 0.16666667163372040, 0.5], r, True)
    y = fl(1 + add(fl(r * r), u, r, True))
    return round_float32(y * Fraction(2) ** n)


def onednn_exp(x: float, fused: bool) -> np.float32:
    table = np.array([0x3F317218, 0x42B17218, 0xC2AEAC50, 0x3FB8AA3B], np.uint32).view(np.float32)
    ln2, highest, lowest, log2e = (Fraction(float(v)) for v in table)
    p = np.array([0x3C07CFCE, 0x3D2B9D0D, 0x3E2AAD40, 0x3EFFFEE3, 0x3F7FFFFB], np.uint32).view(np.float32)
    v = max(min(Fraction(x), highest), lowest)
    n = fl(fl(v * log2e) + Fraction(1, 2)).__floor__()
    r = add(Fraction(-n), ln2, v, fused)
    y = polynomial([*map(float, p), 1.0], r, fused)
    if Fraction(x) < lowest or n - 1 == -127:
        return np.float32(0)
    return round_float32(2 * fl(y * Fraction(2) ** (n - 1)))


def glibc_exp(x: float, fused: bool) -> np.float32:
    if x > float.fromhex("0x1.62e42ep6") or x < float.fromhex("-0x1.9fe368p6"):
        return np.float32(np.inf if x > 0 else 0)

    def mla(a: float, b: float, c: float) -> float:
        return float(Fraction(a) * Fraction(b) + Fraction(c)) if fused else a * b + c

    scale = float.fromhex("0x1.71547652b82fep+0") * 32
    k = int(mla(scale, x, 6755399441055744.0) - 6755399441055744.0)
    r = mla(scale, x, -float(k))
    coefficients = ("0x1.c6af84b912394p-5", "0x1.ebfce50fac4f3p-3", "0x1.62e42ff0c52d6p-1")
    c3, c2, c1 = (float.fromhex(c) / 32**n for c, n in zip(coefficients, (3, 2, 1), strict=True))
    y = mla(mla(c3, r, c2), r * r, mla(c1, r, 1.0))
    table = float(Fraction(glibc.TABLE.view(np.float64)[k % 32]))
    return np.float32(y * np.ldexp(table, k // 32))


def mlas_exp(x: float, avx512: bool) -> np.float32:
    lowest = float(np.float32(-103.9720840454 if avx512 else -88.3762626647949))
    v = Fraction(min(max(x, lowest), 90.0))
    m = int(fl(v * Fraction(float(np.float32(1.44269504088896341))) + 12582912) - 12582912)
    r = add(Fraction(m), Fraction(-float(np.float32(6.93145752e-1))), v, True)
    r = add(Fraction(m), Fraction(-float(np.float32(1.42860677e-6))), r, True)
    c = ("0x1.694000p-10", "0x1.125edcp-7", "0x1.555b5ap-5", "0x1.555450p-3", "0x1.fffff6p-2")
    y = polynomial([*map(float.fromhex, c), 1.0, 1.0], r, True)
    return np.float32(0) if m == -127 and not avx512 else round_float32(y * Fraction(2) ** m)


def mlas_logistic(x: float) -> np.float32:
    v = Fraction(max(min(x, 18.0), -18.0))
    s = fl(v * v)
    a = [4.37031012579801e-11, 1.15627324459942e-07, 6.08574864600143e-05, 8.51377133304701e-03]
    b = [6.10247389755681e-13, 5.76102136993427e-09, 6.29106785017040e-06, 1.70198817374094e-03]
    top = fl(polynomial([*a, 2.48287947061529e-01], s, True) * v)
    bottom = polynomial([*b, 1.16817656904453e-01, 9.93151921023180e-01], s, True)
    return round_float32(max(fl(fl(top / bottom) + Fraction(1, 2)), Fraction(0)))


DEFINITIONS = {
    "sleef": (sleef_exp, sleef.expf),
    "glibc": (lambda x: glibc_exp(x, True), lambda x: glibc.expf(x, True)),
    "glibc-unfused": (lambda x: glibc_exp(x, False), lambda x: glibc.expf(x, False)),
    "onednn": (lambda x: onednn_exp(x, True), lambda x: onednn.expf(x, True)),
    "onednn-unfused": (lambda x: onednn_exp(x, False), lambda x: onednn.expf(x, False)),
    "mlas-avx512": (lambda x: mlas_exp(x, True), lambda x: mlas.expf(x, True)),
    "mlas-avx2": (lambda x: mlas_exp(x, False), lambda x: mlas.expf(x, False)),
    "mlas-logistic": (mlas_logistic, mlas.logistic),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_published_steps_in_exact_arithmetic(name):
    define, compute = DEFINITIONS[name]
    every = points()
    for x in every[every <= 0] if name == "mlas-avx2" else every:  # only softmax uses it
        expected, found = define(float(x)), np.float32(compute(x))
        assert found.view(np.uint32) == np.float32(expected).view(np.uint32), (x, found, expected)


def test_the_table_of_glibc_is_correctly_rounded():
    """2**(i/32) > t, t the middle above or below, as 2**i against t**32."""
    for i, t in enumerate(glibc.TABLE.view(np.float64)):
        above = (Fraction(float(t)) + Fraction(float(np.nextafter(t, 9)))) / 2
        below = (Fraction(float(t)) + Fraction(float(np.nextafter(t, 0)))) / 2
        assert below**32 < 2**i < above**32 or (i == 0 and t == 1)


def test_what_the_functions_make_of_nan_and_infinity():
    x = np.array([np.nan, np.inf, -np.inf, -np.nan], np.float32)
    for whose in (kernels.SLEEF, kernels.GLIBC, kernels.GLIBC_UNFUSED):
        assert same_bits(kernels.exponential(x, whose, 1), np.float32([np.nan, np.inf, 0, np.nan]))
    for whose in (kernels.ONEDNN, kernels.ONEDNN_UNFUSED):
        assert same_bits(kernels.exponential(x, whose, 1), np.float32([np.inf, np.inf, 0, np.inf]))
    assert same_bits(kernels.exponential(x, kernels.MLAS_512, 1), np.float32([np.nan, np.inf, 0, np.nan]))
    for formula in ops.Sigmoid.formulas:
        assert same_bits(ops.Sigmoid().replay(formula, x, engine=FAST), np.float32([np.nan, 1, 0, np.nan])), (
            formula
        )


# Bits that were equal to a framework's on all inputs (docs/numerics.md), on every 4096th.

RECORDED = {
    "sigmoid sleef": "e0a3f9cd2e27297b",
    "sigmoid glibc": "3b9159cb686560be",
    "sigmoid glibc-unfused": "3b9159cb686560be",
    "sigmoid onednn": "123e246dae9695df",
    "sigmoid onednn-unfused": "2bb0a4af2612cfb6",
    "sigmoid mlas": "698ea62568eaf6b5",
    "softmax sleef-divide": "ae112c6603d56c8c",
    "softmax sleef-reciprocal": "3cf610743066a0ce",
    "softmax glibc-divide": "d6769a0e1d591214",
    "softmax glibc-reciprocal": "1c5fcb97a1200b93",
    "softmax onednn-avx512": "7c8262b096e737e5",
    "softmax onednn-avx2": "7c8262b096e737e5",
    "softmax onednn-sse41": "7d6e0b5905901299",
    "softmax mlas-avx512": "7335dc31448dc383",
    "softmax mlas-avx2": "829a4ab54362a755",
    "exp sleef": "6d31a020209b4be5",
    "exp glibc": "17a2bf10d205ffed",
    "exp glibc-unfused": "17a2bf10d205ffed",
    "exp mlas": "11bbfa6ed5abec59",
}


@pytest.mark.parametrize("key", RECORDED)
def test_bits_on_record(key):
    function, formula = key.split()
    assert digest(function, formula) == RECORDED[key]


def test_every_formula_is_on_record():
    assert set(RECORDED) == {
        f"{function} {name}" for function in ("sigmoid", "softmax", "exp") for name in live.formulas(function)
    }
