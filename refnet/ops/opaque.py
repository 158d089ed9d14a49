"""An operation of a file that refnet cannot compute: its value is passed on where a capture has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from refnet.core.engine import Engine
from refnet.core.errors import UnsupportedError
from refnet.core.op import F32, Cost, Interval, Op, TensorType


@dataclass(frozen=True, repr=False)
class Opaque(Op):
    """y = what a framework's operator `kind` makes of the data; refnet does not know how.

    why: what stands in the way. shape: of the value, as its file says; a 0 is a dimension as long as that of
    the first data (the batch). A run that needs the value stops before its first node; `verify` leaves the
    value unjudged, and judges what was computed from it.
    Source: the operators of ONNX without a rule in refnet, and modes of the others.

    >>> Opaque("Einsum", "refnet has no such operator", (0, 8)).type(TensorType((3, 4, 8)))
    float32[3, 8]
    """

    kind: str
    why: str
    shape: tuple[int, ...]

    roles: ClassVar[tuple[str, ...]] = ("data",)
    any_dtype: ClassVar[bool] = True

    @property
    def opaque(self) -> str:
        return f"{self.kind}: {self.why}"

    def type(self, *inputs: TensorType) -> TensorType:
        first = inputs[0].shape if inputs else ()
        fits = all(n or i < len(first) for i, n in enumerate(self.shape))
        self._expect(fits, f"the first input has {len(first)} dimensions")
        return TensorType(tuple(n or first[i] for i, n in enumerate(self.shape)))

    def label(self, *inputs: TensorType) -> str:
        return self.kind

    def run(self, *inputs: F32, engine: Engine) -> F32:
        raise UnsupportedError(f"refnet cannot compute {self.opaque}")

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        raise UnsupportedError(f"refnet has no bound of {self.opaque}")

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost()
