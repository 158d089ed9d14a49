"""The frameworks' own functions of one float32, step by step: each step is one operation of NumPy or an FMA.

Sources: ONNX Runtime, onnxruntime/core/mlas/lib: tanh.cpp, erf.cpp, x86_64/TanhKernelFma3.S, ErfKernelFma3.S
(steps, constants; the assembly cuts erf at 3.925) and contrib_ops' gelu; PyTorch,
aten/src/ATen/native/cpu/Activation.cpp; oneDNN's eltwise injector. docs/numerics.md says on which inputs each
was compared with the framework.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refnet.core.engine import F32, Engine

TANH_P = (
    *(-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08),
    *(1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03),
)
TANH_Q = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
ERF_NEAR = (-5.99104969e-4, 4.99339588e-3, -2.67667342e-2, 1.12818025e-1, -3.76124859e-1, 1.28379151e-1)
ERF_FAR = (
    *(1.72948930e-5, -3.83208680e-4, 3.88393435e-3, -2.42545605e-2, 1.06777847e-1, 6.34846687e-1),
    1.28717512e-1,
)
EXP = (1.38319808e-3, 8.37550033e-3, 4.16689515e-2, 1.66664466e-1, 4.99999851e-1, 1.0, 1.0)
LOWEST, LOG2_E, LN2_HIGH, LN2_LOW = -88.3762626647949, 1.44269504088896341, -6.93145752e-1, -1.42860677e-6
ROUND = 12582912.0
"""1.5 * 2**23: adding it rounds to the nearest integer."""

_F = np.float32


def horner(engine: Engine, t: F32, coefficients: Sequence[float]) -> F32:
    """c0 t**n + c1 t**(n - 1) + ..., one FMA per step; t (size,)."""
    y = np.full_like(t, coefficients[0])
    for c in coefficients[1:]:
        y = engine.fused_multiply_add(y, t, np.full_like(t, c))
    return y


def mlas_tanh(engine: Engine, x: F32) -> F32:
    """x P(x**2) / Q(x**2), x cut at 9; any shape."""
    flat = x.reshape(-1)
    v = np.where(flat < _F(-9), _F(-9), np.where(flat > _F(9), _F(9), flat))
    t = v * v
    y: F32 = horner(engine, t, TANH_P) * v / horner(engine, t, TANH_Q)
    return y.reshape(x.shape)


def mlas_erf(engine: Engine, x: F32) -> F32:
    """Up to 0.921875 |x| + |x| P(x**2), beyond it 1 - e ** -(|x| + |x| P(|x|)), |x| cut at 3.925; any
    shape."""
    flat = x.reshape(-1)
    a = np.minimum(np.abs(flat), _F(3.925))
    a[np.isnan(flat)] = 0
    near = engine.fused_multiply_add(horner(engine, a * a, ERF_NEAR), a, a)
    b = np.maximum(-engine.fused_multiply_add(horner(engine, a, ERF_FAR), a, a), _F(LOWEST))
    n = engine.fused_multiply_add(np.full_like(b, LOG2_E), b, np.full_like(b, ROUND)) - _F(ROUND)
    r = engine.fused_multiply_add(n, np.full_like(b, LN2_HIGH), b)
    r = engine.fused_multiply_add(n, np.full_like(b, LN2_LOW), r)
    e = horner(engine, r, EXP) * np.ldexp(np.ones_like(n), n.astype(np.int32))
    y = np.where(a > _F(0.921875), _F(1) - e, near)
    return np.where(np.isnan(flat), flat, np.copysign(y, flat)).astype(np.float32).reshape(x.shape)


def mlas_gelu(engine: Engine, x: F32, tanh: bool) -> F32:
    """(x/2) (f + 1), f = erf(x sqrt(1/2)) or tanh(x ((c x) x + s)) with c = 0.044715 s, s = sqrt(2/pi)."""
    if tanh:
        root = _F(0.7978845608028654)
        inner = x * (_F(0.044715 * 0.7978845608028654) * x * x + root)
        part = mlas_tanh(engine, inner)
    else:
        part = mlas_erf(engine, x * _F(0.70710678118654752))
    y: F32 = (_F(0.5) * x) * (part + _F(1))
    return y


def clipped(x: F32, low: float, high: float) -> F32:
    """min(max(x, low), high); NaN stays."""
    return np.where(x < low, _F(low), np.where(x > high, _F(high), x)).astype(np.float32)
