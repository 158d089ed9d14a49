"""From image files or a tensor file to the most probable classes: what `refnet run` does.

predict ── batches ── pipeline.apply | npy.read
   └── interpreter.run ── top
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from refnet.arithmetic.run import run
from refnet.core.errors import InputError
from refnet.core.graph import Graph
from refnet.core.interpreter import Arithmetic
from refnet.core.op import F32, TensorType
from refnet.core.words import did_you_mean
from refnet.formats.npy import Npy, open_npy

if TYPE_CHECKING:
    from refnet.models.labels import Label
    from refnet.models.preprocess import Pipeline


@dataclass(frozen=True)
class Prediction:
    """One class of one image. rank: 1 is the most probable. index: the class id, from 0."""

    rank: int
    index: int
    probability: np.float32
    label: str = ""
    synset: str = ""

    @property
    def bits(self) -> str:
        """The probability's 32 bits.

        >>> Prediction(1, 7, np.float32(1)).bits
        '0x3f800000'
        """
        return f"0x{int(self.probability.view(np.uint32)):08x}"


def top(row: F32, count: int = 5, labels: Sequence[Label] = ()) -> tuple[Prediction, ...]:
    """The `count` largest of a row of probabilities, the largest first.

    Equal ones stand in the order of their class ids, NaN after all numbers. labels: one per class;
    ignored if there are more or fewer of them than classes.

    >>> [(p.index, str(p.probability)) for p in top(np.float32([0.25, 0.5, 0.25]), 2)]
    [(1, '0.5'), (0, '0.25')]
    """
    order = np.argsort(-row, kind="stable")[:count]
    known = len(labels) == len(row)
    return tuple(
        Prediction(rank, int(i), row[i], labels[i].name if known else "", labels[i].synset if known else "")
        for rank, i in enumerate(order, 1)
    )


def image_batches(paths: Sequence[Path], pipeline: Pipeline, size: int = 8) -> Iterator[F32]:
    """Input tensors (at most size, c, h, w) of image files, in their order.

    Every image is read once before the first batch is given out, so that a file that is no image
    ends a long run at its beginning and not in its middle.
    """
    if len(paths) > size:
        for path in paths:
            pipeline.apply(path)
    for i in range(0, len(paths), size):
        yield np.concatenate([pipeline.apply(path) for path in paths[i : i + size]])


def tensor_batches(tensor: Npy, size: int = 8) -> Iterator[F32]:
    """Input tensors (at most size, c, h, w) of a tensor file, in their order."""
    for i in range(0, tensor.shape[0], size):
        yield tensor.read(i, min(i + size, tensor.shape[0]))


def input_tensor(path: Path, kind: TensorType) -> Npy:
    """The .npy file as a batch of inputs of this type: (n, c, h, w), or (c, h, w) for one.

    Raises InputError, naming the file, for another dtype or shape; FormatError if it is no .npy file.
    """
    found = open_npy(path, kind.dtype)
    want = kind.shape[1:]
    if found.shape == want:
        return replace(found, shape=(1, *want))
    if found.shape[1:] != want:
        shown = ", ".join(map(str, want))
        raise InputError(f"{path}: must have the shape [{shown}] or [n, {shown}], found {list(found.shape)}")
    return found


def predict(
    graph: Graph,
    batches: Iterator[F32 | Mapping[str, F32]],
    arithmetic: Arithmetic | None = None,
    values: Collection[str] = (),
) -> Iterator[dict[str, F32]]:
    """Run every batch through a graph: {name: array} of outputs, and of other values.

    batches: arrays of the one input, or of all inputs by name. values: names of outputs or of values; the
    result has them under the name that was asked for. Raises InputError before the first batch if the graph
    has no such value.
    """
    names = {name: graph.outputs.get(name, name) for name in [*graph.outputs, *values]}
    for name in names.values():
        if name not in graph.by_name:
            hint = did_you_mean(name, [*graph.outputs, *graph.by_name])
            raise InputError(f"{graph.name} has no output and no value {name!r}{hint}")
    for batch in batches:
        if not isinstance(batch, Mapping) and len(graph.inputs) != 1:
            listed = ", ".join(graph.inputs)
            raise InputError(f"{graph.name} has {len(graph.inputs)} inputs ({listed}), not one")
        given = batch if isinstance(batch, Mapping) else dict.fromkeys(graph.inputs, batch)
        found = run(graph, given, arithmetic, set(names.values()))
        yield {asked: found[name] for asked, name in names.items()}
