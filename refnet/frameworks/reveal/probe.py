"""Questions to a reduction: sums whose results tell in which order, and with which roundings, they were made.

    AskedReduction ── results(place, ...)    chosen summands at one output position, many probes in one call
          ├───── sizes(place, leaves, pairs)  how many summands lie under a pair (tree.py explains)
          └───── fused(place, joints)         which products were not rounded before they were added
    random_inputs, odd_inputs                whole inputs, on which orders and starts are told apart

A convolution's output channels carry one probe each: x is the same everywhere, the weights are the summands.
Of a pool, each plane (image and channel) carries one: its elements are the summands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from refnet.arithmetic.recipes import box_shape
from refnet.core.element import Windows
from refnet.core.errors import InputError
from refnet.core.op import F32, Op, Reduction, TensorType
from refnet.core.orders import FINISHES, Leaf
from refnet.frameworks.caller import Caller
from refnet.frameworks.reveal.compress import Joint
from refnet.frameworks.reveal.tree import Pairs, Sizes, Unexplained

HUGE = np.float32(2.0**80)
"""Its neighbours in float32 are 2**57 away: every sum of ones that a network can have is absorbed."""
NEAR = np.float32(1 + 2.0**-12)
"""Its square is 1 + 2**-11 + 2**-24, which rounds to 1 + 2**-11: a tie, to even."""
LEFT = np.float32(2.0**-24)
"""What NEAR * NEAR, not rounded, leaves of its rounded square."""

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Place:
    """Where probes are read: image (of Conv and Dense), row and column; and the carriers: output channels,
    or planes (image * channels + channel) of a pool."""

    image: int
    y: int
    x: int
    carriers: Indices


class AskedReduction:
    """A reduction in a framework. Leaves 0 to terms - 1 are the terms in plain order, then come the bias and
    the addend, if it has them: `alone`.

    op: a core.op.Reduction. types: of its inputs, batch included. shape: of the output, (n, c, h, w) to a
    Place.
    """

    def __init__(self, op: Op, types: Sequence[TensorType], caller: Caller) -> None:
        if not isinstance(op, Reduction):
            raise InputError(f"{op!r} is no reduction")
        self.op, self.types, self.caller = op, tuple(types), caller
        self.output = op.type(*types).shape
        self.shape = box_shape(self.output)
        self.rank = len(self.output)
        self.weighted = not op.averages
        self.terms = op.terms(*types)
        roles = [Leaf.BIAS] if op.biased() else []
        roles += [Leaf.ADDEND] if op.adds else []
        self.alone = {self.terms + i: leaf for i, leaf in enumerate(roles)}

    @cached_property
    def windows(self) -> Windows:
        """Where the data of each sum lies."""
        return self.op.windows(*self.types)

    @property
    def finishes(self) -> tuple[str, ...]:
        """How the sums may be divided."""
        return tuple(one for one in FINISHES if (one != "none") == self.op.averages)

    @property
    def padded(self) -> bool:
        """Whether somewhere a term is missing."""
        return not all(side.all() for side in self.inside)

    @cached_property
    def inside(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Which kernel rows (oh, kh) and columns (ow, kw) of each window lie in the image."""
        return self.windows.inside(0, self.shape[2]), self.windows.inside(1, self.shape[3])

    def leaves(self, place: Place) -> list[int]:
        """The summands that there are at this place."""
        rows, columns = self.inside
        window = np.outer(rows[place.y], columns[place.x]).ravel()
        held = np.tile(window, self.terms // window.size)
        return [*map(int, np.flatnonzero(held)), *self.alone]

    def present(self) -> Indices:
        """How many elements of the window lie in the image, per row and column of the output."""
        rows, columns = self.inside
        return np.outer(rows.sum(1), columns.sum(1))

    # What is asked.

    def sizes(self, place: Place, leaves: Sequence[int], pairs: Pairs) -> Sizes:
        """How many summands the smallest subtree with both of a pair has. Raises Unexplained."""
        values = np.broadcast_to(np.array([HUGE, -HUGE]), pairs.shape)
        left = self.results(place, leaves, np.float32(1), pairs, values, np.float32(1)).astype(np.float64)
        count = np.rint(left)
        wrong = ~((count >= 0) & (count <= len(leaves) - 2) & (np.abs(left - count) < 2.0**-8))
        if wrong.any():
            pair, found = pairs[wrong][0], left[wrong][0]
            raise Unexplained(f"of {len(leaves)} summands, {found!r} are left when {tuple(pair)} cancel")
        return len(leaves) - count.astype(np.int64)

    def alike(self, place: Place, leaves: Sequence[int], pairs: Pairs) -> npt.NDArray[np.float32]:
        """The same probes on every carrier: what each leaves over, (carriers, probes)."""
        size = len(place.carriers)
        many = np.repeat(pairs, size, 0)
        values = np.broadcast_to(np.array([HUGE, -HUGE]), many.shape)
        found = self.results(place, leaves, np.float32(1), many, values, np.float32(1))
        return found.reshape(len(pairs), size).T

    def fused(self, place: Place, leaves: Sequence[int], joints: Sequence[Joint]) -> set[int]:
        """The leaves whose product enters the sum unrounded. Raises Unexplained."""
        turned = [Joint(j.partner, j.leaf, j.pair) if j.pair and j.leaf in self.alone else j for j in joints]
        turned = [j for j in turned if j.leaf not in self.alone]
        if not self.weighted or not turned:
            return set()
        pairs = np.array([(j.leaf, j.partner) for j in turned], np.int64)
        values = np.empty(pairs.shape, np.float32)
        values[:] = (NEAR, -NEAR)
        values[np.isin(pairs[:, 1], list(self.alone)), 1] = -(NEAR * NEAR)
        left = self.results(place, leaves, np.float32(0), pairs, values, NEAR)
        found = set()
        for joint, value in zip(turned, left, strict=True):
            if value == LEFT:
                found.add(joint.leaf)
            elif value == -LEFT and joint.pair and joint.partner not in self.alone:
                found.add(joint.partner)
            elif value != 0:
                raise Unexplained(f"summand {joint.leaf} on {joint.partner}: {value!r} is left of {LEFT!r}")
        return found

    def results(
        self, place: Place, leaves: Sequence[int], fill: np.float32, at: Indices, values: F32, x: np.float32
    ) -> F32:
        """One sum per probe: of the leaves, `fill` each, but `values` (p, k) at the leaves `at` (p, k).

        x: what every weight is multiplied by; bias and addend are not. Pools give the sum, not the average.
        """
        size = len(place.carriers)
        calls = -(-len(at) // size)
        summands = np.zeros((calls * size, self.terms + len(self.alone)), np.float32)
        summands[: len(at), leaves] = fill
        summands[np.arange(len(at))[:, None], at] = values
        return self._sums(place, summands.reshape(calls, size, -1), x).ravel()[: len(at)]

    def _sums(self, place: Place, summands: F32, x: np.float32) -> F32:
        """(calls, carriers, leaves) -> (calls, carriers)"""
        calls = len(summands)
        if self.weighted:
            return self._weighted_sums(place, summands, x)
        n, c, h, w = self.types[0].shape
        planes = np.zeros((calls, n * c, h, w), np.float32)
        tops, lefts = (np.flatnonzero(self.inside[a][p]) for a, p in ((0, place.y), (1, place.x)))
        top = self.windows.positions(0, self.shape[2])[place.y][tops]
        left = self.windows.positions(1, self.shape[3])[place.x][lefts]
        divisor = self.divisors[place.y, place.x]
        window = summands.reshape(*summands.shape[:2], *self.windows.kernel)[:, :, tops[:, None], lefts]
        planes[:, place.carriers[:, None, None], top[:, None], left] = window * divisor
        y = self.caller({}, {"x": planes.reshape(calls, n, c, h, w)}, [None, None, place.y, place.x])
        return y.reshape(calls, -1)[:, place.carriers]

    def _weighted_sums(self, place: Place, summands: F32, x: np.float32) -> F32:
        data, weight, *_ = (name for name in self.caller.names if name != "x1")
        calls, kind = len(summands), self.types[self.caller.names.index(weight)]
        fixed = {data: np.full(self.types[0].shape, x, np.float32)}
        each = {weight: np.zeros((calls, *kind.shape), np.float32)}
        rows = each[weight].reshape(calls, kind.shape[0], -1)
        rows[:, place.carriers] = summands[..., : self.terms]
        for leaf, role in self.alone.items():
            if role is Leaf.BIAS:
                each["bias"] = np.zeros((calls, kind.shape[0]), np.float32)
                each["bias"][:, place.carriers] = summands[..., leaf]
            else:
                each["x1"] = np.zeros((calls, *self.shape), np.float32)
                each["x1"][:, place.image, place.carriers, place.y, place.x] = summands[..., leaf]
        where = [place.y, place.x][: self.rank - 2]
        return self.caller(fixed, each, [place.image, None, *where])[:, place.carriers]

    @cached_property
    def divisors(self) -> F32:
        """What a pool divides by, per row and column of the output."""
        if self.weighted:
            return np.ones((1, 1), np.float32)
        rows, columns = self.op.counts(self.types[0].shape)
        return np.multiply.outer(rows, columns).astype(np.float32)


def random_inputs(types: Sequence[TensorType], seed: int) -> list[F32]:
    """Normal numbers, none of them 0: sums cancel, so that a different order shows."""
    rng = np.random.default_rng([seed, 1])
    found = [rng.standard_normal(kind.shape, np.float32) for kind in types]
    for values in found:
        values[values == 0] = 1
    return found


def odd_inputs(types: Sequence[TensorType], seed: int, terms: int = 1) -> list[F32]:
    """Zeros of both signs with few other numbers; infinities and NaN among weights; the same among data.

    terms: of a sum; about one in two meets something odd, so that results are not all NaN.
    """
    rng = np.random.default_rng([seed, 2])
    found = []
    for i, kind in enumerate(types):
        values = rng.standard_normal(kind.shape, np.float32)
        chosen = rng.random(kind.shape, np.float32) * terms
        if seed % 3 == 0:
            minus = i > 0 or len(types) == 1  # most products are -0, the sums of about a half all of them
            rare = rng.random(kind.shape, np.float32) * terms < 0.5
            values = np.where(rare == minus, np.float32(0), np.float32(-0.0))
            values[chosen < 0.4] = rng.standard_normal(int((chosen < 0.4).sum()), np.float32)
        elif (i > 0) == (seed % 3 == 1) or len(types) == 1:
            values[chosen < 0.4] *= np.float32(2.0**-130)
            values[chosen < 0.2] = np.inf
            values[chosen < 0.1] = -np.inf
            values[chosen < 0.05] = np.nan
        found.append(values)
    return found
