"""What a run may cost: it is known before the first node, and said instead of the run if it is too much.

A file of 200 bytes can ask for hours, or for more memory than there is. So every run (`refnet.run`, a
capture, a verification, a golden file) adds up its operations and the bytes of the values that exist at the
same time, and raises InputError with the figures if they are beyond the limits; `refnet.limits` raises those,
and so do --limit-operations and --limit-memory of the command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property

from refnet.core.errors import InputError
from refnet.core.graph import Node
from refnet.core.interrupt import LONG
from refnet.core.op import TensorType

OPERATIONS = 2 * 10**12
"""Default: float operations of one run (a batch), a multiply-add as two. Fast kernels need 10 to 60 s for so
many, golden some minutes; the largest network that refnet builds needs 1/44 of it for an image."""
MEMORY = 4 << 30
"""Default: bytes of the values of one run that exist at the same time, without the weights."""


@dataclass(frozen=True)
class Limits:
    """The most that one run may cost. operations: float operations. memory: bytes of values."""

    operations: float = OPERATIONS
    memory: float = MEMORY


_limits: ContextVar[Limits] = ContextVar("limits", default=Limits())  # noqa: B039 (it is frozen)


@contextmanager
def limits(operations: float | None = None, memory: float | None = None) -> Iterator[Limits]:
    """Within it, a run may cost so much: float operations, and bytes of values at the same time.

    None leaves a limit as it is. Yields the limits that hold.

    >>> with limits(operations=1e14) as found:
    ...     f"{found.operations:.0e}, {found.memory / 2**30:g} GiB"
    '1e+14, 4 GiB'
    """
    for name, value in (("operations", operations), ("memory", memory)):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and value > 0):
            raise InputError(f"{name} must be a number above 0, got {value!r:.100}")
    before = _limits.get()
    found = Limits(
        before.operations if operations is None else operations, before.memory if memory is None else memory
    )
    token = _limits.set(found)
    try:
        yield found
    finally:
        _limits.reset(token)


@dataclass(frozen=True)
class RunCost:
    """What one run of a graph costs.

    graph: its name. operations: node -> float operations. memory: the most bytes of values that exist at the
    same time, and `at`, the node at which they do.
    """

    graph: str
    operations: Mapping[str, int]
    memory: int
    at: str

    @cached_property
    def total(self) -> int:
        """The operations of all nodes."""
        return sum(self.operations.values())

    def check(self) -> None:
        """Raise InputError if the limits that hold now are lower; the message names the costliest node."""
        most = _limits.get()
        if self.total > most.operations:
            largest = max(self.operations, key=self.operations.__getitem__)
            raise InputError(
                f"{self.graph}: this run takes {self.total:.3g} operations ({self.operations[largest]:.3g} "
                f"of them for {largest!r}), more than the limit of {most.operations:.3g}: "
                f"--limit-operations raises it (refnet.limits in Python)"
            )
        if self.memory > most.memory:
            raise InputError(
                f"{self.graph}: this run needs {self.memory / 2**30:.3g} GiB for the values at {self.at!r}, "
                f"more than the limit of {most.memory / 2**30:.3g} GiB: --limit-memory raises it "
                f"(refnet.limits in Python)"
            )


def run_cost(
    name: str,
    nodes: Sequence[Node],
    types: Mapping[str, TensorType],
    frees: Sequence[Sequence[str]],
) -> RunCost:
    """What it costs to run these nodes.

    name: the graph's. types: of all inputs, weights and values. frees: per node, the values that are freed
    after it.
    """
    operations = {}
    held = sum(
        types[one].nbytes for one in {n for node in nodes for n in node.data} - {n.name for n in nodes}
    )
    peak, at = held, ""
    for node, freed in zip(nodes, frees, strict=True):
        size = types[node.name].size
        operations[node.name] = size + node.op.flops(*(types[one] for one in node.inputs)).flops
        held += types[node.name].nbytes
        if held > peak:
            peak, at = held, node.name
        held -= sum(types[one].nbytes for one in freed)
    return RunCost(name, operations, peak, at)


def long_ones(costs: Mapping[str, int], names: Sequence[str]) -> frozenset[str]:
    """Those of `names` that are worth a thread; a fused node is named after the last of its nodes.

    costs: of all nodes in order; what is not in `names` belongs to the next one that is.

    >>> long_ones({"conv": 2 * 10**9, "relu": 10, "fc": 10}, ["relu", "fc"])
    frozenset({'relu'})
    """
    known, found, pending = set(names), [], 0
    for name, cost in costs.items():
        pending += cost
        if name in known:
            if pending >= LONG:
                found.append(name)
            pending = 0
    return frozenset(found)
