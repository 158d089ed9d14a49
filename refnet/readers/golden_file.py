"""Golden files: the sha256 of every golden value of a network, and of what they were computed from.

    bytes ── json ── _Parser ── File ── dumps ── write

docs/golden.md specifies the format, so that anyone can write such a file. Only NumPy is needed here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from refnet import __version__
from refnet.errors import FormatError, InputError, UnsupportedError

FORMAT, VERSION = "refnet golden", 1
HEAD = ("format", "version", "written_by", "sources", "graph", "weights")
LARGEST = 64 << 20
"""Bytes of a golden file; that of octave-se-resnet-50-0.125 with its 806 values has about 110,000."""
QUIET_NAN = 0x7FC00000
"""The bits that every NaN has in a hash: which NaN an operation gives is not specified."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Digest:
    """What a golden file has of an array: the sha256 of its bytes in hexadecimal, its shape, its dtype.

    >>> print(digest(np.zeros((1, 2), np.float32)))
    float32[1, 2] af5570f5a1810b7a...
    """

    sha256: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)} {self.sha256[:16]}..."


@dataclass(frozen=True)
class Sources:
    """Where a network, its weights and its input come from: as `refnet golden` takes them.

    model, weights, network, image: as for `refnet.load`. input: "seed:N" (synthetic,
    refnet.zoo.synthetic.normal), "sample:NAME" (an image that ships with refnet), a .npy file or an image
    file. pipeline: how an image becomes a tensor.
    """

    model: str
    weights: str | None = None
    input: str = "seed:0"
    pipeline: str | None = None
    network: str | None = None
    image: tuple[int, int] | None = None


@dataclass(frozen=True)
class Change:
    """One deliberate change of a golden file. changed: value -> (sha256 before or None, sha256 after)."""

    date: str
    reason: str
    changed: Mapping[str, tuple[str | None, str]]


@dataclass(frozen=True)
class File:
    """A golden file. graph, weights: their sha256. None, or no inputs: the file does not say."""

    values: Mapping[str, Digest]
    sources: Sources | None = None
    graph: str | None = None
    weights: str | None = None
    inputs: Mapping[str, Digest] = field(default_factory=dict)
    history: tuple[Change, ...] = ()
    written_by: str = f"refnet {__version__}"

    def accepted(self, name: str) -> Change | None:
        """The last change of this value that the history has."""
        return next((change for change in reversed(self.history) if name in change.changed), None)


def canonical(array: Array) -> bytes:
    """The bytes that are hashed: float32, little endian, row by row, every NaN as 0x7FC00000.

    >>> canonical(np.float32([1, -np.nan])).hex()
    '0000803f0000c07f'
    """
    if array.dtype.kind != "f" or array.dtype.itemsize != 4:
        raise InputError(f"only float32 arrays have a golden hash, got {array.dtype}")
    plain = np.ascontiguousarray(array, "<f4")
    nan = np.isnan(plain)
    if nan.any():
        plain = plain.copy()
        plain.view("<u4")[nan] = QUIET_NAN
    return plain.tobytes()


def digest(array: Array) -> Digest:
    """The array's Digest. Raises InputError if it is not float32."""
    return Digest(hashlib.sha256(canonical(array)).hexdigest(), tuple(array.shape))


def write(path: str | os.PathLike[str], file: File) -> None:
    """Write a golden file, whole or not at all. Raises InputError if that is not possible."""
    from refnet.readers.mxnet_params import atomic

    with atomic(path) as stream:
        stream.write(dumps(file).encode())


def dumps(file: File) -> str:
    """The file's text: JSON, each value on a line of its own."""
    sources = None if file.sources is None else vars(file.sources)
    said = (FORMAT, VERSION, file.written_by, sources, file.graph, file.weights)
    parts = [f"{_json(key)}: {_json(value)}" for key, value in zip(HEAD, said, strict=True)]
    for key, arrays in (("inputs", file.inputs), ("values", file.values)):
        lines = ",\n".join(f"  {_json(name)}: {_json(vars(one))}" for name, one in arrays.items())
        parts.append(f"{_json(key)}: {{\n{lines}\n }}")
    lines = ",\n".join(f"  {_json(vars(change))}" for change in file.history)
    parts.append(f'"history": [\n{lines}\n ]' if lines else '"history": []')
    return "{\n " + ",\n ".join(parts) + "\n}\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def read(path: str | os.PathLike[str]) -> File:
    """Read a golden file and check all of it. Nothing in it is executed, and no file it names is opened.

    Raises InputError if it cannot be read, FormatError (with what is wrong where) if it is no golden file,
    UnsupportedError for another version of the format.
    """
    try:
        if Path(path).stat().st_size > LARGEST:
            raise FormatError(path, None, f"more than {LARGEST} bytes", "a golden file")
        with open(path, "rb") as stream:
            raw = stream.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > LARGEST:
        raise FormatError(path, None, f"more than {LARGEST} bytes", "a golden file")
    return loads(raw, os.fspath(path))


def loads(raw: bytes, path: str) -> File:
    """The golden file in these bytes; path is its name for messages. Errors: as `read`."""
    try:
        found = json.loads(raw.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(path, getattr(error, "pos", None), f"no JSON ({error})") from None
    return _Parser(path).file(found)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object, refused if it has a key twice: which of the two counts would be anybody's guess."""
    made = dict(pairs)
    for key in made:
        key.encode()  # half a surrogate pair, which JSON's escapes can make, is no text
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} stands there twice")
    return made


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


@dataclass(frozen=True)
class _Parser:
    """From parsed JSON to a File; every message says where in the file."""

    path: str

    def file(self, found: Any) -> File:
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise FormatError(self.path, 0, "something else", f'an object with "format": "{FORMAT}"')
        version = found.get("version")
        if type(version) is not int or version != VERSION:
            raise UnsupportedError(f"{self.path}: only version {VERSION} can be read, found {version!r}")
        known = {*HEAD, "inputs", "values", "history"}
        self.keys(found, "the file", known, {"values"})
        values = self.digests(found["values"], "values")
        if not values:
            raise self.wrong("values", "none", "at least one value")
        sources = found.get("sources")
        history = found.get("history", [])
        if not isinstance(history, list):
            raise self.wrong("history", history, "a list")
        return File(
            values,
            None if sources is None else self.sources(sources),
            self.hash(found.get("graph"), "graph", optional=True),
            self.hash(found.get("weights"), "weights", optional=True),
            self.digests(found.get("inputs", {}), "inputs"),
            tuple(self.change(one, f"history[{i}]") for i, one in enumerate(history)),
            self.text(found.get("written_by", "unknown"), "written_by") or "",
        )

    def wrong(self, where: str, found: object, expected: str) -> FormatError:
        return FormatError(self.path, None, f"{where}: {str(found)[:80]!r}", expected)

    def keys(self, found: Any, where: str, known: set[str], needed: set[str]) -> None:
        if not isinstance(found, dict):
            raise self.wrong(where, found, "an object")
        for key in found:
            if key not in known:
                raise self.wrong(where, key, f"only the keys {', '.join(sorted(known))}")
        for key in sorted(needed - found.keys()):
            raise self.wrong(where, ", ".join(found), f"the key {key} too")

    def text(self, found: Any, where: str, *, optional: bool = False) -> str | None:
        if found is None and optional:
            return None
        if not isinstance(found, str) or found != found.encode(errors="replace").decode():
            raise self.wrong(where, found, "a text")
        return found

    def hash(self, found: Any, where: str, *, optional: bool = False) -> str | None:
        if found is None and optional:
            return None
        if not isinstance(found, str) or not re.fullmatch("[0-9a-f]{64}", found):
            raise self.wrong(where, found, "64 digits 0-9 a-f")
        return found

    def shape(self, found: Any, where: str, rank: int | None = None) -> tuple[int, ...]:
        sound = isinstance(found, list) and len(found) in (range(33) if rank is None else (rank,))
        if not sound or not all(type(n) is int and 0 < n < 1 << 40 for n in found):
            raise self.wrong(where, found, "a list of whole numbers from 1 on")
        return tuple(found)

    def digests(self, found: Any, where: str) -> dict[str, Digest]:
        if not isinstance(found, dict):
            raise self.wrong(where, found, "an object")
        made = {}
        fields = {"sha256", "shape", "dtype"}
        for name, one in found.items():
            at = f"{where}.{name}"
            self.keys(one, at, fields, fields)
            if one["dtype"] != "float32":
                raise self.wrong(f"{at}.dtype", one["dtype"], "float32")
            hashed = self.hash(one["sha256"], f"{at}.sha256") or ""
            made[name] = Digest(hashed, self.shape(one["shape"], f"{at}.shape"))
        return made

    def sources(self, found: Any) -> Sources:
        known = set(Sources.__dataclass_fields__)
        self.keys(found, "sources", known, {"model", "input"})
        optional = {
            key: self.text(found.get(key), f"sources.{key}", optional=True)
            for key in ("weights", "pipeline", "network")
        }
        size = found.get("image")
        height_width = None if size is None else self.shape(size, "sources.image", 2)
        return Sources(
            self.text(found["model"], "sources.model") or "",
            optional["weights"],
            self.text(found["input"], "sources.input") or "",
            optional["pipeline"],
            optional["network"],
            None if height_width is None else (height_width[0], height_width[1]),
        )

    def change(self, found: Any, where: str) -> Change:
        fields = {"date", "reason", "changed"}
        self.keys(found, where, fields, fields)
        if not isinstance(found["changed"], dict):
            raise self.wrong(f"{where}.changed", found["changed"], "an object")
        changed = {}
        for name, pair in found["changed"].items():
            at = f"{where}.changed.{name}"
            if not isinstance(pair, list) or len(pair) != 2:
                raise self.wrong(at, pair, "[sha256 before or null, sha256 after]")
            changed[name] = (self.hash(pair[0], at, optional=True), self.hash(pair[1], at) or "")
        date = self.text(found["date"], f"{where}.date") or ""
        return Change(date, self.text(found["reason"], f"{where}.reason") or "", changed)
