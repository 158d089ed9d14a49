"""Calls of an engine with every op and shape of the model tables, and convolutions of them in every order.

The tables are the networks that refnet builds, and the official symbol files where they are present.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from refnet.core.engine import ConvGeometry, Engine
from refnet.core.graph import Graph
from refnet.core.op import Op, TensorType
from refnet.formats.mxnet.reader import read_symbol
from refnet.models.catalog import entries
from refnet.models.loading import structure
from refnet.ops import Conv
from tests.helpers.bits import floats
from tests.helpers.engine_cases import IN_ORDER, seeds
from tests.helpers.official import SYMBOLS

Shape = tuple[int, ...]

SOME = ("resnest-50-pytorch", "octave-se-resnet-50-0.125", "octave-resnext-50-0.25")
"""Networks whose shapes the default suite samples."""
PLACES = 300
"""Outputs of a convolution that are compared where all would take too long."""


@dataclass(frozen=True)
class OpCase:
    """An op on inputs of these shapes. all(engine) computes its value, whole; some(engine), of its outputs.

    order: the name of an order of summation, or "" for the op in plain arithmetic.
    """

    op: Op
    inputs: tuple[Shape, ...]
    order: str = ""

    @property
    def name(self) -> str:
        return f"{self.op} {self.inputs} {self.order}".strip()

    @property
    def cost(self) -> int:
        """Multiply-adds of a convolution or dense layer, else the elements that come in."""
        if isinstance(self.op, Conv):
            return _size(self.output) * _size(self.inputs[1][1:])
        return max(map(_size, self.inputs)) * self.inputs[0][0]

    @property
    def output(self) -> Shape:
        return self.op.type(*map(TensorType, self.inputs)).shape

    def arrays(self) -> list[np.ndarray]:
        """One array per input, from its shape."""
        return [floats(shape, ("model", i)) for i, shape in enumerate(self.inputs)]

    def on(self, engine: Engine, places: np.ndarray | None = None) -> np.ndarray:
        """The value, or its elements at these flat places (only in an order)."""
        arrays = self.arrays()
        if not self.order:
            return self.op.run(*arrays, engine=engine)
        assert isinstance(self.op, Conv)
        terms, kernel = _size(self.inputs[1][1:]), self.op.kernel
        expr = IN_ORDER[self.order](terms, _size(kernel))
        bias, addend = seeds(self.order, self.output)
        geometry = ConvGeometry(self.op.stride, self.op.pad, self.op.dilation, self.op.groups)
        given: dict[str, Any] = {"addend": addend, "places": places}
        where = (geometry, kernel, self.output[2:])
        return engine.conv_in_order(arrays[0], arrays[1], bias, *where, expr, self.order == "blocks", **given)


def _size(shape: Iterable[int]) -> int:
    return int(np.prod(list(shape)))


def networks(names: Iterable[str]) -> Iterator[Graph]:
    for name in names:
        yield structure(name)


def official() -> Iterator[Graph]:
    """The symbol files, if they are here."""
    for path in sorted(SYMBOLS.glob("*-symbol.json")):
        yield read_symbol(path)


def built() -> list[str]:
    """The names of all networks of the tables that refnet builds."""
    return list(entries())


def cases(graphs: Iterable[Graph]) -> list[OpCase]:
    """Each distinct op and shapes, in plain; and each convolution in one order more, by turns."""
    found: dict[OpCase, None] = {}
    for graph in graphs:
        types = graph.types()
        for node in graph.nodes:
            found[OpCase(node.op, tuple(types[name].shape for name in node.inputs))] = None
    convolutions = [one for one in found if isinstance(one.op, Conv)]
    ordered = [
        OpCase(one.op, one.inputs, list(IN_ORDER)[i % len(IN_ORDER)]) for i, one in enumerate(convolutions)
    ]
    return [*found, *ordered]


def sample(made: list[OpCase], count: int, most: int) -> list[OpCase]:
    """So many of the cases that cost at most so much, spread over the list."""
    cheap = [one for one in made if one.cost <= most]
    return [cheap[i * len(cheap) // count] for i in range(count)]
