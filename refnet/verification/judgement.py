"""What is said of one value: the words of the verdicts, and the figures beside them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from refnet.core.op import F32
from refnet.verification.axes import Reading
from refnet.verification.difference import Mask

EQUAL, REPLAYED, ROUNDING = "equal", "replayed", "rounding"
DEFECT, UNJUDGED, MISSING = "defect", "unjudged", "missing"
VERDICTS = (EQUAL, REPLAYED, ROUNDING, DEFECT, UNJUDGED, MISSING)
CLEAN = (EQUAL, REPLAYED, ROUNDING)
"""What a value may be that nothing speaks against."""


@dataclass(frozen=True)
class Shares:
    """How much of its bound a value uses, over the elements that have a finite one.

    histogram: 20 counts for the widths of 0.05 from 0 to 1, then one of what lies above. largest is inf
    where the value is NaN, or the radius is 0 and the value is not the center.
    """

    largest: float
    median: float
    histogram: tuple[int, ...]


@dataclass(frozen=True)
class Worst:
    """The worst element: outside of its bound, else with the largest share, else the most ulps off.

    found: the value that is judged; plain, golden: refnet's, on the same inputs. golden: None where it
    cannot be known (an input of the node is hidden). bound: (center, radius), None for an op with one right
    result. share: None without a bound.
    """

    at: tuple[int, ...]
    found: np.float32
    plain: np.float32
    golden: np.float32 | None
    bound: tuple[float, float] | None
    ulps: int
    share: float | None


@dataclass(frozen=True)
class Inherited:
    """The inherited difference: refnet's plain value on the capture's inputs, and in refnet's own whole run.

    differ: elements. ulps: the most float32 between; -1 if only NaN differ. largest: absolute difference.
    """

    differ: int
    ulps: int
    largest: float


@dataclass(frozen=True)
class Judgement:
    """The verdict on one value. Counts are elements; `docs/verify.md` explains every field.

    over: nodes that were judged as one because the capture lacks the values between them; () is the node
    alone. differ: bits that are not plain's on the same inputs. outside: proved not to be rounding.
    unpromised: differ where no bound exists. ulps: the most, of those that differ. reading: of an array of
    another shape, the order of axes in which it was read. found_as: the earlier node under whose name the
    value stood, folded or fused into it. map: (h, w) largest share
    over batch and channels, picture: (h, w) mean of the value; both only where something differs. wrong: of a
    defect, the elements that are proved wrong, in the value's shape; `verify` does not keep it.

    >>> import refnet
    >>> node = refnet.load("resnest-digits").by_name["prob"]
    >>> Judgement(node.name, repr(node.op), "Softmax", node.inputs, (1, 10), "missing").verdict
    'missing'
    """

    name: str
    op: str
    kind: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    verdict: str
    reason: str | None = None
    over: tuple[str, ...] = ()
    elements: int = 0
    differ: int = 0
    outside: int = 0
    unpromised: int = 0
    share: Shares | None = None
    ulps: int | None = None
    worst: Worst | None = None
    inherited: Inherited | None = None
    reading: Reading | None = None
    found_as: str | None = None
    map: F32 | None = field(default=None, repr=False, compare=False)
    picture: F32 | None = field(default=None, repr=False, compare=False)
    wrong: Mask | None = field(default=None, repr=False, compare=False)
