"""Softplus, mish, GELU, ELU and powers as PyTorch and ONNX Runtime compute them: each step is one rounding.

    sleef          PyTorch's vectors: SLEEF's functions
    glibc          PyTorch's elements that fill no pair of vectors, one by one, and its code without AVX2
    onednn         PyTorch's GELU with erf
    eigen          ONNX Runtime: Eigen's functions, four elements at a time
    eigen-glibc    ONNX Runtime: what fills no four, one by one

Sources: PyTorch, aten/src/ATen/native/cpu: Activation.cpp, Gelu.h, Elu.h, PowKernel.cpp; ONNX Runtime,
onnxruntime/core/providers/cpu/activation/activations.h and math/element_wise_ops.cc. The functions are in
loops/libm. docs/numerics.md says on which inputs each was compared with the framework.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from refnet.core.engine import F32, Engine
from refnet.ops import libraries

if TYPE_CHECKING:
    from refnet.ops.activations import Elu

SOFTPLUS = {
    "sleef": "log1p(exp(x)) by SLEEF, x above 20 (PyTorch with AVX2 or AVX-512)",
    "glibc": "log1p(exp(x)) by glibc, x above 20 (PyTorch one by one)",
    "eigen": "max(x, 0) + log1p(exp(-|x|)) by Eigen (ONNX Runtime)",
    "eigen-glibc": "as eigen, by glibc (ONNX Runtime one by one)",
}
MISH = {
    "sleef": "x tanh(log1p(exp(x))) by SLEEF (PyTorch with AVX2 or AVX-512)",
    "glibc": "x tanh(log1p(exp(x))) by glibc (PyTorch one by one)",
    "eigen": "x tanh(softplus), softplus by eigen, tanh by MLAS (ONNX Runtime)",
    "eigen-glibc": "as eigen, softplus by eigen-glibc (ONNX Runtime one by one)",
}
GELU = {
    "onednn": "x (1 + p(|x|)) / 2, polynomials of degree 5 (PyTorch with AVX-512)",
    "onednn-avx2": "s + s (1 - e t r(t)), s = x/2, t = 1 / (1 + T |x|), e oneDNN's exp (PyTorch with AVX2)",
    "sleef": "x/2 (1 + f), f = that of onednn-avx2 with SLEEF's exp, or SLEEF's tanh (PyTorch's vectors)",
    "glibc": "x/2 (1 + f), f = glibc's erf or tanh, with FMA (PyTorch one by one)",
    "glibc-unfused": "as glibc, the sum in the tanh without FMA (PyTorch without AVX2)",
    "mlas": "(x/2) (f + 1), f = MLAS's erf(x sqrt(1/2)) or tanh(x ((c x) x + s)) (ONNX Runtime with FMA)",
}
OF_SIMPLE_ELU = ("eigen-zero", "eigen-zero-glibc", "onednn", "onednn-unfused")
"""With scale and width 1; with others the first two would be eigen and eigen-glibc."""
ERF_ONLY = ("onednn", "onednn-avx2")
TANH_ONLY = ("glibc-unfused",)
ELU = {
    "sleef": "scale x, or (scale alpha) expm1((1 / width) x) by SLEEF (PyTorch with AVX2 or AVX-512)",
    "glibc": "as sleef, by glibc (PyTorch one by one)",
    "eigen": "scale x, or (scale alpha) (exp(x / width) - 1) by Eigen (ONNX Runtime)",
    "eigen-glibc": "as eigen, by glibc (ONNX Runtime one by one)",
    "eigen-zero": "as eigen, +0 of -0 where alpha = 1 or gamma = 1, too (ONNX Runtime's Celu and Selu)",
    "eigen-zero-glibc": "as eigen-zero, by glibc (ONNX Runtime's Celu and Selu one by one)",
    "onednn": "alpha (e - 1), e = oneDNN's exp(x) (MXNet's LeakyReLU act_type=elu with FMA)",
    "onednn-unfused": "as onednn, without FMA",
}
POWER = {
    "products": "x x x, 1 / (x x), 1 / x, 1 / sqrt(x) (PyTorch; ONNX Runtime the first)",
    "glibc": "glibc's powf with FMA (ONNX Runtime)",
}
PRODUCTS = (3.0, -2.0, -1.0, -0.5)
"""The exponents of which a framework makes products and quotients."""

_F = np.float32
ZERO, HALF, ONE = _F(0), _F(0.5), _F(1)


def _exp(engine: Engine, formula: str, x: F32) -> F32:
    if formula in ("eigen", "eigen-zero"):
        return engine.function_by(x, "eigen-exp")
    return engine.exponential_by(x, "glibc" if formula.endswith("glibc") else formula)


def softplus(engine: Engine, formula: str, x: F32) -> F32:
    """One of SOFTPLUS; any shape."""
    if not formula.startswith("eigen"):
        y = engine.function_by(_exp(engine, formula, x), f"{formula}-log1p")
        return np.where(x > _F(20), x, y)
    positive = x > ZERO
    small = _exp(engine, formula, np.where(positive, -x, x))
    log = engine.function_by(small, "eigen-log1p" if formula == "eigen" else "glibc-log1p")
    return np.where(positive, x + log, log)


def mish(engine: Engine, formula: str, x: F32) -> F32:
    """One of MISH; any shape."""
    if formula.startswith("eigen"):
        return x * libraries.mlas_tanh(engine, softplus(engine, formula, x))
    log = engine.function_by(_exp(engine, formula, x), f"{formula}-log1p")
    return x * engine.function_by(log, f"{formula}-tanh")


def gelu(engine: Engine, formula: str, x: F32, tanh: bool) -> F32:
    """One of GELU; any shape."""
    if formula == "mlas":
        return libraries.mlas_gelu(engine, x, tanh)
    if formula in ERF_ONLY:
        return engine.function_by(x, formula.replace("onednn", "onednn-gelu"))
    if not tanh:
        name = "aten-erf" if formula == "sleef" else "glibc-erf"
        return x * HALF * (ONE + engine.function_by(x * _F(math.sqrt(0.5)), name))
    kappa, cube = np.full_like(x, 0.044715), x * x * x
    if formula == "glibc-unfused":
        inner = x + kappa * cube
    else:
        inner = engine.fused_multiply_add(*(a.reshape(-1) for a in (kappa, cube, x))).reshape(x.shape)
    name = "sleef-tanh" if formula == "sleef" else "glibc-tanh"
    return HALF * x * (ONE + engine.function_by(_F(math.sqrt(2 / math.pi)) * inner, name))


def elu(engine: Engine, formula: str, x: F32, op: Elu) -> F32:
    """One of ELU; any shape. Of -0 ONNX Runtime's Elu makes -0, its Selu and Celu, and oneDNN, +0."""
    alpha, scale, width = _F(op.alpha), _F(op.scale), _F(op.width)
    if formula in ("sleef", "glibc"):
        below = engine.function_by(x * _F(1 / op.width), f"{formula}-expm1") * (alpha * scale)
        return np.where((x >= ZERO) | np.isnan(x), x * scale, below)
    below = (scale * alpha) * (_exp(engine, formula, x / width) - ONE)
    zero = formula in ("eigen", "eigen-glibc") and scale == width == 1
    return np.where((x > ZERO) | np.isnan(x) | (zero & (x == ZERO)), x * scale, below)


def power(engine: Engine, formula: str, x: F32, exponent: float, odd: float) -> F32:
    """One of POWER; any shape."""
    if formula == "glibc":
        return engine.function_by(x, "glibc-pow", exponent, odd)
    if exponent == 3:
        return x * x * x
    below: F32 = np.sqrt(x) if exponent == -0.5 else x * x if exponent == -2 else x
    return ONE / below
