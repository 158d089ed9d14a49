"""A file's weights for a graph: which of the file's arrays they are, and under which names.

    text ── source_of ── _read ── under_names ── the graph with its weights
              file, key,   by the   structural names (Gluon),
              structure    ending   prefixes that all names share (torch)

What is not plain is said: one line to the logger "refnet", which the command line shows on standard error.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from refnet.core.errors import FormatError, InputError, WeightsError
from refnet.core.graph import Graph
from refnet.core.op import F32
from refnet.core.words import quoted
from refnet.formats.bounded import open_file
from refnet.formats.json_file import parse
from refnet.formats.torch.sharded import ENDINGS as INDEXES

PICKLES = (".pth", ".pt", ".pth.tar", ".ckpt", ".bin")
STATES = (*PICKLES, ".safetensors", *INDEXES)
"""Endings of torch's weights. Neither they nor a .params file hold a graph."""
LARGEST_STRUCTURE = 64 << 20
"""Bytes of a *-structure.json; that of Oct-SE-ResNet-152 has 220,583."""
COUNTERS = ("num_batches_tracked", "n_averaged")
"""Endings of the only names that may stand in a file without being used: counters of training steps."""

Arrays = Mapping[str, F32]


Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Inputs of a network, each with all its dimensions."""


@dataclass(frozen=True)
class WeightsSource:
    """A file, or the name of a network, and what of it is meant.

    key: which weights of a checkpoint. structure: the file of Gluon's structural names. shapes: of inputs
    whose sizes an .onnx leaves open. outputs: the values that are wanted, in the place of its outputs.
    """

    file: str
    key: str | None = None
    structure: str | None = None
    shapes: Shapes = ()
    outputs: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """FILE?key=KEY&structure=FILE&shape=NAME:1,3,8,8&output=NAME: what `source_of` reads.

        >>> WeightsSource("net.pth", "state_dict_ema").text
        'net.pth?key=state_dict_ema'
        >>> WeightsSource("net.onnx", shapes=(("x", (1, 3, 8, 8)),), outputs=("a", "b&c")).text
        'net.onnx?shape=x:1,3,8,8&output=a&output=b%26c'
        """
        fields = [("key", self.key), ("structure", self.structure)]
        said = [f"{name}={quote(text, safe='')}" for name, text in fields if text is not None]
        for name, shape in self.shapes:
            said.append(f"shape={quote(name, safe='')}:{','.join(map(str, shape))}")
        said += [f"output={quote(name, safe='')}" for name in self.outputs]
        return f"{self.file}?{'&'.join(said)}" if said else self.file


def source_of(text: str | os.PathLike[str]) -> WeightsSource:
    """What a text means: a path or a name, alone or with ?key=KEY, ?structure=FILE and others, joined with &.

    Values are percent-encoded. A file that has the whole text as its name is that file.
    Raises InputError for a shape that is none.

    >>> source_of("net.pth?key=model.ema")
    WeightsSource(file='net.pth', key='model.ema', structure=None, shapes=(), outputs=())
    >>> source_of("net.onnx?shape=x:1,3,8,8&output=a").shapes
    (('x', (1, 3, 8, 8)),)
    """
    name = os.fspath(text)
    pair = r"(?:key|structure|shape|output)=[^&?]*"
    found = re.fullmatch(rf"(.+)\?({pair}(?:&{pair})*)", name, re.DOTALL)
    if found is None or os.path.isfile(name):
        return WeightsSource(name)
    said: dict[str, list[str]] = {"key": [], "structure": [], "shape": [], "output": []}
    for one in found[2].split("&"):
        field, _, value = one.partition("=")
        said[field].append(unquote(value) if field != "shape" else value)
    key, structure = (said[name][-1] if said[name] else None for name in ("key", "structure"))
    shapes = tuple(_shape(one, name) for one in said["shape"])
    return WeightsSource(found[1], key, structure, shapes, tuple(said["output"]))


def _shape(text: str, whole: str) -> tuple[str, tuple[int, ...]]:
    """NAME:1,3,8,8"""
    name, _, numbers = text.rpartition(":")
    return unquote(name), dimensions(numbers, f"{quoted(whole)}: shape={quoted(text)}")


def dimensions(text: str, whose: str) -> tuple[int, ...]:
    """Whole numbers from 1 on between commas. whose: for the InputError that anything else raises.

    >>> dimensions("1,3,8,8", "--shape")
    (1, 3, 8, 8)
    """
    parts = text.split(",")
    if not all(part.isdecimal() and part.isascii() and len(part) < 10 and int(part) for part in parts):
        raise InputError(f"{whose}: is not NAME and its dimensions, such as x=1,3,224,224")
    return tuple(map(int, parts))


def absolute_source(text: str | os.PathLike[str]) -> str:
    """The same text with absolute paths; the name of a network stays.

    >>> absolute_source("/a/../net.pth?key=ema")
    '/net.pth?key=ema'
    """
    of = source_of(text)
    structure = None if of.structure is None else os.path.abspath(of.structure)
    return replace(of, file=os.path.abspath(of.file), structure=structure).text


def holds_weights_only(name: str) -> bool:
    """Whether a model's name is a file of weights, whose graph must be said.

    >>> holds_weights_only("net.pth?key=ema"), holds_weights_only("net-symbol.json")
    (True, False)
    """
    return source_of(name).file.endswith((*STATES, ".params"))


@dataclass(frozen=True)
class WeightsFile:
    """A file that was read. said: what was taken of it, if that is not simply all."""

    source: WeightsSource
    arrays: Arrays
    said: tuple[str, ...] = ()


def read_weights(source: WeightsSource) -> WeightsFile:
    """Names and arrays of a weights file, by its ending.

    Raises InputError for another ending, or a key or a structure where there can be none; and the readers'
    FormatError and UnsupportedError.
    """
    file = source.file
    arrays: Arrays | None = None
    said: tuple[str, ...] = ()
    if file.endswith(PICKLES):
        from refnet.formats.torch.reader import read_checkpoint

        found = read_checkpoint(file, source.key)
        whole = f", a module pickled whole ({found.whole})" if found.whole else ""
        if found.path or whole:
            said += (f"took the weights under {found.path!r}{whole}" if found.path else f"took {whole[2:]}",)
        if found.others:
            shown = ", ".join(map(repr, found.others[:8])) + (" and more" if len(found.others) > 8 else "")
            said += (f"left others under {shown} (--key takes one of them)",)
        arrays = found.arrays
    elif source.key is not None:
        raise InputError(f"{file}: key is {source.key!r}, but only {', '.join(PICKLES)} have keys")
    elif file.endswith(".params"):
        from refnet.formats.mxnet.params import read_params

        arrays = read_params(file)
    elif file.endswith(".tar"):
        from refnet.formats.mxnet.reader import read_tar

        arrays = dict(read_tar(file).weights)
    elif file.endswith(INDEXES):
        from refnet.formats.torch.sharded import read_sharded

        arrays = read_sharded(file)
    elif file.endswith(".safetensors"):
        from refnet.formats.torch.safetensors import read

        arrays = read(file)
    if arrays is None:
        kinds = f".params, .tar, {', '.join(STATES)} or seed:N"
        raise InputError(f"weights must be {kinds}, got {file!r}")
    if source.structure is not None and not file.endswith(".params"):
        raise InputError(f"{file}: structure is {source.structure!r}, but only .params have structural names")
    return WeightsFile(source, arrays, said)


def with_weights(graph: Graph, read: WeightsFile, beside: Path | None = None) -> Graph:
    """The graph with a file's arrays, under structural names, without a common prefix, or as they are.

    beside: the structure file that is used if the source names none and it exists. Raises WeightsError,
    with the file's name, if they do not fit.
    """
    from refnet.formats.mxnet.reader import is_structural, rename_structural

    file, arrays, said = read.source.file, read.arrays, list(read.said)
    try:
        if file.endswith(".params") and is_structural(arrays, graph):
            chosen = read.source.structure or (beside if beside and os.path.isfile(beside) else None)
            arrays = rename_structural(arrays, graph, None if chosen is None else _structure(chosen))
        elif read.source.structure is not None:
            raise InputError(f"{file}: its names are no structural names: leave the structure out")
        elif file.endswith(STATES):
            prefix = common_prefix(arrays, graph.weight_types)
            if prefix:
                said.append(f"took the prefix {prefix!r} off all names")
                arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
        counters = [name for name, x in arrays.items() if name.endswith(COUNTERS) and x.dtype != np.float32]
        filled = graph.with_weights(arrays, counters, own=True)
    except WeightsError as error:
        hint = ""
        if re.search(r"-\d+-of-\d+\.[a-z]+$", file):
            hint = " (the file is one shard of several: give its .index.json)"
        elif said:
            hint = f" ({'; '.join(said)})"
        raise WeightsError(f"{file}{hint}: {error}") from None
    if said:
        logging.getLogger("refnet").warning("%s: %s", file, "; ".join(said))
    return filled


def common_prefix(names: Collection[str], wanted: Collection[str]) -> str:
    """What must be taken off all names so that some are wanted: whole words up to a point; "" if nothing.

    >>> common_prefix(["module.backbone.conv1.weight", "module.backbone.fc.bias"], {"conv1.weight"})
    'module.backbone.'
    >>> common_prefix(["model.conv1.weight"], {"model.conv1.weight"}), common_prefix(["a.w", "b.w"], {"w"})
    ('', '')
    """
    prefix = ""
    kept = [name for name in names if name != COUNTERS[1]]  # AveragedModel's, outside of its `module.`
    while kept and not any(name.removeprefix(prefix) in wanted for name in kept):
        word, point, _ = kept[0].removeprefix(prefix).partition(".")
        prefix += word + point
        if not point or not all(name.startswith(prefix) for name in kept):
            return ""
    return prefix


def _structure(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The parsed structure file: {structural name: {"name": the symbol's name, ...}}."""
    stream, size = open_file(path)
    with stream:
        if size > LARGEST_STRUCTURE:
            raise FormatError(path, None, f"{size} bytes", f"at most {LARGEST_STRUCTURE}")
        found = parse(stream.read(size), os.fspath(path))
    if not isinstance(found, dict):
        raise FormatError(path, 0, type(found).__name__, "a JSON object")
    if {"nodes", "arg_nodes"} <= found.keys():
        expected = 'a structure file: {structural name: {"name": the symbol\'s name}}'
        raise FormatError(path, None, "a symbol file, which has no structural names", expected)
    return found
