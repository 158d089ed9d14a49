"""Captured runs: a run is recorded as its kernel calls, which later runs on the same shapes repeat.

A network is hundreds of kernels, some of a few microseconds. The Python between them (which form of a
convolution, where its terms lie, how many threads pay off) decides the same at every run on data of the same
shapes. So the second such run is captured, and later runs repeat its calls with the same arrays:

    first run ── the interpreter's loop
    second ──── the same, in an arena (kernels/memory.py), each call noted (kernels/thread_pool.py)
    later ───── data into the arena ── the calls ── results out of it

An op is `capturable` (in golden `golden_capturable`) if kernels do all its work on data, and `reshapes` if
there is no work to do. All other ops run as usual, between the calls. This needs the fast engine.

Golden's runs are captured, too: what float64 leaves open differs from run to run, but kernels find and
compute it (kernels/accumulator.py). Where they cannot, they raise a doubt (kernels/memory.py). Then a
repetition gives no values, and the plan is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np

from refnet.arithmetic.fused import defined_with, defined_with_run
from refnet.arithmetic.types import types_of
from refnet.core.engine import Engine
from refnet.core.exact import Exact
from refnet.core.graph import Graph, Node
from refnet.core.interpreter import Plan, cost_of, evaluated
from refnet.core.interrupt import interruptible
from refnet.core.limits import long_ones
from refnet.core.op import F32, Op, TensorType
from refnet.kernels.memory import Arena, allocating_in
from refnet.kernels.thread_pool import Call, LaunchList, launch, noting

RUN_LIMIT = 16
"""Most captured runs kept per graph: the most recently used ones."""
VALUE_LIMIT = 1 << 25
"""Runs whose wanted values take more bytes are not captured: the values would stay in memory."""
MEMORY_LIMIT = 1 << 28
"""Most bytes of a graph's captured runs; those used last are kept. A run that needs more is not."""


class Seen(Enum):
    """What is known about a kind of run that is not kept."""

    ONCE = "it is captured next time"
    LARGE = "it needs more memory than VALUE_LIMIT or MEMORY_LIMIT"


@dataclass(frozen=True)
class _Way:
    """How ops compute: by `run`, or, with `exact`, by `golden`."""

    engine: Engine
    exact: Exact | None

    def value(self, op: Op, *inputs: F32) -> F32:
        """The op's value."""
        if self.exact is not None:
            return op.golden(*inputs, exact=self.exact)
        return op.run(*inputs, engine=self.engine)

    def defines(self, op: Op, what: str) -> bool:
        """Whether `what` was defined with or after the method that computes the value."""
        return defined_with_run(op, what) and (self.exact is None or defined_with(op, "golden", what))

    def capturable(self, op: Op, *shapes: tuple[int, ...]) -> bool:
        """Whether kernels do all the work."""
        if self.exact is None:
            return self.defines(op, "capturable") and op.capturable(*shapes)
        given = defined_with(op, "golden", "golden_capturable") and op.golden_capturable(*shapes)
        return given and (not op.exactly_specified or defined_with_run(op, "capturable"))


@dataclass(frozen=True)
class _UncapturedOp:
    """A node whose op is not capturable. It is run again each time, on arrays that stay where they are."""

    how: _Way
    node: Node
    data: tuple[F32, ...]
    weights: tuple[F32, ...]
    output: F32

    def __call__(self) -> None:
        data = [array.view() for array in self.data]  # kernels may keep what they make of a read-only array
        np.copyto(self.output, self.how.value(self.node.op, *data, *self.weights))


class CapturedRun:
    """One run of a plan, from its inputs to the wanted values (`values`), kept for repetition."""

    def __init__(
        self,
        graph: Graph,
        inputs: Mapping[str, F32],
        engine: Engine,
        plan: Plan,
        exact: Exact | None = None,
    ) -> None:
        self._arena, way = Arena(), _Way(engine, exact)
        self._users: list[object] = []
        self._threads, self._wanted = engine.threads, plan.wanted
        steps: list[list[Call] | _UncapturedOp] = []
        types = graph.types(types_of(inputs))
        names = [node.name for node, *_ in plan.schedule]
        self._cost = cost_of(graph, types, plan.wanted)
        self._cost.check()
        slow = long_ones(self._cost.operations, names)
        values = {name: self._held(types[name]) for name in inputs}
        self._inputs = {name: self._lasting(array) for name, array in values.items()}
        for name, array in inputs.items():
            np.copyto(self._inputs[name], array)
        for array in values.values():
            array.flags.writeable = False
        results = {}
        self.nodes: list[Node] = []
        for node, data, learned, done in plan.schedule:
            given, weights = [values[name] for name in data], [graph.weights[name] for name in learned]
            kind = types[node.name]
            run = (interruptible, self._execute) if node.name in slow else (self._execute,)
            value = evaluated(node, *run, node, given, weights, kind, way, steps)
            del given
            value.flags.writeable = False
            values[node.name] = value
            if node.name in plan.wanted:
                results[node.name] = value
            del value
            for name in done:
                del values[name]
            made = sum(len(step) if isinstance(step, list) else 1 for step in steps)
            self.nodes += [node] * (made - len(self.nodes))
        self._steps = [LaunchList(step, self._threads) if isinstance(step, list) else step for step in steps]
        self._outputs = {name: self._lasting(value) for name, value in results.items()}
        self.values = {name: value.copy() for name, value in results.items()}

    @property
    def steps(self) -> Sequence[Any]:
        """What is repeated, in order: a LaunchList for kernels in a row, or an op that is run again, to be
        called. `nodes` has the node of each kernel call and of each such op, in the same order.
        """
        return self._steps

    @steps.setter
    def steps(self, steps: Sequence[Any]) -> None:
        self._steps = [*steps]

    @property
    def nbytes(self) -> int:
        """The bytes of memory that it holds."""
        return sum(piece.size for piece in self._arena.pieces)

    def _held(self, kind: TensorType) -> F32:
        return self._arena.empty(kind.shape, np.dtype(kind.dtype))

    def _execute(
        self,
        node: Node,
        data: list[F32],
        weights: list[F32],
        kind: TensorType,
        way: _Way,
        steps: list[list[Call] | _UncapturedOp],
    ) -> F32:
        """The node's value, in the arena; what it takes to compute it again becomes steps."""
        if node.op.reshapes and way.defines(node.op, "reshapes"):
            return data[0].reshape(kind.shape)
        calls: list[Call | None] = []
        shapes = [array.shape for array in (*data, *weights)]
        floats = all(array.dtype == np.float32 for array in data)  # kernels have no other dtype
        if floats and way.capturable(node.op, *shapes):
            with allocating_in(self._arena), noting(calls):
                value = way.value(node.op, *data, *weights)
            known = [call for call in calls if call is not None]
            if len(known) < len(calls) or not value.flags.c_contiguous:  # the next op might copy it
                return self._uncaptured(way, node, data, weights, value, steps)
            if value.size and self._arena.lasting(value) is None:
                raise RuntimeError(f"{node.op!r} says that it is capturable, and its value is not a kernel's")
            last = steps[-1] if steps else None
            row = last if isinstance(last, list) else []
            if row is not last:
                steps.append(row)
            for call in known:
                row.append(replace(call, arguments=tuple(map(self._lasting, call.arguments))))
            return value
        value = way.value(node.op, *[array.view() for array in data], *weights)
        return self._uncaptured(way, node, data, weights, value, steps)

    def _uncaptured(
        self,
        way: _Way,
        node: Node,
        data: list[F32],
        weights: list[F32],
        found: F32,
        steps: list[list[Call] | _UncapturedOp],
    ) -> F32:
        """The value found, in the arena, and a step that computes it again."""
        value = self._arena.empty(found.shape, found.dtype)
        np.copyto(value, found)
        lasting = tuple(map(self._lasting, data))
        steps.append(_UncapturedOp(way, node, lasting, tuple(weights), self._lasting(value)))
        return value

    def _lasting(self, argument: Any) -> Any:
        """The argument; an array in the arena, or in a tuple, without its claim to a place there."""
        if isinstance(argument, tuple):
            parts = map(self._lasting, argument)
            return type(argument)(*parts) if hasattr(argument, "_fields") else tuple(parts)
        if not isinstance(argument, np.ndarray):
            return argument
        lasting = self._arena.lasting(argument)
        return argument if lasting is None else lasting

    def fits(self, inputs: Mapping[str, F32], threads: int, wanted: Collection[str]) -> bool:
        """Whether this seems to be the same run on other data; a quick check."""
        if type(inputs) is not dict or threads != self._threads or wanted != self._wanted:
            return False
        if len(inputs) != len(self._inputs):
            return False
        for name, place in self._inputs.items():
            array = inputs.get(name)
            if type(array) is not np.ndarray or array.dtype != place.dtype or array.shape != place.shape:
                return False
        return True

    def repeat(self, inputs: Mapping[str, F32]) -> dict[str, F32] | None:
        """The wanted values for other data of the same shapes; None while another thread repeats it, or if a
        kernel raises a doubt.

        Raises InputError if the limits are lower now than what the run costs.
        """
        self._cost.check()
        user = object()
        try:  # as in ThreadPool: an interrupt at any moment leaves it to others
            self._users.append(user)
            if self._users[0] is not user:
                return None
            for step in self._steps:
                if isinstance(step, LaunchList):
                    step.settle()  # before anything is written where workers may
            for doubt in self._arena.doubts:
                doubt[0] = 0
            for name, place in self._inputs.items():
                np.copyto(place, inputs[name])
            for step in self._steps:
                if isinstance(step, LaunchList):
                    launch(step)
                else:
                    evaluated(step.node, step)
            if any(doubt[0] for doubt in self._arena.doubts):
                return None
            return {name: place.copy() for name, place in self._outputs.items()}
        finally:
            self._users.remove(user)


def unchanging(graph: Graph) -> bool:
    """Whether the weights come from `with_weights`, and all are still read-only."""
    return isinstance(graph.weights, MappingProxyType) and not any(
        array.flags.writeable for array in graph.weights.values()
    )


class CapturedRuns:
    """The captured runs of one graph, by kind of run."""

    def __init__(self) -> None:
        self._seen: dict[object, CapturedRun | Seen] = {}
        self._latest: CapturedRun | Seen | None = None

    def run(
        self,
        graph: Graph,
        inputs: Mapping[str, F32],
        engine: Engine,
        plan: Plan,
        arrange: Callable[[Plan, Mapping[str, TensorType]], Plan] | None = None,
        exact: Exact | None = None,
    ) -> dict[str, F32] | None:
        """The wanted values, captured or repeated. None if this run is the first of its kind, needs too much
        memory to be kept, is being repeated by another thread, or cannot be repeated for these data.

        arrange: what is captured instead of the plan, from the types of all inputs, weights and values.
        exact: for golden values.
        """
        latest, threads = self._latest, engine.threads
        if isinstance(latest, CapturedRun) and latest.fits(inputs, threads, plan.wanted):
            return latest.repeat(inputs)
        given = graph.check_inputs(inputs)
        key = (threads, plan.wanted, tuple(given.items()))
        known = self._seen.get(key)
        values = None
        if known is None:
            types = graph.types(given)
            large = sum(types[name].nbytes for name in plan.wanted) > VALUE_LIMIT
            known = Seen.LARGE if large else Seen.ONCE
        elif known is Seen.ONCE:
            made = CapturedRun(
                graph, inputs, engine, plan if arrange is None else arrange(plan, graph.types(given)), exact
            )
            values, made.values = made.values, {}
            known = made if made.nbytes <= MEMORY_LIMIT else Seen.LARGE
        elif isinstance(known, CapturedRun):
            values = known.repeat(inputs)
        self._keep(key, known)
        return values

    def _keep(self, key: object, known: CapturedRun | Seen) -> None:
        """Mark it as used last, and drop the least recently used runs beyond the limits."""
        self._seen.pop(key, None)
        self._seen[key] = self._latest = known
        total = 0
        for at, (old, value) in enumerate(reversed(list(self._seen.items()))):
            total += value.nbytes if isinstance(value, CapturedRun) else 0
            if at >= RUN_LIMIT or total > MEMORY_LIMIT:
                self._seen.pop(old, None)
