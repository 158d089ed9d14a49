"""The libraries' other functions of one float32, by name: expm1, log, log1p, tanh, erf, pow, GELU.

Each is in libm/, with its source. exp and the logistic function have names of their own in formulas.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.core.engine import F32
from refnet.loops.arrays import readonly
from refnet.loops.jit import njit
from refnet.loops.libm import eigen, fdlibm, glibc_log, onednn_gelu, sleef_pairs

NAMES = (
    *("sleef-expm1", "sleef-log1p", "sleef-tanh", "aten-erf", "onednn-gelu", "onednn-gelu-avx2"),
    *("eigen-exp", "eigen-log", "eigen-log1p"),
    *("glibc-expm1", "glibc-log", "glibc-log1p", "glibc-tanh", "glibc-erf", "glibc-pow", "sleef-log"),
)
SLEEF_EXPM1, SLEEF_LOG1P, SLEEF_TANH, ATEN_ERF, ONEDNN_GELU, ONEDNN_GELU_AVX2 = range(6)
EIGEN_EXP, EIGEN_LOG, EIGEN_LOG1P = range(6, 9)
GLIBC_EXPM1, GLIBC_LOG, GLIBC_LOG1P, GLIBC_TANH, GLIBC_ERF, GLIBC_POW = range(9, 15)


@njit
def evaluated(which: int, x: Any, a: float, b: float) -> Any:
    """The function NAMES[which] of x. a, b: exponent and whether it is odd, of glibc-pow."""
    if which == SLEEF_EXPM1:
        return sleef_pairs.expm1f(x)
    if which == SLEEF_LOG1P:
        return sleef_pairs.log1pf(x)
    if which == SLEEF_TANH:
        return sleef_pairs.tanhf(x)
    if which == ATEN_ERF:
        return onednn_gelu.erf(x)
    if which == ONEDNN_GELU:
        return onednn_gelu.gelu(x)
    if which == ONEDNN_GELU_AVX2:
        return onednn_gelu.gelu_avx2(x)
    if which == EIGEN_EXP:
        return eigen.expf(x)
    if which == EIGEN_LOG:
        return eigen.logf(x)
    if which == EIGEN_LOG1P:
        return eigen.log1pf(x)
    if which == GLIBC_EXPM1:
        return fdlibm.expm1f(x)
    if which == GLIBC_LOG:
        return glibc_log.logf(x, True)
    if which == GLIBC_LOG1P:
        return fdlibm.log1pf(x)
    if which == GLIBC_TANH:
        return fdlibm.tanhf(x)
    if which == GLIBC_ERF:
        return fdlibm.erff(x, True)
    if which == GLIBC_POW:
        return glibc_log.powf(x, np.float32(a), b, True)
    return sleef_pairs.logf(x)


def function_by(x: F32, name: str, *parameters: float) -> F32:
    """The named function of each element; any shape.

    >>> function_by(np.float32([0, 1]), "glibc-tanh")
    array([0.       , 0.7615942], dtype=float32)
    """
    y = np.empty(x.shape, np.float32)
    a, b = (*parameters, 0.0, 0.0)[:2]
    _function_by(NAMES.index(name), readonly(x).reshape(-1), a, b, y.reshape(-1))
    return y


@njit
def _function_by(which: int, x: Any, a: float, b: float, y: Any) -> None:
    for i in range(x.size):
        y[i] = evaluated(which, x[i], a, b)
