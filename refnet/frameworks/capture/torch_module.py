"""A torch module as torch.export sees it, in a running process: its graph, its values, its single nodes.

exported ── torch.export, else torch.fx and then torch.export ── ExportedModule, or why neither went
                                                                    ├── plan      every value of it
                                                                    └── caller    one node of it, alone
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from refnet.core.errors import InputError, RefnetError
from refnet.core.graph import Graph
from refnet.core.op import F32, Op, TensorType
from refnet.formats.golden_file import Sources
from refnet.formats.manifest import Origin
from refnet.frameworks.caller import Caller, caller, node_caller
from refnet.frameworks.capture.stream import Stream, plan_of
from refnet.frameworks.capture.writer import Array, CapturePlan, write
from refnet.frameworks.process import Worker
from refnet.models.inputs import Inputs
from refnet.models.loading import load
from refnet.verification.capture import open_capture

NETWORK = "network.onnx"
"""The graph of a torch module, in the folder of its capture."""
WAYS = {"torch.export": False, "torch.fx": True}
"""How a module is exported, in the order in which it is tried -> whether torch.fx records it first."""


@dataclass(frozen=True)
class ExportedModule:
    """A module, exported. graph: as refnet reads its .onnx, which lies in folder. order: of its inputs.

    worker: the process that has it. who: what its values are said to be by. unshown: nodes of the graph that
    are only parts of a node of the module's program, such as the product in a linear layer.
    """

    worker: Worker
    graph: Graph
    who: Origin
    folder: Path
    order: tuple[str, ...]
    unshown: frozenset[str]

    def plan(self, given: Inputs) -> CapturePlan:
        """Its values, node by node, for these inputs; with its graph beside them."""
        arrays = {name: given.arrays[name] for name in self.order}
        stream = Stream(self.worker, "run_exported", {"threads": self.who.threads}, arrays)
        sources = Sources(NETWORK, None, "", None, None, None)
        plan = plan_of(self.graph, sources, replace(given, arrays=arrays), self.who, stream)
        return replace(plan, files={one.name: one for one in sorted(self.folder.iterdir())})

    def read_back(self, plan: CapturePlan) -> CapturePlan:
        """The plan; all values are computed before the first is seen, so that `caller` may be used then."""

        def stored(plan: CapturePlan) -> Iterator[tuple[str, Array]]:
            with tempfile.TemporaryDirectory(prefix="refnet-values-") as folder:
                write(folder, replace(plan, outputs=dict, left_out=dict, files={}))
                capture = open_capture(folder)
                for name in capture.names:
                    yield name, capture.value(name)

        def again(inputs: Mapping[str, F32]) -> Iterator[tuple[str, Array]]:
            assert plan.again is not None
            return stored(replace(plan, inputs=inputs, values=partial(plan.again, inputs)))

        return replace(plan, values=partial(stored, plan), again=again)

    def alone(self, names: Sequence[str], types: Sequence[TensorType]) -> tuple[str | None, str]:
        """The first of these nodes that is one node of the module's program, or None; and why others are not.

        types: of the inputs that it is to be given.
        """
        shapes = [list(kind.shape) for kind in types]
        nodes = {name: [list(self.graph.by_name[name].inputs), shapes] for name in names}
        said = self.worker.ask("alone", {"nodes": nodes}).field("refused", dict)
        found = next((name for name in names if name not in said), None)
        return found, str(next(iter(said.values()), ""))

    def caller(self, op: Op, types: Sequence[TensorType], names: Sequence[str]) -> Caller:
        """What executes this op, which nodes of these names have: one of them; else torch's own function.

        Raises UnsupportedError where there is neither.
        """
        name, _ = self.alone(names, types)
        if name is None:
            return caller("torch", self.worker, op, types, self.who.threads)
        return node_caller(self.worker, name, self.graph.by_name[name].inputs, op, types, self.who.threads)


def exported(
    worker: Worker,
    arrays: Mapping[str, Array],
    keywords: bool,
    who: Origin,
    folder: Path,
    may_vary: bool = True,
) -> ExportedModule | dict[str, str]:
    """The module that the worker has built, exported; else each way that was tried, and why it failed.

    arrays: what it is called with, in order or (keywords) by name. folder: an empty one, for its .onnx.
    may_vary: whether the graph may be for any batch. If refnet cannot read that one, or the batch decides
    something in the module, it is for this batch alone.
    """
    refused: dict[str, str] = {}
    for way, traced in WAYS.items():
        asked = {"threads": who.threads, "keywords": keywords, "traced": traced}
        found = _attempt(worker, arrays, asked, folder, may_vary)
        if isinstance(found, str):
            refused[way] = found
            continue
        graph, order, shown, differ = found
        flags = {**who.flags, **said(refused), "exported by": way, "other bits than eager": str(differ)}
        who = replace(who, mode="exported", flags=flags)
        inner = frozenset(graph.by_name) - shown - frozenset(graph.outputs.values())
        return ExportedModule(worker, graph, who, folder, order, inner)
    return refused


def _attempt(
    worker: Worker, arrays: Mapping[str, Array], asked: Mapping[str, Any], folder: Path, may_vary: bool
) -> tuple[Graph, tuple[str, ...], frozenset[str], int] | str:
    """The graph, its inputs in order, which values will be shown, and how many elements of the outputs differ
    from eager; or why it went wrong.
    """
    path, why = folder / NETWORK, ""
    for free in (True, False) if may_vary else (False,):
        for one in folder.iterdir():
            one.unlink()
        answer = worker.ask("export", {**asked, "path": str(path), "free": free}, arrays)
        why = str(answer.field("refused", str))
        if not why:
            try:
                order, shown = (tuple(map(str, answer.field(key, list))) for key in ("inputs", "values"))
                return load(path), order, frozenset(shown), answer.field("differ", int)
            except RefnetError as error:
                why = str(error).replace(str(path), NETWORK)
        if not answer.fields.get("free"):
            break
    return why


def said(refused: Mapping[str, str]) -> dict[str, str]:
    """What a manifest says of the ways that were refused.

    >>> said({"torch.export": "the data decide what is executed"})
    {'refused by torch.export': 'the data decide what is executed'}
    """
    return {f"refused by {way}": why for way, why in refused.items()}


def no_way(model: str, refused: Mapping[str, str]) -> InputError:
    """The error of a module that was to be exported."""
    return InputError(f"torch cannot export {model}: {reasons(refused)}")


def reasons(refused: Mapping[str, str]) -> str:
    """Why a module could not be exported.

    >>> reasons({"torch.export": "a", "torch.fx": "b"})
    'torch.export: a; torch.fx: b'
    """
    return "; ".join(f"{way}: {why}" for way, why in refused.items())
