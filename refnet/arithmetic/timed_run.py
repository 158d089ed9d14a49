"""A captured run whose kernels are timed one by one, each in its place: what `refnet bench --kernels` asks.

    TimedRun ── CapturedRun ── the same steps, each with its time (kernels/timed_launch.py)
        ├────── calls          which nodes each is for, what it does and with how many bytes
        └────── repeat         the seconds of each

`refnet.run` knows nothing of this: it repeats a captured run as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.arithmetic.captured_run import MEMORY_LIMIT, CapturedRun
from refnet.arithmetic.followed import followed_plan
from refnet.arithmetic.golden import Golden
from refnet.arithmetic.plain import Plain
from refnet.arithmetic.replay import Replay
from refnet.arithmetic.types import types_of
from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node
from refnet.core.interpreter import Arithmetic
from refnet.core.op import F32, TensorType
from refnet.kernels.thread_pool import LaunchList
from refnet.kernels.timed_launch import TimedLaunch

PASSES = {
    "geometry": "padding copies",
    "epilogue": "batch norm, sum, relu",
    "pool": "pools and averages",
    "resample": "upsampling",
    "layout": "concatenation",
    "attention": "split attention",
    "panel": "dense",
    "pointwise.scale_shift": "batch norm, sum, relu",
    "pointwise.relu": "batch norm, sum, relu",
    "decisions.squares": "norms of windows",
    "exact_conv.norms": "norms of windows",
    "winograd.spread": "norms of windows",
    "exact_conv.wide": "padding copies",
    "decisions.decide_whole": "pools and averages",
    "decisions.decide_quads": "pools and averages",
    "decisions.decide_average": "pools and averages",
    "decisions.decide_weighted": "split attention",
    "exact_steps.rows": "batch norm, sum, relu",
    "accumulator": "open elements",
    "exact_steps.follow_exactly": "open elements",
}
"""Kernels, or modules of them, that have one kind of work, and how a table of times calls it. The others'
kernels are called after the op."""
NO_PRODUCTS = frozenset(PASSES.values()) - {"dense"}
"""Kinds that multiply no weights with data."""


@dataclass(frozen=True)
class TimedCall:
    """One kernel call of a run, or one op that is run again each time (kernel "").

    nodes: the names of the nodes whose values it makes, or helps to make. kind: see `kind_of`. op: the label
    of the first of them. shapes: of the first node's data, and of the last one's value. threads: how many
    share it. macs: multiply-adds of convolution and dense. nbytes: of the arrays that it is given, read or
    written, each byte once.
    """

    nodes: tuple[str, ...]
    kind: str
    op: str
    kernel: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    threads: int
    macs: int
    nbytes: int


class TimedRun:
    """A captured run of a graph's outputs, as the arithmetic would capture it, with a time per step.

    calls: what the steps are, in order. values: of the outputs, by the names of their nodes, as the last
    repetition left them.
    Raises InputError for an arithmetic whose runs are not captured, and for a run that needs more memory than
    is kept (MEMORY_LIMIT).
    """

    def __init__(self, graph: Graph, inputs: Mapping[str, F32], arithmetic: Arithmetic) -> None:
        self._inputs = dict(inputs)
        executed, self._run = _captured(graph, inputs, arithmetic)
        if self._run.nbytes > MEMORY_LIMIT:
            raise InputError(
                f"{graph.name}: a run needs {self._run.nbytes} bytes, more than the {MEMORY_LIMIT} that are "
                "kept for repetition"
            )
        self._untimed = self._run.steps
        self.steps = [
            TimedLaunch(step) if isinstance(step, LaunchList) else _TimedOp(step) for step in self._untimed
        ]
        self.values: dict[str, F32] = {}
        self.calls = tuple(self._described(executed, executed.types(types_of(inputs))))

    def whole(self) -> float:
        """Repeat it as it is; the seconds of the whole."""
        self._run.steps = self._untimed
        return self._repeat()

    def each(self) -> tuple[float, npt.NDArray[np.float64]]:
        """Repeat it with a look at the clock between kernels: the seconds of the whole, and of each call."""
        self._run.steps = self.steps
        whole = self._repeat()
        seconds = [
            1e-9 * np.diff(step.times) if isinstance(step, TimedLaunch) else [step.seconds]
            for step in self.steps
        ]
        return whole, np.concatenate(seconds)

    def _repeat(self) -> float:
        begin = perf_counter()
        found = self._run.repeat(self._inputs)
        seconds = perf_counter() - begin
        if found is None:
            raise RuntimeError("the run is being repeated elsewhere, or a kernel raised a doubt")
        self.values = found
        return seconds

    def _described(self, graph: Graph, types: Mapping[str, TensorType]) -> Iterator[TimedCall]:
        kernels: list[tuple[Any, tuple[Any, ...], int]] = []
        for step in self.steps:
            if isinstance(step, TimedLaunch):
                kernels += [(call.kernel, call.arguments, call.threads) for call in step.calls]
            else:
                kernels.append((None, (*step.step.data, *step.step.weights, step.step.output), 1))
        found = [
            self._kind(graph, types, node, one[0]) for node, one in zip(self._run.nodes, kernels, strict=True)
        ]
        multiplying = Counter(names for names, _, kind in found if kind not in NO_PRODUCTS)
        for (names, label, kind), (kernel, arguments, threads) in zip(found, kernels, strict=True):
            macs = 0
            if kind not in NO_PRODUCTS:  # several kernels of one node share its work
                macs = sum(_macs(graph.by_name[name], types) for name in names) // multiplying[names]
            data = graph.by_name[names[0]].data
            shapes = types[data[0]].shape if data else (), types[names[-1]].shape
            name = _name(kernel)
            yield TimedCall(names, kind, label, name, shapes, threads, macs, _moved(name, arguments))

    def _kind(
        self, graph: Graph, types: Mapping[str, TensorType], node: Node, kernel: Any
    ) -> tuple[tuple[str, ...], str, str]:
        """The nodes that a call is for, the label of the first one's op, and the kind of its work."""
        names = members(node, graph)
        first = graph.by_name[names[0]]
        label = first.op.label(*(types[name] for name in first.data))
        return names, label, kind_of(_name(kernel), label, not graph.inputs.keys().isdisjoint(first.data))


class _TimedOp:
    """A step that is no kernel. node: whose. seconds: how long it took last."""

    def __init__(self, step: Any) -> None:
        self.step, self.node, self.seconds = step, step.node, 0.0

    def __call__(self) -> None:
        begin = perf_counter()
        self.step()
        self.seconds = perf_counter() - begin


def _captured(graph: Graph, inputs: Mapping[str, F32], arithmetic: Arithmetic) -> tuple[Graph, CapturedRun]:
    """The graph that the arithmetic executes, and a run of its outputs."""
    if not isinstance(arithmetic, Golden | Plain | Replay) or arithmetic.engine.name != "fast":
        raise InputError(f"runs in {arithmetic.name} are not repeated from recorded kernel calls")
    plan = arithmetic.plan(graph, frozenset(graph.outputs.values()))
    executed = plan.fused or graph
    if isinstance(arithmetic, Replay):
        plan = followed_plan(arithmetic.book, plan, executed.types(types_of(inputs)))
    exact = arithmetic.exact if isinstance(arithmetic, Golden) else None
    return executed, CapturedRun(executed, inputs, arithmetic.engine, plan, exact)


def members(node: Node, graph: Graph) -> tuple[str, ...]:
    """The names of the graph's nodes that a node of a plan computes in one pass, in order.

    Each but the last is read by the next one alone, so it is no input of the whole.
    """
    names = [node.name]
    for _ in getattr(node.op, "ops", ())[1:]:
        inner = graph.by_name[names[-1]].data
        names.append(next(name for name in inner if name not in node.data and name in graph.by_name))
    return tuple(reversed(names))


def kind_of(kernel: str, label: str, first: bool) -> str:
    """How a table of times calls a kernel's work: by what it does, or after the op.

    kernel: its module and name. label: the op's (`Op.label`). first: whether it reads the network's input.

    >>> kind_of("channels.channels", "Conv 3x3 /2", False), kind_of("channels.channels", "Conv 7x7 /2", True)
    ('Conv 3x3 /2', 'stem')
    >>> kind_of("geometry.pad", "Conv 7x7 /2", True)
    'padding copies'
    """
    for name in (kernel, kernel.partition(".")[0]):
        if name in PASSES:
            return PASSES[name]
    return "stem" if first and label.startswith("Conv") else label


def _macs(node: Node, types: Mapping[str, TensorType]) -> int:
    return node.op.flops(*(types[name] for name in node.inputs)).macs


def _name(kernel: Any) -> str:
    if kernel is None:
        return ""
    return f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__.lstrip('_')}"


def _moved(kernel: str, arguments: tuple[Any, ...]) -> int:
    """Bytes of the arrays among the arguments, each once; of a concatenation only the part that it copies."""
    if kernel.startswith("layout."):
        return 2 * int(arguments[0].nbytes)
    ends: list[tuple[int, int]] = []
    for array in _arrays(arguments):
        begin = array.__array_interface__["data"][0]
        ends.append((begin, begin + array.nbytes))
    total, reached = 0, 0
    for begin, end in sorted(ends):
        total += max(0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def _arrays(arguments: tuple[Any, ...]) -> Iterator[npt.NDArray[Any]]:
    for argument in arguments:
        if isinstance(argument, tuple):
            yield from _arrays(argument)
        elif isinstance(argument, np.ndarray):
            yield argument
