"""Values that come from a framework's process, and the CapturePlan of them.

Stream ── Worker.stream ── (name, array), ...
plan_of(graph, ..., stream) ── CapturePlan
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from refnet.core.graph import Graph
from refnet.formats.golden_file import Sources
from refnet.formats.manifest import Origin
from refnet.frameworks.capture.beyond import beyond_its_own
from refnet.frameworks.capture.request import said_sources
from refnet.frameworks.capture.writer import Array, CapturePlan
from refnet.frameworks.process import Answer, Serves
from refnet.models.inputs import Inputs


@dataclass
class Stream:
    """Values from a worker. answer: the last word, once all values came."""

    worker: Serves
    command: str
    request: Mapping[str, Any]
    arrays: Mapping[str, Array]
    answer: Answer | None = None

    def values(self) -> Iterator[tuple[str, Array]]:
        self.answer = yield from self.worker.stream(self.command, self.request, self.arrays)

    def again(self, arrays: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """The values that other inputs make."""
        yield from self.worker.stream(self.command, self.request, arrays)

    def outputs(self) -> Mapping[str, str]:
        assert self.answer is not None
        return {k: str(v) for k, v in self.answer.field("outputs", dict).items()}

    def left_out(self) -> Mapping[str, str]:
        """What the worker could not hand over."""
        assert self.answer is not None
        left = self.answer.field("left_out", dict) if "left_out" in self.answer.fields else {}
        return {k: str(v) for k, v in left.items()}


def plan_of(
    graph: Graph | None, sources: Sources | None, given: Inputs, who: Origin, stream: Stream
) -> CapturePlan:
    """The plan of a stream. graph: of what runs, None if refnet has none; sources: where it is from."""
    return CapturePlan(
        who,
        given.arrays,
        stream.values,
        stream.outputs if graph is None else lambda: graph.outputs,
        said_sources(sources, given),
        None if graph is None else graph.structure_hash(),
        None if graph is None else graph.weights_hash(),
        given.remade and graph is not None,
        None if graph is None else len(graph.nodes),
        stream.left_out,
        stream.again,
        returned=stream.outputs,
        beyond=(lambda values: {}) if graph is None else partial(beyond_its_own, graph),
        kinds=dtypes(graph),
        any_kind=graph is not None,
    )


def dtypes(graph: Graph | None) -> dict[str, str]:
    """The dtypes of the graph's values."""
    types = {} if graph is None else graph.types()
    return {name: kind.dtype for name, kind in types.items()}
