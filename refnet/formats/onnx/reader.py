"""An .onnx file -> Graph: each node of the file one node, each value under its own name.

    read_onnx ── file.open_model ── _needed ── _build (per batch) ── fold.fold | ops.RULES | Bodies | Opaques
      └──── _finished ── assembly.assembled

Constants, and what is computed of constants and shapes alone, are folded. Shapes may depend on the batch: the
graph is built for the batches 1, 2 and 3, and the three must be one (a reshape copies or infers dimensions).
What refnet cannot compute is an opaque node, or is left out if it is no float32 value of a known shape.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.errors import FormatError, GraphError, UnsupportedError, WeightsError
from refnet.core.graph import Graph
from refnet.core.op import F32
from refnet.formats.assembly import BATCHES, Building, Made, assembled
from refnet.formats.bounded import text
from refnet.formats.onnx.bodies import DEFINED, Attempt, Bodies
from refnet.formats.onnx.computed import Bound, Golden
from refnet.formats.onnx.evaluator import Evaluator
from refnet.formats.onnx.file import Model, OnnxNode, open_model
from refnet.formats.onnx.fold import as_cast, shape_of
from refnet.formats.onnx.folding import Folding
from refnet.formats.onnx.inference import Inference
from refnet.formats.onnx.older import modern
from refnet.formats.onnx.ops import KNOWN, made_of
from refnet.formats.onnx.sequences import Sequences
from refnet.formats.onnx.sizes import Shapes, stated
from refnet.formats.onnx.use import Use, others_differ
from refnet.formats.opaque import Opaques, Operation, Said, reason
from refnet.ops import TensorType

Array = npt.NDArray[Any]


def read_onnx(
    path: str | os.PathLike[str],
    image: tuple[int, int] | None = None,
    shapes: Shapes | None = None,
    golden: Golden | None = None,
    bound: Bound | None = None,
) -> Graph:
    """The graph of an .onnx file with its weights.

    image: (h, w) of the one input (n, c, h, w), instead of those in the file; needed where it leaves them
    open. shapes: input -> all its dimensions, where several are open; the batch is then what they say.
    golden: computes float32 arithmetic of constants, where a file has some; bound: says where others' results
    lie (computed.py).
    Values and weights keep ONNX's names. A constant that stands where an op takes a value becomes a
    `Constant` node of its name, whose weight is called NAME/value. Outputs: see `with_outputs`.
    Nodes that no output needs are left out. An operator or a mode that refnet does not have is an `Opaque`
    node; an output that is no float32 value is replaced by the values that it is made of.
    Raises InputError (the package onnx or a size is missing), FormatError, UnsupportedError (a form of file),
    GraphError (shapes that do not fit), WeightsError. Source: the ONNX operator schemas.

    >>> read_onnx("missing.onnx")
    Traceback (most recent call last):
    refnet.core.errors.FormatError: missing.onnx: found no such file
    """
    model = open_model(path)
    try:
        with Evaluator() as evaluator:
            return _graph(model, image, shapes, Folding(model, evaluator, golden, bound))
    except (GraphError, WeightsError) as error:
        raise type(error)(f"{model.file}: {error}") from None
    except UnicodeDecodeError:
        raise FormatError(model.file, None, "a name that is no UTF-8", "text") from None


def _graph(
    model: Model,
    image: tuple[int, int] | None,
    shapes: Shapes | None,
    folding: Folding,
) -> Graph:
    nodes = _needed(model)
    read = {name for node in nodes for name in node.inputs} | {*model.outputs}
    inputs = {name: shape for name, shape in model.inputs.items() if name in read}
    if not inputs:
        raise UnsupportedError(f"{model.file}: its outputs are constant: no input is read")
    inputs = stated(model.file, inputs, image, shapes)
    fixed = all(isinstance(shape[0], int) for shape in inputs.values())
    builds: list[Building] = []
    opaques = []
    for batch in (None,) if fixed else BATCHES:
        types = {
            name: TensorType(tuple(n if isinstance(n, int) else batch or 1 for n in shape), model.kinds[name])
            for name, shape in inputs.items()
        }
        try:
            built, without = _build(model, nodes, types, folding, first=not builds)
            builds.append(built)
            opaques.append(without)
        except (GraphError, FormatError) as error:
            if batch in (None, 1):
                raise
            raise UnsupportedError(
                f"{error} (with a batch of {batch}: give the input a fixed batch of 1)"
            ) from None
    return _finished(model, builds, opaques[0], folding.rounded)


def _needed(model: Model) -> list[OnnxNode]:
    """The nodes that the outputs need, in order."""
    wanted, kept = {*model.outputs}, []
    for node in reversed(model.nodes):
        if wanted.intersection(filter(None, node.outputs)):
            kept.append(node)
            wanted.update(node.inputs)
    return kept[::-1]


class _Constants(dict[str, Array]):
    """Folded values, and the file's own, decoded when they are asked for."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def __missing__(self, name: str) -> Array:
        return self.model.constants[name]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.model.constants.tensors


def _build(
    model: Model, nodes: list[OnnxNode], inputs: dict[str, TensorType], folding: Folding, first: bool
) -> tuple[Building, Opaques]:
    constants = _Constants(model)
    building, opaques = Building(dict(inputs), constants, inputs), Opaques()
    inference = Inference(folding.evaluator)
    wanted = {name for node in nodes for name in node.inputs} | {*model.outputs}
    sequences, bodies = Sequences(nodes, model.outputs), Bodies(model)

    def add(node: OnnxNode, inside: bool = False) -> None:
        """The node, what is folded, or an opaque one for each value that refnet cannot make. inside: it is
        one of a definition."""
        if twice := [one for one in node.outputs if one and (one in building.types or one in constants)]:
            raise node.wrong(f"a second value {twice[0][:100]!r}", "one of a name")  # a helper's, of a rule
        lost = opaques.lost(node.inputs)
        if node.op == "CastLike" and node.inputs[0] in constants and not lost:
            node = as_cast(node, building.type(node.inputs[1]).dtype)
        values = [name for name in node.inputs if name in building.types]
        if node.op in DEFINED and not lost:
            ready = by_definition(node)
        elif (not values and not lost) or (node.op in ("Shape", "Size") and node.inputs[0] in building.types):
            try:
                outputs = (
                    [*shape_of(node, building.types[values[0]].shape)]
                    if values
                    else folding.outputs(node, constants, inside)
                )
            except UnsupportedError as error:
                ready = refused(node, reason(node, error))
            else:
                named = zip(node.outputs, outputs, strict=False)
                constants.update({name: x for name, x in named if name and x is not None})
                return
        else:
            ready = _made(node, building, opaques, inference, wanted, folding.rounded)
        for made, kind_ in ready:
            building.types[made.name] = kind_
            building.made.append(made)

    def refused(node: OnnxNode, why: str) -> list[tuple[Made, TensorType]]:
        return opaques.refused(_operation(node), why, building, _said(node, building, inference))

    def by_definition(node: OnnxNode) -> list[tuple[Made, TensorType]]:
        """Nothing where its definition is built in its place; else it is opaque, with the reason."""
        attempt = Attempt(building, constants, opaques)
        try:
            for one in bodies.of(node, building, wanted):
                add(one, inside=True)
            lacks = attempt.failed()
            why = f"its definition has {lacks}" if lacks else ""
        except UnsupportedError as error:
            why = reason(node, error)
        if not why:
            return []
        attempt.undo()
        return refused(node, why)

    for node in _newer(nodes, sequences, building, constants, folding if first else None):
        add(node)
    return building, opaques


def _newer(
    nodes: list[OnnxNode],
    sequences: Sequences,
    building: Building,
    constants: _Constants,
    folding: Folding | None,
) -> Iterator[OnnxNode]:
    """The nodes as today's opset says them. folding: after each it forgets the constants that neither the
    graph nor a later node reads; in later builds, what they were for is known."""
    kept, seen = {*constants.model.outputs}, 0
    last: dict[str, int] = {}
    for i, node in enumerate(nodes):
        last.update(dict.fromkeys(node.inputs, i))
    for i, old in enumerate(nodes):
        for new in modern(old, lambda name: _shape(name, building)):
            if not sequences.taken(new):
                yield sequences.at(new)
        if folding is None:
            continue
        in_each = old.op in DEFINED or old.op == "CastLike"  # these are written out in each build
        if in_each or not folding.knows(old.outputs):
            kept.update(old.inputs)
        kept.update(name for made in building.made[seen:] for name in (*made.data, *made.weights))
        seen = len(building.made)
        for name in {*old.inputs} - kept:
            if last[name] == i:
                folding.forget(name, constants)


def _shape(name: str, building: Building) -> tuple[int, ...] | None:
    """The shape of a value or constant; None if it is neither."""
    known = name in building.types or name in building.constants
    return building.type(name).shape if known else None


def _made(
    node: OnnxNode,
    building: Building,
    opaques: Opaques,
    inference: Inference,
    wanted: Collection[str],
    rounded: Mapping[str, F32 | None],
) -> list[tuple[Made, TensorType]]:
    """The nodes of a node's outputs with their types; opaque ones if refnet cannot compute them."""

    def rule() -> list[Made]:
        if not node.inputs[0]:
            raise node.wrong("an empty first input")
        given, differ = frozenset(building.inputs), others_differ(rounded)
        use = Use(node, building.types, building.constants, wanted, given, differ)
        made = made_of(use)
        if (name := use.attributed(made)) is not None:
            raise node.unsupported(
                f"its {name[:100]!r} was computed of constants, with roundings; the framework's may differ"
            )
        return made

    return opaques.made(
        _operation(node),
        rule if node.op in KNOWN else None,
        building,
        wanted,
        _said(node, building, inference),
    )


def _operation(node: OnnxNode) -> Operation:
    return Operation(node, node.op, node.inputs, node.outputs)


def _said(node: OnnxNode, building: Building, inference: Inference) -> Callable[[], Mapping[str, Said]]:
    return lambda: inference.said(node, building.types, building.constants)


def _finished(
    model: Model, builds: list[Building], opaques: Opaques, rounded: Mapping[str, F32 | None]
) -> Graph:
    """One graph of what was built for each batch. rounded: see `Folding`."""
    first = builds[0]
    kept = opaques.heads(model.file, model.outputs, first.inputs)
    found = _float_heads(model, kept, first.constants, {*first.types})
    name = text(Path(model.file).name.removesuffix(".onnx"))
    return assembled(model.file, name, found, builds, rounded, model.returned)


def _float_heads(
    model: Model, outputs: list[str], constants: Mapping[str, Array], values: Collection[str]
) -> list[str]:
    """The outputs but for constant ones of another type than float32 (a shape, say) or empty ones; those are
    named."""
    fixed = {name: constants[name] for name in outputs if name not in values}
    other = [name for name, one in fixed.items() if one.dtype != np.float32 or not one.size]
    shown = ", ".join(f"{n[:100]!r} ({constants[n].dtype}{list(constants[n].shape)})" for n in other[:8])
    if len(other) == len(outputs):
        raise UnsupportedError(f"{model.file}: its outputs are constants that are no float32 values: {shown}")
    if other:
        text = "%s: left out the outputs that no data decides and that are no float32 values: %s"
        logging.getLogger("refnet").warning(text, model.file, shown)
    return [name for name in outputs if name not in other]
