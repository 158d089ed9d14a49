"""LogSoftmax as PyTorch and ONNX Runtime compute it: (x - m) - log s, s the sum of exp(x - m).

Sources: PyTorch, aten/src/ATen/native/cpu/LogSoftmaxKernelImpl.h; ONNX Runtime, onnxruntime/core/mlas/lib:
compute.cpp. The functions are in loops/libm.
"""

from __future__ import annotations

from refnet.core.engine import F32, Engine
from refnet.core.orders import Expr

LOG_SOFTMAX_FORMULAS = {
    "sleef": "SLEEF's expf and logf (PyTorch with AVX2 or AVX-512)",
    "glibc": "glibc's expf and logf with FMA (PyTorch without AVX2)",
    "mlas": "MLAS's exp, glibc's logf with FMA (ONNX Runtime)",
}


def log_softmax_by(formula: str, rows: F32, engine: Engine, total: Expr | None) -> F32:
    """One of LOG_SOFTMAX_FORMULAS; rows (rows, terms). total: the sum's order, None: from left to right."""
    e = engine.exponentials(rows, "mlas-avx512" if formula == "mlas" else formula, 0)
    if total is None:
        s = e[:, 0].copy()
        for column in e.T[1:]:
            s += column
    else:
        s = engine.row_sums(e, total)
    log = engine.function_by(s, "sleef-log" if formula == "sleef" else "glibc-log")
    y: F32 = (rows - rows.max(1, keepdims=True)) - log[:, None]
    return y
