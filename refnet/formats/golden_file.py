"""Golden files: the sha256 of every golden value of a network, and of what they were computed from.

    bytes ── json ── _Parser ── File ── dumps ── write

docs/golden.md specifies the format, so that anyone can write such a file. Only NumPy is needed here.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet import __version__
from refnet.core.errors import FormatError, InputError, UnsupportedError
from refnet.formats.json_file import Checked, parse, read_bytes, writable
from refnet.formats.npy import CODES
from refnet.formats.write import whole_file

FORMAT, VERSION = "refnet golden", 1
HEAD = ("format", "version", "written_by", "sources", "graph", "weights")
LARGEST = 64 << 20
"""Bytes of a golden file; that of octave-se-resnet-50-0.125 with its 806 values has about 110,000."""
QUIET_NAN = 0x7FC00000
"""The bits that every NaN has in a hash: which NaN an operation gives is not specified."""

Array = npt.NDArray[Any]
PART = 1 << 20
"""Elements that are hashed at a time."""


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
    refnet.models.synthetic.normal), "sample:NAME" (an image that ships with refnet), a .npy file or an image
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
    """A golden file. graph, weights: their sha256. None, or no inputs: the file does not say.

    >>> file = File({"relu1": digest(np.zeros((1, 2), np.float32))})
    >>> file.values["relu1"].shape, file.accepted("relu1")
    ((1, 2), None)
    """

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
    """The bytes that are hashed: little endian, row by row, every NaN as 0x7FC00000.

    >>> canonical(np.float32([1, -np.nan])).hex()
    '0000803f0000c07f'
    """
    return b"".join(canonical_parts(array))


def canonical_parts(array: Array) -> Iterator[bytes]:
    """`canonical` in parts of at most 4 PART bytes, so that hashing a large array needs no second one."""
    kind = _kind(array)
    if kind != "float32":
        yield np.ascontiguousarray(array, np.dtype(kind).newbyteorder("<")).tobytes()
        return
    flat = np.ascontiguousarray(array, "<f4").reshape(-1)
    for begin in range(0, flat.size, PART):
        part = flat[begin : begin + PART]
        nan = np.isnan(part)
        if nan.any():
            part = part.copy()
            part.view("<u4")[nan] = QUIET_NAN
        yield part.tobytes()


def digest(array: Array) -> Digest:
    """The array's Digest. Raises InputError if its dtype is none of a value's (npy.CODES)."""
    kind = _kind(array)
    hasher = begun(kind)
    for part in canonical_parts(array):
        hasher.update(part)
    return Digest(hasher.hexdigest(), tuple(array.shape), kind)


def begun(dtype: str) -> hashlib._Hash:
    """The hasher of a value: for other dtypes than float32, their name and a zero byte come first."""
    return hashlib.sha256(b"" if dtype == "float32" else f"{dtype}\0".encode())


def _kind(array: Array) -> str:
    name = array.dtype.name
    if name not in CODES:
        raise InputError(f"only float32, integers and booleans have a golden hash, got {array.dtype}")
    return name


def write(path: str | os.PathLike[str], file: File) -> None:
    """Write a golden file, whole or not at all. Raises InputError if that is not possible."""
    with whole_file(path) as stream:
        stream.write(dumps(file).encode())


def dumps(file: File) -> str:
    """The file's text: JSON, each value on a line of its own. InputError for a name that is not UTF-8."""
    sources = None if file.sources is None else vars(file.sources)
    said = (FORMAT, VERSION, file.written_by, sources, file.graph, file.weights)
    parts = [f"{_json(key)}: {_json(value)}" for key, value in zip(HEAD, said, strict=True)]
    for key, arrays in (("inputs", file.inputs), ("values", file.values)):
        lines = ",\n".join(f"  {_json(name)}: {_json(vars(one))}" for name, one in arrays.items())
        parts.append(f"{_json(key)}: {{\n{lines}\n }}")
    lines = ",\n".join(f"  {_json(vars(change))}" for change in file.history)
    parts.append(f'"history": [\n{lines}\n ]' if lines else '"history": []')
    return writable("{\n " + ",\n ".join(parts) + "\n}\n")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def read(path: str | os.PathLike[str]) -> File:
    """Read a golden file and check all of it. Nothing in it is executed, and no file it names is opened.

    Raises InputError if it cannot be read, FormatError (with what is wrong where) if it is no golden file,
    UnsupportedError for another version of the format.
    """
    raw = read_bytes(path, LARGEST, "a golden file")
    return loads(raw, os.fspath(path))


def loads(raw: bytes, path: str) -> File:
    """The golden file in these bytes; path is its name for messages. Errors: as `read`."""
    return _Parser(Checked(path)).file(parse(raw, path))


@dataclass(frozen=True)
class _Parser:
    """From parsed JSON to a File; every message says where in the file."""

    check: Checked

    def file(self, found: Any) -> File:
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise FormatError(self.check.path, 0, "something else", f'an object with "format": "{FORMAT}"')
        version = found.get("version")
        if type(version) is not int or version != VERSION:
            raise UnsupportedError(
                f"{self.check.path}: only version {VERSION} can be read, found {version!r}"
            )
        known = {*HEAD, "inputs", "values", "history"}
        self.check.keys(found, "the file", known, {"values"})
        values = self.digests(found["values"], "values")
        if not values:
            raise self.check.wrong("values", "none", "at least one value")
        sources = found.get("sources")
        history = found.get("history", [])
        if not isinstance(history, list):
            raise self.check.wrong("history", history, "a list")
        return File(
            values,
            None if sources is None else parse_sources(self.check, sources),
            self.check.hash(found.get("graph"), "graph", optional=True),
            self.check.hash(found.get("weights"), "weights", optional=True),
            self.digests(found.get("inputs", {}), "inputs"),
            tuple(self.change(one, f"history[{i}]") for i, one in enumerate(history)),
            self.check.text(found.get("written_by", "unknown"), "written_by") or "",
        )

    def digests(self, found: Any, where: str) -> dict[str, Digest]:
        if not isinstance(found, dict):
            raise self.check.wrong(where, found, "an object")
        return {name: parse_digest(self.check, one, f"{where}.{name}") for name, one in found.items()}

    def change(self, found: Any, where: str) -> Change:
        fields = {"date", "reason", "changed"}
        self.check.keys(found, where, fields, fields)
        if not isinstance(found["changed"], dict):
            raise self.check.wrong(f"{where}.changed", found["changed"], "an object")
        changed = {}
        for name, pair in found["changed"].items():
            at = f"{where}.changed.{name}"
            if not isinstance(pair, list) or len(pair) != 2:
                raise self.check.wrong(at, pair, "[sha256 before or null, sha256 after]")
            changed[name] = (self.check.hash(pair[0], at, optional=True), self.check.hash(pair[1], at) or "")
        date = self.check.text(found["date"], f"{where}.date") or ""
        return Change(date, self.check.text(found["reason"], f"{where}.reason") or "", changed)


def parse_digest(check: Checked, found: Any, where: str, more: frozenset[str] = frozenset()) -> Digest:
    """A Digest from parsed JSON, which may have the keys `more` too; FormatError for anything else."""
    fields = {"sha256", "shape", "dtype"}
    check.keys(found, where, fields | more, fields)
    if not isinstance(found["dtype"], str) or found["dtype"] not in CODES:
        raise check.wrong(f"{where}.dtype", found["dtype"], f"one of {', '.join(CODES)}")
    hashed = check.hash(found["sha256"], f"{where}.sha256") or ""
    return Digest(hashed, check.shape(found["shape"], f"{where}.shape"), found["dtype"])


def parse_sources(check: Checked, found: Any) -> Sources:
    """Sources from parsed JSON; FormatError for anything else."""
    check.keys(found, "sources", set(Sources.__dataclass_fields__), {"model", "input"})
    weights, pipeline, network = (
        check.text(found.get(key), f"sources.{key}", optional=True)
        for key in ("weights", "pipeline", "network")
    )
    size = found.get("image")
    shape = None if size is None else check.shape(size, "sources.image", 2)
    return Sources(
        check.text(found["model"], "sources.model") or "",
        weights,
        check.text(found["input"], "sources.input") or "",
        pipeline,
        network,
        None if shape is None else (shape[0], shape[1]),
    )
