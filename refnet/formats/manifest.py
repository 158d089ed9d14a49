"""Manifests: what a capture's values are, and of what they were computed (manifest.json in its folder).

    bytes ── json ── Checked ── Manifest ── dumps ── write

docs/formats.md specifies the format, so that anyone can write such a file. Only NumPy is needed here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from refnet import __version__
from refnet.core.errors import FormatError, UnsupportedError
from refnet.formats.golden_file import Digest, Sources, parse_digest, parse_sources
from refnet.formats.json_file import Checked, parse, read_bytes, writable
from refnet.formats.write import whole_file

NETWORK = "network.onnx"
"""The graph of a torch module, in the folder of its capture."""
NAME = "manifest.json"
FORMAT, VERSION = "refnet capture", 1
LARGEST = 64 << 20
"""Bytes of a manifest; that of octave-se-resnet-50-0.125 with its 806 values has about 150,000."""
MOST = 1_000_000
"""Threads, images, and characters of a text."""
LATER = ("libc", "vendor")
"""Fields of a reference that older manifests lack."""


def file_name(value: str) -> str:
    """The name of a value's file in a folder: bytes other than A-Z a-z 0-9 . _ - ~ are written %XX.

    >>> file_name("a/b")
    'a%2Fb.npy'
    """
    return quote(value, safe="") + ".npy"


@dataclass(frozen=True)
class Origin:
    """Who computed the values. Without these, "identical to PyTorch" means nothing.

    build: how the framework was built. isa: the instruction set it used. mode: how the graph was executed
    ("eager", "monitor, subgraph backend NONE" ...). flags: environment variables and options that were set.
    processor: the machine's; libc: its C library; vendor: who made the processor. "" where it is not said.
    """

    framework: str
    version: str = ""
    build: str = ""
    isa: str = ""
    threads: int = 1
    batch: int = 1
    mode: str = ""
    flags: Mapping[str, str] = field(default_factory=dict)
    processor: str = ""
    libc: str = ""
    vendor: str = ""

    def __str__(self) -> str:
        parts = [f"{self.framework} {self.version}".strip(), self.isa, self.mode]
        parts += [f"{self.threads} thread{'s' * (self.threads != 1)}", f"batch {self.batch}"]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Stored:
    """One value: its Digest, and the file that has it; None if only the hash is kept."""

    digest: Digest
    file: str | None


@dataclass(frozen=True)
class Manifest:
    """A capture's manifest. values: in order of execution. outputs: output's name -> value's name.

    graph, weights: their sha256; None if it is not said. beyond: value that the graph has no node for -> why
    that is no mistake.
    """

    reference: Origin
    values: Mapping[str, Stored]
    inputs: Mapping[str, Stored] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    sources: Sources | None = None
    graph: str | None = None
    weights: str | None = None
    written_by: str = f"refnet {__version__}"
    beyond: Mapping[str, str] = field(default_factory=dict)


def read(path: str | os.PathLike[str]) -> Manifest:
    """Read a manifest and check all of it. Nothing in it is executed, and no file it names is opened.

    Raises InputError if it cannot be read, FormatError (with what is wrong where) if it is no manifest,
    UnsupportedError for another version of the format.
    """
    return loads(read_bytes(path, LARGEST, "a manifest"), os.fspath(path))


def loads(raw: bytes, path: str) -> Manifest:
    """The manifest in these bytes; path is its name for messages. Errors: as `read`."""
    found = parse(raw, path)
    check = Checked(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise FormatError(path, 0, "something else", f'an object with "format": "{FORMAT}"')
    version = found.get("version")
    if type(version) is not int or version != VERSION:
        raise UnsupportedError(f"{path}: only version {VERSION} can be read, found {version!r}")
    known = {"format", "version", "written_by", "reference", "sources", "graph", "weights"}
    check.keys(found, "the file", known | {"inputs", "values", "outputs", "beyond"}, {"reference", "values"})
    values = _stored(check, found["values"], "values")
    if not values:
        raise check.wrong("values", "none", "at least one value")
    inputs = _stored(check, found.get("inputs", {}), "inputs")
    if both := sorted(values.keys() & inputs.keys()):
        raise check.wrong("inputs", both[0], "names that no value has")
    outputs = found.get("outputs", {})
    check.keys(outputs, "outputs", set(outputs) if isinstance(outputs, dict) else set(), set())
    for name, value in outputs.items():
        if check.text(value, f"outputs.{name}") not in values:
            raise check.wrong(f"outputs.{name}", value, "the name of a value")
    beyond = found.get("beyond", {})
    check.keys(beyond, "beyond", set(beyond) if isinstance(beyond, dict) else set(), set())
    if unknown := next((name for name in beyond if name not in values), None):
        raise check.wrong("beyond", unknown, "names of values")
    sources = found.get("sources")
    return Manifest(
        _reference(check, found["reference"]),
        values,
        inputs,
        dict(outputs),
        None if sources is None else parse_sources(check, sources),
        check.hash(found.get("graph"), "graph", optional=True),
        check.hash(found.get("weights"), "weights", optional=True),
        check.text(found.get("written_by", "unknown"), "written_by") or "",
        {name: check.text(why, f"beyond.{name}") or "" for name, why in beyond.items()},
    )


def _reference(check: Checked, found: Any) -> Origin:
    check.keys(found, "reference", set(Origin.__dataclass_fields__), {"framework"})
    texts = {
        key: check.text(found.get(key, ""), f"reference.{key}") or ""
        for key in ("framework", "version", "build", "isa", "mode", "processor", *LATER)
    }
    numbers = {}
    for key in ("threads", "batch"):
        number = found.get(key, 1)
        if type(number) is not int or not 1 <= number <= MOST:
            raise check.wrong(f"reference.{key}", number, f"a whole number from 1 to {MOST}")
        numbers[key] = number
    flags = found.get("flags", {})
    if not isinstance(flags, dict):
        raise check.wrong("reference.flags", flags, "an object")
    said = {key: check.text(value, f"reference.flags.{key}") or "" for key, value in flags.items()}
    return Origin(
        texts["framework"],
        texts["version"],
        texts["build"],
        texts["isa"],
        numbers["threads"],
        numbers["batch"],
        texts["mode"],
        said,
        texts["processor"],
        texts["libc"],
        texts["vendor"],
    )


def _stored(check: Checked, found: Any, where: str) -> dict[str, Stored]:
    if not isinstance(found, dict):
        raise check.wrong(where, found, "an object")
    made = {}
    for name, one in found.items():
        at = f"{where}.{name}"
        digest = parse_digest(check, one, at, frozenset({"file"}))
        file = check.text(one.get("file"), f"{at}.file", optional=True)
        if file is not None and file != file_name(name):  # so no path leads out of the folder
            raise check.wrong(f"{at}.file", file, f"{file_name(name)}, or null")
        made[name] = Stored(digest, file)
    return made


def dumps(manifest: Manifest) -> str:
    """The manifest's text: JSON, each value on a line of its own."""
    said = {key: value for key, value in vars(manifest.reference).items() if value or key not in LATER}
    reference = said | {"flags": dict(manifest.reference.flags)}
    head = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": manifest.written_by,
        "reference": reference,
        "sources": None if manifest.sources is None else vars(manifest.sources),
        "graph": manifest.graph,
        "weights": manifest.weights,
        "outputs": dict(manifest.outputs),
    }
    if manifest.beyond:
        head["beyond"] = dict(manifest.beyond)
    parts = [f"{_text(key)}: {_text(value)}" for key, value in head.items()]
    for key, arrays in (("inputs", manifest.inputs), ("values", manifest.values)):
        rows = [
            f"  {_text(name)}: {_text(vars(one.digest) | {'file': one.file})}" for name, one in arrays.items()
        ]
        parts.append(f"{_text(key)}: {{\n" + ",\n".join(rows) + "\n }")
    return writable("{\n " + ",\n ".join(parts) + "\n}\n")


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write(path: str | os.PathLike[str], manifest: Manifest) -> None:
    """Write a manifest, whole or not at all. Raises InputError if that is not possible."""
    with whole_file(path) as stream:
        stream.write(dumps(manifest).encode())
