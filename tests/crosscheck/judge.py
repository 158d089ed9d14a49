"""A framework's values against refnet's judge, one at a time and over a whole network.

    walk ── check ── refnet.verification.judge.judge, on the framework's own inputs to the node

The verdict is the judge's. The cross-checks demand more than a verdict: a value must have the node's shape
and be finite, and refnet's own plain value must lie within the bound; whatever is missing, surplus or
doubled is a disagreement too. `same_bits` and `within_bound` compare arrays where there is no node to judge.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.graph import Graph, Node, TensorType
from refnet.core.op import F32, Interval, Op
from refnet.kernels.engine import Fast
from refnet.verification.judge import judge
from refnet.verification.judgement import EQUAL, REPLAYED, ROUNDING
from tests.helpers.engines import FAST

Array = npt.NDArray[Any]


class Disagreement(AssertionError):  # noqa: N818
    """A value that is not what refnet says it must be."""


def same_bits(found: Array, expected: F32, op: Op | None = None) -> None:
    """Both float32, of one shape, finite, and equal in every bit (+0 is not -0).

    With an op, its own word counts (`Op.agrees`): for relu and max pooling either zero will do.
    """
    _comparable(found, expected.shape)
    found, expected = np.ascontiguousarray(found), np.ascontiguousarray(expected)
    differ = ~op.agrees(found, expected) if op else found.view(np.uint32) != expected.view(np.uint32)
    if differ.any():
        at = np.unravel_index(int(np.argmax(differ)), differ.shape)
        raise Disagreement(
            f"{differ.sum()} of {differ.size} elements differ, first at {tuple(map(int, at))}: "
            f"found {found[at]!r} ({found[at].view(np.uint32):#010x}), "
            f"expected {expected[at]!r} ({expected[at].view(np.uint32):#010x})"
        )


def within_bound(found: Array, interval: Interval) -> float:
    """float32, finite, and in the interval everywhere; returns the largest share |found - center| / radius.

    An infinite radius promises nothing, so it proves nothing: it is a disagreement as well. Where the
    radius is 0 only the center itself will do.
    """
    _comparable(found, interval.center.shape)
    if not np.isfinite(interval.radius).all():
        raise Disagreement(f"{(~np.isfinite(interval.radius)).sum()} elements have no finite bound")
    distance = np.abs(found.astype(np.float64) - interval.center)
    outside = ~(distance <= interval.radius)
    if outside.any():
        worst = np.where(outside, distance - interval.radius, -np.inf)
        worst[np.isnan(worst)] = np.inf
        at = np.unravel_index(int(np.argmax(worst)), worst.shape)
        raise Disagreement(
            f"{outside.sum()} of {outside.size} elements lie outside the bound, worst at "
            f"{tuple(map(int, at))}: found {found[at]!r}, "
            f"bound {interval.center[at]!r} +- {interval.radius[at]!r}"
        )
    positive = interval.radius > 0
    return float((distance[positive] / interval.radius[positive]).max(initial=0.0))


def _comparable(found: Array, shape: tuple[int, ...], finite: bool = True) -> None:
    if found.dtype != np.float32:
        raise Disagreement(f"found {found.dtype}, expected float32")
    if found.shape != shape:
        raise Disagreement(f"found shape {found.shape}, expected {shape}")
    if not found.size:
        raise Disagreement("nothing to compare: no elements")
    if finite and not np.isfinite(found).all():
        raise Disagreement(f"found {(~np.isfinite(found)).sum()} of {found.size} elements not finite")


@dataclass
class Tally:
    """What a walk compared."""

    bits: Counter[str] = field(default_factory=Counter)
    """Op kind -> values compared by bits."""
    bounds: Counter[str] = field(default_factory=Counter)
    """Op kind -> values compared with their bound."""
    shares: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Op kind -> the framework's largest share of the bound."""
    own: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Op kind -> the largest share of refnet's plain arithmetic on the same inputs."""
    surplus: Counter[str] = field(default_factory=Counter)
    """Why a framework's value is no node of refnet's -> how many there were."""

    @property
    def compared(self) -> int:
        """How many values were compared."""
        return self.bits.total() + self.bounds.total()

    def lines(self) -> list[str]:
        """The tally as text, one line per op kind."""
        rows = [f"{self.compared} values compared"]
        rows += [f"  {kind:16}{count:5}  same bits" for kind, count in sorted(self.bits.items())]
        rows += [
            f"  {kind:16}{count:5}  within bound, largest share {self.shares[kind]:.4f} "
            f"(refnet {self.own[kind]:.4f})"
            for kind, count in sorted(self.bounds.items())
        ]
        rows += [f"  not compared: {count} x {why}" for why, count in sorted(self.surplus.items())]
        return rows


def check(node: Node, found: Array, inputs: Iterable[F32], tally: Tally, finite: bool = True) -> None:
    """Judge one value of a framework, given the framework's own inputs to the node.

    finite: it must be, and have a finite bound everywhere, as all ordinary data has.
    """
    arguments = [np.ascontiguousarray(array).reshape(array.shape) for array in inputs]
    kind = type(node.op).__name__
    try:
        types = [TensorType(tuple(a.shape)) for a in arguments]
        _comparable(found, node.op.type(*types).shape, finite)
        own = node.op.run(*arguments, engine=Fast(2))
        judged = judge(node, found, arguments, plain=own, threads=2)
        if judged.verdict not in (EQUAL, REPLAYED, ROUNDING):
            worst = judged.worst
            where = "" if worst is None else f": at {worst.at} found {worst.found!r}, bound {worst.bound}"
            raise Disagreement(f"{judged.verdict}: {judged.reason}{where}")
        if node.op.exactly_specified:
            tally.bits[kind] += 1
            return
        if finite:
            interval = node.op.bound(*map(Interval.exactly, arguments), engine=FAST)
            tally.own[kind] = max(tally.own[kind], within_bound(own, interval))
        tally.shares[kind] = max(tally.shares[kind], 0.0 if judged.share is None else judged.share.largest)
        tally.bounds[kind] += 1
    except Disagreement as error:
        raise Disagreement(f"{node}: {error}") from None


def walk(
    graph: Graph,
    inputs: Mapping[str, F32],
    values: Iterable[tuple[str, Array]],
    *,
    surplus: Mapping[str, str],
    absent: Mapping[str, str],
    reshaped: tuple[str, ...] = (),
) -> Tally:
    """Judge every value of a framework's run as it arrives, keeping each only until its last use.

    values: (name, array) in the framework's order of execution. surplus: pattern of a name -> why refnet
    has no such node. absent: node name -> why the framework does not show it. reshaped: op kinds whose
    elements are compared in row order, the framework's shape being another one.
    Raises Disagreement for any value that is wrong, doubled, unexplained or missing.
    """
    tally = Tally()
    uses = Counter(name for node in graph.nodes for name in set(node.data))
    known: dict[str, F32] = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
    seen: set[str] = set()
    for name, value in values:
        if name in seen:
            raise Disagreement(f"the value {name!r} came twice")
        seen.add(name)
        node = graph.by_name.get(name)
        if node is None:
            why = next((why for pattern, why in surplus.items() if re.fullmatch(pattern, name)), None)
            if why is None:
                raise Disagreement(f"the framework's value {name!r} is no node of {graph.name}")
            tally.surplus[why] += 1
            continue
        if missing := [n for n in node.data if n not in known]:
            raise Disagreement(f"{name!r} came before its inputs {missing}")
        arguments = [known[n] for n in node.data] + [graph.weights[n] for n in node.weights]
        if type(node.op).__name__ in reshaped:
            shape = node.op.type(*(TensorType(tuple(a.shape)) for a in arguments)).shape
            value = value.reshape(shape) if value.size == np.prod(shape) else value  # noqa: PLW2901
        check(node, value, arguments, tally)
        known[name] = value
        for used in {*node.data}:
            uses[used] -= 1
            if not uses[used]:
                del known[used]
        if not uses[name]:
            del known[name]
    if unseen := [node.name for node in graph.nodes if node.name not in seen and node.name not in absent]:
        raise Disagreement(f"{len(unseen)} values never came, first {unseen[:5]}")
    if wrong := [name for name in absent if name in seen or name not in graph.by_name]:
        raise Disagreement(f"said to be absent, but shown or unknown: {wrong}")
    if tally.compared != len(graph.nodes) - len(absent):
        raise Disagreement(f"{tally.compared} values compared, {len(graph.nodes) - len(absent)} expected")
    return tally
