"""Writing a capture: value by value into a folder, whole or recognisably unfinished at any moment.

    write ── _Folder.begin      progress.jsonl: the header, then a line for each value that is complete
      ├───── _Folder.keep       one value: its .npy under a temporary name, renamed, then its line
      └───── _Folder.finish     manifest.json, written whole; then progress.jsonl goes

Whatever stops it, even SIGKILL, leaves either progress.jsonl (unfinished: `open_capture` refuses it, and the
same capture may go on) or a whole capture. A capture that goes on computes everything again: values that are
there already must come out the same, else the framework's result is no single one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from refnet.core.errors import FormatError, FrameworkError, InputError
from refnet.core.op import F32
from refnet.formats.bounded import check_name
from refnet.formats.golden_file import Digest, Sources, digest, parse_digest
from refnet.formats.json_file import Checked, parse
from refnet.formats.manifest import NAME, Manifest, Origin, Stored, dumps, file_name
from refnet.formats.manifest import write as write_manifest
from refnet.formats.npy import CODES, open_npy, writing
from refnet.formats.write import appended_file, whole_file
from refnet.verification.capture import PROGRESS
from refnet.verification.progress import Advance

if sys.platform != "win32":
    import fcntl

Array = npt.NDArray[Any]

PART = re.compile(r"\.refnet-[0-9a-f]+\.part")
"""Names of files that were being written when a capture was stopped."""
LONGEST_LINE = 64 << 20


@dataclass(frozen=True)
class CapturePlan:
    """What is to be captured. values: called once; yields (name, array) in order of execution.

    inputs: name -> (n, ...). outputs: called when all values are there, output's name -> value's name; one
    that was not captured is passed over. remade: `sources` make the inputs anew, bit for bit.
    graph, weights: their sha256, None without a refnet graph. total: how many values are expected.
    left_out: called at the end, value -> why the framework could not hand it over. again: a framework runs
    the same model on other inputs, in the same process; None for refnet and folders. joined: which nodes
    the framework computes as one, names in order; None if it computes each. returned: called as outputs, what
    the framework's own network returns. beyond: called with all values, those that the graph has no node for,
    name -> why that is no mistake. files: name -> a file that belongs to the capture, such as its network.
    kinds: the dtypes of the values; of others it is float32, or with any_kind what a value can have.
    """

    reference: Origin
    inputs: Mapping[str, F32]
    values: Callable[[], Iterator[tuple[str, Array]]]
    outputs: Callable[[], Mapping[str, str]]
    sources: Sources | None = None
    graph: str | None = None
    weights: str | None = None
    remade: bool = False
    total: int | None = None
    left_out: Callable[[], Mapping[str, str]] = dict
    again: Callable[[Mapping[str, F32]], Iterator[tuple[str, Array]]] | None = None
    joined: Callable[[], tuple[tuple[str, ...], ...]] | None = None
    returned: Callable[[], Mapping[str, str]] = dict
    beyond: Callable[[Mapping[str, Stored]], Mapping[str, str]] = lambda values: {}
    files: Mapping[str, Path] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    any_kind: bool = False


@dataclass(frozen=True)
class Written:
    """What `write` did. found: values that an earlier, stopped capture had written already.

    left_out: value -> why it has no place in a capture (another dtype than float32, no element).
    """

    manifest: Manifest
    found: int
    left_out: Mapping[str, str]


def write(
    folder: str | os.PathLike[str],
    plan: CapturePlan,
    *,
    hash_only: bool = False,
    advance: Advance | None = None,
) -> Written:
    """Capture into a folder, which must be new, empty, or have the same capture unfinished.

    hash_only: only the sha256 of each value is kept; of inputs that `sources` do not make anew, the data too.
    One value is in memory at a time. The same command goes on after any interruption.
    Raises InputError for a folder with anything else in it, an unfinished capture of something else, or one
    that is being written; FrameworkError if a value comes out otherwise than before the interruption, or
    a name twice; and whatever plan.values raises. The folder is left unfinished then, or as it was before
    if no value had come.

    >>> import tempfile
    >>> def values():
    ...     yield "relu", np.float32([0, 2])
    >>> plan = CapturePlan(Origin("by hand"), {"x": np.float32([-1, 2])}, values, lambda: {"y": "relu"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     manifest = write(folder, plan).manifest
    ...     sorted(os.listdir(folder)), dict(manifest.outputs)
    (['manifest.json', 'relu.npy', 'x.npy'], {'y': 'relu'})
    """
    inputs = {name: Stored(digest(array), None) for name, array in plan.inputs.items()}
    if not (hash_only and plan.remade):
        inputs = {name: Stored(one.digest, file_name(name)) for name, one in inputs.items()}
    started = Manifest(plan.reference, {}, inputs, {}, plan.sources, plan.graph, plan.weights)
    dumps(started)  # so that a name that cannot be written is refused before there is a folder
    with _Folder(Path(folder), hash_only) as place:
        before = list(place.begin(started).items())
        for name, one in inputs.items():
            if one.file is not None:
                place.keep(one, plan.inputs[name])
        values: dict[str, Stored] = {}
        left_out: dict[str, str] = {}
        for name, array in plan.values():
            _check(plan.reference.framework, name, name in values or name in left_out, inputs)
            kind = plan.kinds.get(name, "float32")
            if plan.any_kind and name not in plan.kinds and array.dtype.name in CODES:
                kind = array.dtype.name
            if reason := _unfit(array, kind):
                left_out[name] = reason
            else:
                values[name] = place.value(name, array, before[len(values) : len(values) + 1])
                if advance is not None:
                    advance(1)
            del array  # before the next one is made
        if len(values) < max(len(before), 1):
            raise FrameworkError(_fewer(plan.reference.framework, len(values), len(before), left_out))
        outputs = {name: value for name, value in plan.outputs().items() if value in values}
        manifest = Manifest(plan.reference, values, inputs, outputs, plan.sources, plan.graph, plan.weights)
        manifest = replace(manifest, beyond=plan.beyond(values))
        for name, path in plan.files.items():
            place.copy(path, name)
        place.finish(manifest)
    return Written(manifest, len(before), {**plan.left_out(), **left_out})


def _check(framework: str, name: str, taken: bool, inputs: Collection[str]) -> None:
    """Refuse a name that is no text, or is taken."""
    check_name(name, framework, None, "a value's name")
    if name in inputs:
        raise FrameworkError(
            f"{framework} made a value named {name!r}, like an input: call that otherwise, --input NAME=X"
        )
    if taken:
        raise FrameworkError(f"{framework} made two values named {name!r}")


def _unfit(array: Array, kind: str) -> str:
    """Why an array cannot stand in a capture; "" if it can. kind: the dtype that the graph has for it."""
    if array.dtype.name != kind:
        return f"its elements are {array.dtype}, not {kind}"
    if array.size == 0:
        return f"its shape is {list(array.shape)}"
    return ""


def _compare(folder: Path, before: tuple[str, Stored], now: tuple[str, Stored]) -> None:
    """A value that a stopped capture had must be the same now, at the same place."""
    (expected, old), (name, new) = before, now
    if expected != name:
        raise FrameworkError(
            f"{folder}: before the interruption the framework made {expected!r} where it now makes "
            f"{name!r}: its order of execution varies; capture into another folder"
        )
    if old.digest != new.digest:
        raise FrameworkError(
            f"{folder}: the framework is not deterministic: before the interruption {name!r} was "
            f"{old.digest}, now it is {new.digest}; capture into another folder, in one run"
        )


def _fewer(framework: str, found: int, before: int, left_out: Mapping[str, str]) -> str:
    more = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:3])
    more = f" ({len(left_out)} left out, {more})" if more else ""
    if before:
        return f"{framework} made {found} values, before the interruption it had made {before} already{more}"
    return f"{framework} made no value that a capture can have{more}"


class _Folder:
    """A capture's folder while it is being written; nobody else can write into it meanwhile."""

    def __init__(self, path: Path, hash_only: bool) -> None:
        self.path, self.hash_only = path, hash_only
        self.made = not os.path.lexists(path)
        self.started: list[str] = []
        try:
            path.mkdir(parents=True, exist_ok=True)
            there = set(os.listdir(path))
            if PROGRESS not in there:
                others = sorted(name for name in there if not PART.fullmatch(name))
                if NAME in others:
                    raise InputError(f"{path} has a whole capture already: name another folder")
                if others:
                    raise InputError(f"{path} is not empty (it has {others[0]!r}): name another folder")
            self.stream: BinaryIO = appended_file(path / PROGRESS)  # closed in __exit__
        except OSError as error:
            raise InputError(f"{path}: cannot be a capture's folder: {error.strerror}") from None
        try:
            if sys.platform != "win32":
                fcntl.flock(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finished = os.fstat(self.stream.fileno()).st_nlink == 0
        except OSError:
            self.stream.close()
            raise InputError(f"{path}: another process is writing this capture") from None
        if finished:
            self.stream.close()
            raise InputError(f"{path}: another process has just finished this capture")

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close; of a capture that came to nothing at once, nothing is left to be in the way."""
        if kind is not None and self.started:
            with contextlib.suppress(OSError):
                for name in reversed(self.started):
                    (self.path / name).unlink(missing_ok=True)
                if self.made:
                    self.path.rmdir()
        self.stream.close()  # and the lock with it

    def begin(self, started: Manifest) -> dict[str, Stored]:
        """Write the header, or compare it with the one that is there; the values that are complete."""
        header = json.dumps(
            {"refnet capture unfinished": json.loads(dumps(started)), "hash_only": self.hash_only}
        )
        head = header.encode() + b"\n"
        self.stream.seek(0)
        there = self.stream.readline(LONGEST_LINE)
        if there != head:
            if there.endswith(b"\n") or not head.startswith(there):
                raise InputError(
                    f"{self.path} has an unfinished capture of something else{_other(there, head)}"
                )
            self.stream.truncate(0)
            self._append(head)
            self.started = [PROGRESS, *(one.file for one in started.inputs.values() if one.file)]
            return {}
        self._sweep()
        before, sound = {}, len(head)
        check = Checked(os.fspath(self.path / PROGRESS))
        while (line := self.stream.readline(LONGEST_LINE)).endswith(b"\n"):
            found = parse(line, check.path)
            if not isinstance(found, dict) or not isinstance(found.get("name"), str):
                raise FormatError(check.path, sound, "a line without a name", "a value's line")
            stored = parse_digest(check, found, found["name"], frozenset({"name", "file"}))
            before[found["name"]] = Stored(stored, found.get("file"))
            sound += len(line)
        self.stream.truncate(sound)  # a line that was cut is no line
        return before

    def value(self, name: str, array: Array, before: Sequence[tuple[str, Stored]]) -> Stored:
        """Keep a value, and note that it is complete. before: what a stopped capture had at its place."""
        value = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
        stored = Stored(digest(value), None if self.hash_only else file_name(name))
        if before:
            _compare(self.path, before[0], (name, stored))
        if stored.file is not None:
            self.keep(stored, value)
        if not before:
            self.note(name, stored)
        return stored

    def keep(self, stored: Stored, array: F32) -> None:
        """Write one array, unless its file is there and sound; a link there is no file of this capture."""
        assert stored.file is not None
        path = self.path / stored.file
        if not path.is_symlink() and path.exists() and _same(path, stored.digest):
            return
        with writing(path, array.shape, stored.digest.dtype) as append:
            append(array)

    def copy(self, file: Path, name: str) -> None:
        """Write a copy of a file that belongs to the capture."""
        with open(file, "rb") as read, whole_file(self.path / name) as stream:
            shutil.copyfileobj(read, stream, 1 << 20)

    def note(self, name: str, stored: Stored) -> None:
        """Write the line of a value that is complete."""
        self.started = []
        line = {"name": name, **vars(stored.digest), "file": stored.file}
        self._append(json.dumps(line).encode() + b"\n")

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, and take progress.jsonl away."""
        write_manifest(self.path / NAME, manifest)
        try:
            os.unlink(self.path / PROGRESS)
        except OSError as error:
            raise InputError(f"{self.path / PROGRESS}: cannot be removed: {error.strerror}") from None

    def _append(self, line: bytes) -> None:
        try:
            self.stream.write(line)
            self.stream.flush()
        except OSError as error:
            raise InputError(f"{self.path / PROGRESS}: cannot be written: {error.strerror}") from None

    def _sweep(self) -> None:
        """Remove what was being written when the capture was stopped."""
        for name in os.listdir(self.path):
            if PART.fullmatch(name):
                with contextlib.suppress(OSError):
                    os.unlink(self.path / name)


def _same(path: Path, expected: Digest) -> bool:
    """Whether the file has this array; one that was damaged is written again."""
    try:
        file = open_npy(path, None)
        return file.shape == expected.shape and digest(file.read()) == expected
    except (InputError, FormatError):
        return False


def _other(there: bytes, head: bytes) -> str:
    """In what the headers differ, if `there` is one."""
    try:
        old, new = json.loads(there), json.loads(head)
        old, new = ({**one["refnet capture unfinished"], "hash_only": one["hash_only"]} for one in (old, new))
        old, new = ({**one.pop("reference"), **one} for one in (old, new))
        keys = [key for key in new if old.get(key) != new[key]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return f" ({PROGRESS} is not refnet's)"
    return f" (other {', '.join(keys)})" if keys else ""
