"""The networks that refnet knows by name: catalog.toml as data, and a graph for each that has a builder."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from refnet.core.errors import InputError
from refnet.core.graph import Graph
from refnet.core.words import did_you_mean
from refnet.models.octdensenet import octave_densenet
from refnet.models.octmobilenet import octave_mobilenet_v1, octave_mobilenet_v2
from refnet.models.octresnet import octave_resnet
from refnet.models.octresnet_gluon import octave_resnet_v1
from refnet.models.resnest import resnest


@dataclass(frozen=True)
class OfficialFile:
    """One file that the authors of a network published. Facts only: what is unknown is None.

    name: the official file name, under which refnet looks for it. url: its address.
    bytes: its size. sha256, sha384: hex checksums. sha256_prefix: how the sha256 begins, where only
        that is known (PyTorch hub names files so).
    inside: the members of an archive that refnet reads.
    """

    name: str
    url: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    sha256_prefix: str | None = None
    sha384: str | None = None
    inside: tuple[str, ...] = ()

    @property
    def fetchable(self) -> bool:
        """Whether an address and at least a part of a checksum are known."""
        return bool(self.url and (self.sha256 or self.sha384 or self.sha256_prefix))

    @property
    def partly_checked(self) -> str:
        """What to say of a file whose checksum is not known, or only in part; "" if it is known.

        >>> OfficialFile("a.pth", sha256_prefix="22405ba7").partly_checked
        'only the first 8 digits of its sha256 are published: 22405ba7 is what is checked'
        """
        known = self.sha256_prefix
        if self.sha256 or self.sha384:
            return ""
        if known is None:
            return "its checksum is not published: download it yourself and give its path"
        return f"only the first {len(known)} digits of its sha256 are published: {known} is what is checked"


@dataclass(frozen=True)
class TableRow:
    """A network's row in its authors' table, as printed: percent, and parameters and multiply-adds
    ("60.2 M", "10.9 G") where the table has them.

    Parameters are the learned ones, as trained: `Summary.parameters`. The table's column #FLOPs is counted as
    `Summary.table_macs` is.
    """

    top1: float
    top5: float
    parameters: str | None = None
    macs: str | None = None


@dataclass(frozen=True)
class Entry:
    """One network of the catalog.

    framework: "mxnet" or "pytorch". dataset: "imagenet" or "digits".
    builder: what `build` calls with options: "octresnet", "octdensenet", "octmobilenet-v1",
        "octmobilenet-v2", "octresnet-v1" (Gluon's) or "resnest".
    input_shape: (c, h, w) of the input `data`. pipeline: name of the default preprocessing, that of the
        scorer of the network's own table. colour, mean, scale: of pixels, as the card, or without a card
        that scorer, states them: (p - mean) / scale.
    gflops, mparams, top1, top5: the card's figures (10^9 operations, 10^6 parameters, percent) or None.
    table: the row of the authors' own table, or None.
    licence: of the official weights. source: where the network is defined.
    files: what `fetch` gets. shipped: weights that come with the project, a path in weights/.
    """

    name: str
    task: str
    framework: str
    dataset: str
    builder: str
    input_shape: tuple[int, int, int]
    pipeline: str
    colour: str
    mean: str
    scale: str
    licence: str
    source: str
    options: Mapping[str, Any]
    gflops: float | None = None
    mparams: float | None = None
    top1: float | None = None
    top5: float | None = None
    table: TableRow | None = None
    files: tuple[OfficialFile, ...] = ()
    shipped: str | None = None

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """The published top-1 and top-5 in percent: the card's, else those of the authors' table, else None.

        >>> entry("octave-resnet-26-0.5").accuracy
        (75.5, 92.5)
        """
        if self.top1 is not None and self.top5 is not None:
            return self.top1, self.top5
        return None if self.table is None else (self.table.top1, self.table.top5)


def entries() -> dict[str, Entry]:
    """All networks by name, in the catalog's order.

    >>> list(entries())[:2]
    ['octave-se-resnet-50-0.125', 'resnest-50-pytorch']
    """
    return dict(_read())


def entry(name: str) -> Entry:
    """The network of this name. Raises InputError with the closest names if there is none.

    >>> entry("resnest-50-pytorch").top1
    81.11
    >>> entry("octave-resnet-50")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    refnet.core.errors.InputError: no network is named 'octave-resnet-50'; did you mean ...
    """
    known = _read()
    if name not in known:
        hint = did_you_mean(name, known, "; `refnet models` lists them all")
        raise InputError(f"no network is named {name!r}{hint}")
    return known[name]


def named_by(path: str | os.PathLike[str]) -> Entry | None:
    """The network that a file is of by its name alone, or None.

    Known names: NAME with .json, -symbol.json, .tar, .onnx or .xml, NAME a network's; an official file's
    name, or its stem with -symbol.json; the path of an official archive's member, behind its folder.

    >>> named_by("nets/resnest-digits-symbol.json").name, named_by("a02_resnet-26_alpha-0.250.tar").name
    ('resnest-digits', 'octave-resnet-26-0.25')
    >>> named_by("a02_resnet-26_alpha-0.250/checkpoint-0-symbol.json").name, named_by("net-symbol.json")
    ('octave-resnet-26-0.25', None)
    """
    whole = Path(path)
    name, member = whole.name, "/".join(whole.parts[-2:])
    stem = name
    for suffix in (".json", "-symbol", ".tar", ".onnx", ".xml"):
        stem = stem.removesuffix(suffix)
    for found in _read().values():
        officials = {official.name for official in found.files}
        stems = {Path(official).with_suffix("").name for official in officials}
        inside = {member for official in found.files for member in official.inside}
        if stem == found.name or name in officials or member in inside:
            return found
        if name.endswith("-symbol.json") and stem in stems:
            return found
    return None


def filtered(text: str) -> dict[str, Entry]:
    """The networks whose name, framework or file has this text in it, in either case; in the catalog's order.

    >>> list(filtered("Digits")), list(filtered("a08"))[:1]
    (['octave-se-resnet-digits', 'resnest-digits'], ['octave-resnet-200-0.125'])
    """
    wanted = text.casefold()
    return {
        name: found
        for name, found in _read().items()
        if any(
            wanted in field.casefold()
            for field in (name, found.framework, *(official.name for official in found.files))
        )
    }


def build(entry: Entry, image: tuple[int, int] | None = None) -> Graph:
    """The graph of a catalog entry, without weights.

    image: (h, w) of the input, default the entry's own.
    Raises GraphError if the image does not fit the network.

    >>> build(entry("resnest-digits")).inputs
    {'data': float32[1, 1, 32, 32]}
    """
    channels, height, width = entry.input_shape
    shape = (channels, *(image or (height, width)))
    match entry.builder:
        case "octresnet":
            return octave_resnet(**entry.options, image=shape, name=entry.name)
        case "octdensenet":
            return octave_densenet(**entry.options, image=shape, name=entry.name)
        case "octmobilenet-v1":
            return octave_mobilenet_v1(**entry.options, image=shape, name=entry.name)
        case "octmobilenet-v2":
            return octave_mobilenet_v2(**entry.options, image=shape, name=entry.name)
        case "octresnet-v1":
            return octave_resnet_v1(**entry.options, image=shape, name=entry.name)
        case "resnest":
            return resnest(**entry.options, image=shape, name=entry.name)
    raise AssertionError(entry.builder)


@cache
def _read() -> dict[str, Entry]:
    """catalog.toml, families filled in."""
    table = tomllib.loads((files("refnet.models") / "catalog.toml").read_text(encoding="utf-8"))
    return {name: _entry(name, table["family"], fields) for name, fields in table["network"].items()}


def _entry(name: str, families: Mapping[str, Any], fields: Mapping[str, Any]) -> Entry:
    merged = {"name": name, "options": {}} | families[fields["family"]] | dict(fields)
    del merged["family"]
    merged["input_shape"] = tuple(merged["input_shape"])
    merged["files"] = tuple(
        OfficialFile(**file | {"inside": tuple(file.get("inside", ()))}) for file in merged.get("files", ())
    )
    if "table" in merged:
        merged["table"] = TableRow(**merged["table"])
    return Entry(**merged)
