"""What an IR does to its input before the network: whether it takes pixels, and which means it subtracts."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from refnet.formats.openvino.constants import Weights
from refnet.formats.openvino.file import Layer, Model, open_model
from refnet.formats.openvino.use import as_float32

MARK = "preprocessing"
"""The name in rt_info of a layer that a converter made of preprocessing."""


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing inside of a file. means: one per channel of its input, None if none stand apart.

    A scale and a change of the channels' order are folded into the first convolution: they cannot be told.
    """

    means: tuple[float, ...] | None


def preprocessing(path: str | os.PathLike[str]) -> Preprocessing | None:
    """What an .xml does to its one input; None if it has no trace of preprocessing.

    Means: the first layer subtracts a constant per channel, or adds its negative (as converters of version 10
    wrote). Errors: as `open_model`, and FormatError for a damaged constant.
    """
    model = open_model(path)
    means = _means(model)
    marked = any(MARK in layer.marks for layer in model.layers)
    return Preprocessing(means) if marked or means is not None else None


def _means(model: Model) -> tuple[float, ...] | None:
    """What the only reader of the only input subtracts from each channel."""
    inputs = model.of_type("Parameter")
    if len(inputs) != 1:
        return None
    readers = [layer for layer in model.layers if any(a == inputs[0].id for a, _ in model.sources[layer.id])]
    if len(readers) != 1 or readers[0].type not in ("Subtract", "Add"):
        return None
    first = readers[0]
    read = [model.by_id[a] for a, _ in model.sources[first.id]]
    if len(read) != 2 or (first.type == "Subtract" and read[0] is not inputs[0]):
        return None
    constant = _constant(model, read[1] if read[0] is inputs[0] else read[0])
    if constant is None:
        return None
    array = as_float32(Weights(model.file).read(constant))
    if array.dtype != np.float32 or array.ndim != 4 or array.size != array.shape[1]:
        return None
    sign = 1 if first.type == "Subtract" else -1
    return tuple(float(sign * n) for n in array.reshape(-1))


def _constant(model: Model, layer: Layer) -> Layer | None:
    """The Const that a layer is, or that it widens."""
    if layer.type == "Convert":
        layer = model.by_id[model.sources[layer.id][0][0]]
    return layer if layer.type == "Const" else None
