"""An .xml of OpenVINO's IR, with the .bin beside it -> Graph: each layer on values one node.

    read_ir ── file.open_model ── names.value_names ── _needed ── _build (per batch) ── fold.fold | ops.RULES
       └────── assembly.assembled                                                         | Opaques.made

Constants, and what is computed of constants and shapes alone, are folded. Where the file leaves the batch
open, the graph is built for the batches 1, 2 and 3, which must be one graph. What refnet cannot compute is an
opaque node of the shape that its port has in the file, or is left out if that is no float32 of a known shape.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from refnet.core.errors import FormatError, GraphError, InputError, UnsupportedError, WeightsError
from refnet.core.graph import Graph
from refnet.formats.assembly import BATCHES, LARGEST_VALUE, Building, Made, assembled
from refnet.formats.bounded import text
from refnet.formats.opaque import Opaques, Operation, Said, fitting
from refnet.formats.openvino.constants import Weights
from refnet.formats.openvino.file import Layer, Model, Place, Port, open_model
from refnet.formats.openvino.fold import LEAST, fold, shape_of
from refnet.formats.openvino.names import value_names
from refnet.formats.openvino.ops import RULES
from refnet.formats.openvino.use import Use, as_float32
from refnet.formats.openvino.window import joined
from refnet.ops import Softmax, TensorType

Array = npt.NDArray[Any]
Names = Mapping[Place, str]

FLOATS = ("f32", "f16")
PRECISIONS = ("FP32", "FP16")
"""Of ports: as FLOATS."""
SHAPES = ("ShapeOf",)


def read_ir(path: str | os.PathLike[str], image: tuple[int, int] | None = None) -> Graph:
    """The graph of an .xml with the weights of the .bin beside it.

    image: (h, w) of the one input (n, c, h, w), instead of those in the file; needed where it leaves them
    open. A value has the first name of its port, or the layer's name where the port has none: see
    `names.value_names`. float16 weights become the float32 of the same numbers. Outputs: what the Result
    layers read, as `with_outputs` calls them. Layers that no output needs are left out. A type, version or
    mode of a layer that refnet does not have is an `Opaque` node; an output that is no float32 value is
    replaced by the values that it is made of.
    Raises InputError (a size is missing), FormatError, UnsupportedError (a version of the format; layers on
    constants alone), GraphError (shapes that do not fit), WeightsError. Source: OpenVINO's opsets.

    >>> read_ir("missing.xml")
    Traceback (most recent call last):
    refnet.core.errors.FormatError: missing.xml: found no such file
    """
    model = open_model(path)
    try:
        return _graph(model, image)
    except (GraphError, WeightsError) as error:
        raise type(error)(f"{model.file}: {error}") from None


def _graph(model: Model, image: tuple[int, int] | None) -> Graph:
    names = value_names(model)
    layers = _needed(model)
    heads = [names[place] for layer in layers if layer.type == "Result" for place in model.sources[layer.id]]
    if not heads:
        raise FormatError(model.file, None, "no Result layer", "at least one")
    inputs = {names[layer.id, 0]: layer for layer in layers if layer.type == "Parameter"}
    if not inputs:
        raise UnsupportedError(f"{model.file}: its outputs are constant: no input is read")
    sizes = {name: _dimensions(layer) for name, layer in inputs.items()}
    rest = _sizes(model, sizes, image)
    fixed = all(shape[0] >= 0 for shape in sizes.values())
    as_stored = all(rest[name] == shape[1:] for name, shape in sizes.items())
    folding = _Folding(model, names)
    builds, opaques = [], []
    for batch in (None,) if fixed else BATCHES:
        types = {
            name: TensorType((n if (n := sizes[name][0]) >= 0 else batch or 1, *shape))
            for name, shape in rest.items()
        }
        try:
            ports = _Ports(None if fixed else batch, as_stored)
            built, without = _build(model, layers, names, types, folding, ports)
            builds.append(built)
            opaques.append(without)
        except (GraphError, FormatError) as error:
            if batch in (None, 1):
                raise
            raise UnsupportedError(
                f"{error} (with a batch of {batch}: give the input a fixed batch of 1)"
            ) from None
    heads = opaques[0].heads(model.file, list(dict.fromkeys(heads)), inputs)
    graph = assembled(model.file, text(Path(model.file).name.removesuffix(".xml")), heads, builds)
    _say(model, graph)
    return graph


def _say(model: Model, graph: Graph) -> None:
    """Tell of an output whose name promises probabilities and that has none."""
    log = logging.getLogger("refnet")
    logits = graph.outputs.get("logits")
    if logits == "prob" and not isinstance(graph.by_name[logits].op, Softmax):
        log.warning(
            "%s: its output 'prob' holds logits (no SoftMax before the Result): "
            "refnet puts the softmax on top", model.file
        )  # fmt: skip


def _needed(model: Model) -> list[Layer]:
    """The layers that the Results need, in order."""
    wanted = {layer.id for layer in model.of_type("Result")}
    for layer in reversed(model.layers):
        if layer.id in wanted:
            wanted.update(a for a, _ in model.sources[layer.id])
    return [layer for layer in model.layers if layer.id in wanted]


def _dimensions(layer: Layer) -> tuple[int, ...]:
    """The dimensions of a Parameter: -1 is open ("?", "-1", "1..8")."""
    kind = layer.attributes.get("element_type", "")
    if kind not in FLOATS:
        raise layer.unsupported(f"element_type {kind[:60]!r}, refnet's values are float32")
    parts = [part.strip() for part in layer.attributes.get("shape", "").split(",", 33)]
    if len(parts) > 32 or parts == [""]:
        raise layer.wrong(f"shape {layer.attributes.get('shape', '')[:60]!r}", "1 to 32 dimensions")
    found = []
    for part in parts:
        if part in ("?", "-1") or ".." in part:
            found.append(-1)
        elif part.isascii() and part.isdecimal() and len(part) < 11 and int(part) >= 1:
            found.append(int(part))
        else:
            raise layer.wrong(f"dimension {part[:30]!r}", "a number from 1 on, or ?")
    return tuple(found)


def _sizes(
    model: Model, inputs: Mapping[str, tuple[int, ...]], image: tuple[int, int] | None
) -> dict[str, tuple[int, ...]]:
    """The dimensions of each input after the batch."""
    found = {}
    maps = [name for name, shape in inputs.items() if len(shape) == 4]
    if image is not None and len(maps) != 1:
        raise InputError(
            f"{model.file}: image takes the size of one input (n, c, h, w); the file has {len(maps)}"
        )
    for name, shape in inputs.items():
        rest = [*shape[1:]]
        if image is not None and name in maps:
            rest[1:] = image
        if -1 in rest:
            shown = ", ".join("?" if n < 0 else str(n) for n in shape)
            gives = len(shape) == 4 and rest[0] >= 0
            how = "image (--image H,W) gives it" if gives else "the file must say it"
            raise InputError(f"{model.file}: input {name[:100]!r} is [{shown}]: of what size? {how}")
        found[name] = tuple(rest)
        if TensorType(found[name]).size > LARGEST_VALUE:
            raise FormatError(
                model.file, None, f"input {name[:100]!r} of {rest}", f"at most {LARGEST_VALUE} elements"
            )
    return found


class _Folding:
    """The constants of all builds: those of the file, and what is computed of them alone."""

    def __init__(self, model: Model, names: Names) -> None:
        self.model, self.names = model, names
        self.weights = Weights(model.file)
        self.arrays: dict[str, Array] = {}
        bin_size = os.path.getsize(self.weights.file) if os.path.isfile(self.weights.file) else 0
        self.left = max(LEAST, 2 * (model.size + bin_size))

    def spend(self, arrays: list[Array]) -> None:
        """Count elements that have been folded."""
        self.left -= sum(x.size for x in arrays)


@dataclass(frozen=True)
class _Ports:
    """What the ports in a file say of values. batch: for an open one; None: it is fixed.

    as_stored: False where other sizes of the inputs are asked for than those that the ports were written for.
    """

    batch: int | None
    as_stored: bool

    def said(self, layer: Layer, names: Sequence[str]) -> dict[str, Said]:
        """Of each output of a layer."""
        return {
            name: Said(self._shape(port) if self.as_stored else None, port.precision in PRECISIONS)
            for name, port in zip(names, layer.outputs, strict=True)
        }

    def _shape(self, port: Port) -> tuple[int, ...] | None:
        dims = [*port.dims]
        if dims and dims[0] == -1 and self.batch is not None:
            dims[0] = self.batch
        return fitting(dims)


def _build(
    model: Model,
    layers: list[Layer],
    names: Names,
    inputs: dict[str, TensorType],
    folding: _Folding,
    ports: _Ports,
) -> tuple[Building, Opaques]:
    constants = dict(folding.arrays)
    building, opaques = Building(dict(inputs), constants, inputs), Opaques()
    wanted = frozenset(names[place] for layer in layers for place in model.sources[layer.id])
    pure = set(folding.arrays)
    for layer in layers:
        read = tuple(names[place] for place in model.sources[layer.id])
        made = tuple(names[layer.id, k] for k in range(len(layer.outputs)))
        if layer.type in ("Parameter", "Result") or (made and all(name in constants for name in made)):
            continue
        if layer.type == "Const":
            folding.arrays[made[0]] = constants[made[0]] = folding.weights.read(layer)
            pure.add(made[0])
            continue
        use = Use(layer, read, made, building.types, constants, wanted)
        by_shape = layer.type in SHAPES and not opaques.lost(read)
        if by_shape or not any(name in building.types or name in opaques.left_out for name in read):
            arrays = shape_of(use) if by_shape else fold(use, folding.left)
            folding.spend(arrays)
            if len(made) != len(arrays):
                raise layer.wrong(f"{len(made)} outputs", f"{len(arrays)}")
            found = dict(zip(made, arrays, strict=True))
            constants.update(found)
            if not by_shape and pure.issuperset(read):
                folding.arrays.update(found)
                pure.update(found)
            continue
        for one, kind in _made(use, building, opaques, constants, ports):
            building.types[one.name] = kind
            building.made.append(one)
    return building, opaques


def _made(
    use: Use, building: Building, opaques: Opaques, constants: dict[str, Array], ports: _Ports
) -> list[tuple[Made, TensorType]]:
    """The nodes of a layer that works on values, with their types."""
    layer = use.layer
    known = layer.type in RULES and layer.opset in RULES[layer.type][1]

    def rule() -> list[Made]:
        found = RULES[layer.type][0](use)
        for made in found:
            for name in made.weights:
                _prepared(name, constants)
            for name in made.data:
                if name in constants:
                    constants[name] = as_float32(constants[name])
        return found

    return opaques.made(
        Operation(layer, layer.kind, use.inputs, use.outputs),
        rule if known else None,
        building,
        use.wanted,
        lambda: ports.said(layer, use.outputs),
    )


def _prepared(name: str, constants: dict[str, Array]) -> None:
    """The weight as the op takes it: float32, and a group convolution's in four dimensions."""
    whole = name.removesuffix(joined(""))
    if name not in constants and whole in constants:
        groups, channels, *rest = constants[whole].shape
        constants[name] = constants[whole].reshape(groups * channels, *rest)
    constants[name] = as_float32(constants[name])
