"""The float64 evaluation of each formula lies within the error it claims, and refining gives the same bits.

For the ops whose golden value is their own formula's: normalisations, norms, products, logarithms, responses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pytest

from refnet.core.exact import Refine
from refnet.core.op import F32, F64
from refnet.exact.engine import DecideOrRefine
from tests.helpers.bits import same_bits
from tests.helpers.definition import round_float32
from tests.helpers.engines import FAST
from tests.ops.test_ops_rules import EXAMPLES, Example, arguments

F = np.float32
OWN = [e for e in EXAMPLES if type(e.op).__module__.split(".")[-1] in ("normalised", "logarithms", "lrn")]
OWN += [e for e in EXAMPLES if type(e.op).__name__ in ("ReduceL2", "ReduceProd", "LpNorm")]
EVERY = pytest.mark.parametrize("example", OWN, ids=[repr(e.op) for e in OWN])


@dataclass(frozen=True)
class Watched(DecideOrRefine):
    """Notes what is to be rounded, and refines everything."""

    seen: list[tuple[F64, F64]] = field(default_factory=list)

    def round_or_refine(self, op: str, center: F64, error: F64, refine: Refine) -> F32:
        self.seen.append((np.array(center), np.broadcast_to(error, np.shape(center)).copy()))
        return super().round_or_refine(op, center, np.where(np.isfinite(center), np.inf, 0.0), refine)


def variants(example: Example) -> list[list[np.ndarray]]:
    """Ordinary data; large, small and far from 0; some elements equal."""
    values = arguments(example)
    x = values[0]
    found = [values, *([F(s) * x, *values[1:]] for s in (30, 1e-20, 1e15))]
    found.append([x * F(1e-3) + F(1000), *values[1:]])
    found.append([np.round(x * 2) / F(2) + F(2), *values[1:]])
    return found


@EVERY
def test_claims_hold(example):
    """Flat places of the evaluation are those of the value, but where an axis is moved last."""
    axis = getattr(example.op, "axis", None)
    moved = type(example.op).__name__ in ("LogSoftmax", "LpNorm") and not getattr(
        example.op, "trailing", False
    )
    for values in variants(example):
        exact = Watched(FAST)
        y = example.op.golden(*values, exact=exact)
        ((center, error),) = exact.seen
        places = np.arange(y.size).reshape(y.shape)
        places = np.moveaxis(places, axis, -1) if moved else places
        for flat, place in enumerate(places.reshape(-1)):
            at = tuple(map(int, np.unravel_index(place, y.shape)))
            c, e = float(center.reshape(-1)[flat]), float(error.reshape(-1)[flat])
            true = example.exact(example.op, at, *values)
            assert same_bits(y[at], round_float32(true, float(y[at]))), (at, "refined")
            if np.isfinite(e):
                slack = Fraction(1, 10**50) * (abs(true) + 1)  # the oracle's own
                assert abs(true - Fraction(c)) <= Fraction(e) + slack, (at, float(abs(true - Fraction(c))), e)
        wide = np.isfinite(error) & (center != 0)
        assert not wide.any() or (error[wide] / np.abs(center[wide])).min() < 2.0**-30, "claims too much"
