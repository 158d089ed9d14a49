"""Powers whose exponents differ, or are computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.element import Derivation, Index
from refnet.core.engine import Engine
from refnet.core.exact import Exact
from refnet.core.op import F32, Interval
from refnet.ops.function import ASSUMED
from refnet.ops.functions import Power
from refnet.ops.pointwise import _Two

Array = npt.NDArray[Any]


@dataclass(frozen=True, repr=False)
class Pow(_Two):
    """y = a ** b, where a dimension of size 1 stretches to the other's (NumPy broadcasting)

    a ** 0 is 1 and a ** 1 is a, for every a; with NaN and infinities as IEEE 754's pow: 1 ** b is 1, and an
    infinite b gives 0, 1 or infinity.

    Plain, golden, bound: those of Power, for each exponent that there is. An exponent that is not known to
    the last bit has no bound.

    Source: ONNX Pow, torch.pow.
    """

    swapped: bool = False

    assumption: ClassVar[str] = ASSUMED

    @property
    def exactly_specified(self) -> bool:
        return False

    def _sides(self, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        """a and b."""
        return (inputs[1], inputs[0]) if self.swapped else (inputs[0], inputs[1])

    def run(self, *inputs: F32, engine: Engine) -> F32:
        y, parts = self._parts(inputs)
        for places, x, power in parts:
            y[places] = power.run(x, engine=engine)
        return y.reshape(self._shape(inputs))

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        y, parts = self._parts(inputs)
        for places, x, power in parts:
            y[places] = power.golden(x, exact=exact)
        return y.reshape(self._shape(inputs))

    def _shape(self, inputs: tuple[Array, ...]) -> tuple[int, ...]:
        return np.broadcast_shapes(*(x.shape for x in inputs))

    def _parts(self, inputs: tuple[F32, ...]) -> tuple[F32, Iterator[tuple[Array, F32, Power]]]:
        """What has one right value, flat, and for each exponent besides: the places, the bases, the power."""
        a, b = (np.ascontiguousarray(one).reshape(-1) for one in np.broadcast_arrays(*self._sides(inputs)))
        with np.errstate(all="ignore"):
            y: F32 = np.where(b == 1, a, np.power(a.astype(np.float64), b)).astype(np.float32)
        return y, ((places, a[places], Power(e)) for e, places in _exponents(b))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        a, b = (one[at] for one in np.broadcast_arrays(*self._sides(inputs)))
        if list(_exponents(np.reshape(b, 1))):
            return Power(float(b)).explain(np.full((1,), a), at=(0,), exact=exact)
        return Derivation((), self.golden(*inputs, exact=exact)[at])

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        a, b = self._sides(inputs)
        center, radius = (np.broadcast_arrays(one, b.center)[0].reshape(-1) for one in (a.center, a.radius))
        exponents, unknown = (
            np.broadcast_arrays(one, a.center)[0].reshape(-1) for one in (b.center, b.radius)
        )
        with np.errstate(all="ignore"):
            found = np.where(exponents == 1, center, np.power(center, exponents))
            off = np.where(exponents == 1, radius, np.where(np.isfinite(exponents), 0.0, np.inf))
        for e, places in _exponents(exponents.astype(np.float32)):
            part = Power(e).bound(Interval(center[places], radius[places]), engine=engine)
            found[places], off[places] = part.center, part.radius
        off = np.where(unknown == 0, off, np.inf)
        shape = self._shape((a.center, b.center))
        return Interval(found.reshape(shape), off.reshape(shape))


def _exponents(b: F32) -> Iterator[tuple[float, Array]]:
    """Each exponent that Power takes, and its places; not 0, 1, NaN and the infinities."""
    for e in np.unique(b[np.isfinite(b) & (b != 0) & (b != 1)]).tolist():
        yield e, np.flatnonzero(b == e)
