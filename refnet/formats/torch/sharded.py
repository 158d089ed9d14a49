"""Weights in several files with an index: model.safetensors.index.json, pytorch_model.bin.index.json.

An index is JSON: {"metadata": {...}, "weight_map": {tensor's name: shard's file name}}. A shard lies beside
its index. Source: the format as the package transformers writes it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy.typing as npt

from refnet.core.errors import FormatError
from refnet.formats.bounded import check_name, open_file
from refnet.formats.json_file import parse
from refnet.formats.torch import safetensors
from refnet.formats.torch.reader import read_state_dict

ENDINGS = (".safetensors.index.json", ".bin.index.json")
LARGEST_INDEX = 64 << 20
MOST_SHARDS = 1000


def read_sharded(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    """Names and arrays of all shards of an index, in the order of their names.

    A shard must lie in the folder of the index (or of the file that the index links to), and hold exactly
    what the index says. Each file is read once. Raises FormatError for an index that is damaged, leaves its
    folder or does not agree with its shards, and what the shards' readers raise.

    >>> read_sharded("missing.safetensors.index.json")
    Traceback (most recent call last):
    refnet.core.errors.FormatError: missing.safetensors.index.json: found no such file
    """
    file = os.fspath(path)
    shards: dict[str, set[str]] = {}
    for name, shard in _weight_map(file).items():
        shards.setdefault(shard, set()).add(name)
    if len(shards) > MOST_SHARDS:
        raise FormatError(file, None, f"{len(shards)} shards", f"at most {MOST_SHARDS}")
    paths = {shard: _inside(Path(file), shard) for shard in shards}
    known: dict[tuple[int, int], str] = {}
    for shard, place in paths.items():
        at = os.stat(place)
        if (other := known.setdefault((at.st_dev, at.st_ino), shard)) != shard:
            raise FormatError(file, None, f"one file as {other[:100]!r} and {shard[:100]!r}", "two files")
    found: dict[str, npt.NDArray[Any]] = {}
    for shard, names in shards.items():
        read = safetensors.read if file.endswith(ENDINGS[0]) else read_state_dict
        arrays = read(paths[shard])
        if missing := sorted(names - arrays.keys()):
            raise FormatError(paths[shard], None, f"no {missing[0][:100]!r}", f"what {file} says of it")
        if surplus := sorted(arrays.keys() - names):
            raise FormatError(paths[shard], None, f"{surplus[0][:100]!r}", f"only what {file} says of it")
        found.update(arrays)
    return {name: found[name] for name in sorted(found)}


def _weight_map(file: str) -> dict[str, str]:
    stream, size = open_file(file)
    with stream:
        if size > LARGEST_INDEX:
            raise FormatError(file, None, f"{size} bytes", f"at most {LARGEST_INDEX}")
        found = parse(stream.read(size), file)
    entries = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(entries, dict):
        raise FormatError(file, None, "no weight_map", "an index: {tensor's name: shard's file name}")
    for name, shard in entries.items():
        check_name(name, file, None, "a tensor's name")
        if not isinstance(shard, str):
            raise FormatError(
                file, None, f"{type(shard).__name__} as a shard of {name[:100]!r}", "a file name"
            )
        check_name(shard, file, None, "a shard's name")
    return entries


def _inside(index: Path, shard: str) -> Path:
    """The shard's path. Refused if it, or what it links to, is not in the index's folder."""
    ending = Path(index.name.removesuffix(".index.json")).suffix
    plain = shard.endswith(ending) and Path(shard).name == shard and "\\" not in shard and ":" not in shard
    if not plain or len(shard) > 255:
        raise FormatError(index, None, f"the shard {shard[:100]!r}", f"the name of a {ending} file beside it")
    path = index.parent / shard
    folders = {index.parent.resolve(), index.resolve().parent}
    if not path.is_file():
        raise FormatError(index, None, f"no shard {shard[:100]!r} beside it", "all that its weight_map names")
    if path.resolve().parent not in folders:
        raise FormatError(index, None, f"the shard {shard[:100]!r}, a link out of its folder", "a file in it")
    return path
