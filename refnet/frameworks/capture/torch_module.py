"""A torch module as torch.export sees it, in a running process: its graph, its values, its single nodes.

exported ── torch.export, else torch.fx and then torch.export ── ExportedModule, or why neither went
                                                                    ├── plan      every value of it
                                                                    └── caller    one node of it, alone
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from refnet.core.errors import InputError, RefnetError
from refnet.core.graph import Graph
from refnet.core.op import F32, Op, TensorType
from refnet.formats.golden_file import Sources
from refnet.formats.manifest import NETWORK, Origin
from refnet.frameworks.caller import Caller, caller, node_caller
from refnet.frameworks.capture.stream import Stream, plan_of
from refnet.frameworks.capture.writer import Array, CapturePlan, write
from refnet.frameworks.process import Answer, Serves
from refnet.models.inputs import Inputs
from refnet.models.loading import load
from refnet.verification.capture import open_capture

LOG = logging.getLogger("refnet")
WAYS = {"torch.export": False, "torch.fx": True}
"""How a module is exported, in the order in which it is tried -> whether torch.fx records it first."""


@dataclass(frozen=True)
class ExportedModule:
    """A module, exported. graph: as refnet reads its .onnx, which lies in folder. order: of its inputs.

    worker: the process that has it. who: what its values are said to be by. unshown: nodes of the graph that
    are only parts of a node of the module's program, such as the product in a linear layer. any_batch: the
    graph is for any batch.
    """

    worker: Serves
    graph: Graph
    who: Origin
    folder: Path
    order: tuple[str, ...]
    unshown: frozenset[str]
    any_batch: bool

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


@dataclass(frozen=True)
class Asked:
    """A module that a worker has built, and what it is called with: in order, or (keywords) by name.

    name: of the module, for messages. mode: "exported", "eager", or None for what goes. may_vary: whether the
    graph is for any batch; None: if refnet can read that one, and the batch decides nothing in the module.
    """

    worker: Serves
    given: Inputs
    keywords: bool
    who: Origin
    name: str
    mode: str | None = None
    may_vary: bool | None = None


def module_plan(asked: Asked, folder: Path, own: Callable[[ExportedModule], Inputs]) -> CapturePlan:
    """Every value of the module: as it is exported, else by the names of its modules, without a graph.

    folder: an empty one, for its .onnx. own: the inputs by the names that the exported module has for them.
    Raises InputError if the mode is "exported", or the batch must vary, and that cannot be.
    """
    if asked.mode == "eager":
        return _by_modules(asked, {})
    if asked.mode == "exported" or asked.may_vary:
        module = the_module(asked, folder)
        return module.plan(own(module))
    found = _exported(asked, folder)
    if isinstance(found, ExportedModule):
        return found.plan(own(found))
    text = "%s is captured by the names of its modules, without a graph: torch cannot export it (%s)"
    LOG.warning(text, asked.name, _reasons(found))
    return _by_modules(asked, found)


def the_module(asked: Asked, folder: Path) -> ExportedModule:
    """The module, exported. Raises InputError if that cannot be, or its batch must vary and does not."""
    found = _exported(asked, folder)
    if not isinstance(found, ExportedModule):
        raise InputError(f"torch cannot export {asked.name}: {_reasons(found)}")
    if asked.may_vary and not found.any_batch:
        raise InputError(f"{asked.name} cannot be exported for any batch, only for {found.who.batch}")
    return found


def as_it_is(worker: Serves, given: Inputs, keywords: bool, threads: int) -> Stream:
    """The module's own forward, watched by hooks."""
    run = {"kept": True, "threads": threads, "keywords": keywords}
    return Stream(worker, "run", run, given.arrays)


def _by_modules(asked: Asked, refused: Mapping[str, str]) -> CapturePlan:
    who = replace(asked.who, flags={**asked.who.flags, **said(refused)})
    stream = as_it_is(asked.worker, asked.given, asked.keywords, who.threads)
    return plan_of(None, None, asked.given, who, stream)


def _exported(asked: Asked, folder: Path) -> ExportedModule | dict[str, str]:
    """The module, exported; else each way that was tried, and why it failed. Warns of what is unusual."""
    refused: dict[str, str] = {}
    for way, traced in WAYS.items():
        options = {"threads": asked.who.threads, "keywords": asked.keywords, "traced": traced}
        found = _attempt(asked, options, folder)
        if isinstance(found, str):
            refused[way] = found
            continue
        graph, answer = found
        differ = answer.field("differ", int)
        any_batch = bool(answer.fields.get("free"))
        flags = {"exported by": way, "graph for": "any batch" if any_batch else "this batch"}
        flags |= {"other bits than eager": str(differ)}
        who = replace(asked.who, mode="exported", flags={**asked.who.flags, **said(refused), **flags})
        order, shown = (tuple(map(str, answer.field(key, list))) for key in ("inputs", "values"))
        inner = frozenset(graph.by_name) - frozenset(shown) - frozenset(graph.outputs.values())
        if refused:
            text = "%s is captured as torch.fx records it: torch.export refuses it (%s)"
            LOG.warning(text, asked.name, refused["torch.export"])
        if differ:
            text = "%s: node by node, torch gives other bits in %d elements of the outputs than in one piece"
            LOG.warning(text, asked.name, differ)
        return ExportedModule(asked.worker, graph, who, folder, order, inner, any_batch)
    return refused


def _attempt(asked: Asked, options: Mapping[str, Any], folder: Path) -> tuple[Graph, Answer] | str:
    """The graph as refnet reads it, and what the worker says of it; or why it went wrong."""
    path, why = folder / NETWORK, ""
    for free in (False,) if asked.may_vary is False else (True, False):
        for one in folder.iterdir():
            one.unlink()
        request = {**options, "path": str(path), "free": free}
        answer = asked.worker.ask("export", request, asked.given.arrays)
        why = str(answer.field("refused", str))
        if not why:
            try:
                with _named(path):
                    return load(path), answer
            except RefnetError as error:
                why = str(error).replace(str(path), NETWORK)
        if not answer.fields.get("free"):
            break
    return why


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """While it holds, what is logged of the file calls it by its name in the capture."""

    def renamed(record: logging.LogRecord) -> bool:
        record.msg, record.args = record.getMessage().replace(str(path), NETWORK), ()
        return True

    LOG.addFilter(renamed)
    try:
        yield
    finally:
        LOG.removeFilter(renamed)


def said(refused: Mapping[str, str]) -> dict[str, str]:
    """What a manifest says of the ways that were refused.

    >>> said({"torch.export": "the data decide what is executed"})
    {'refused by torch.export': 'the data decide what is executed'}
    """
    return {f"refused by {way}": why for way, why in refused.items()}


def _reasons(refused: Mapping[str, str]) -> str:
    return "; ".join(f"{way}: {why}" for way, why in refused.items())
