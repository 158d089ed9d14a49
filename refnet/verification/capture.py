"""Captures: the values that a framework, or refnet, computed, read from a folder or held in memory.

    open_capture(folder) -> Capture ─┐
    Values(arrays) ──────────────────┴── CapturedValues: .manifest, .names, .has, .value(name), .input(name)

A capture is a folder with manifest.json and one .npy file per value (docs/formats.md). A folder of .npy files
without a manifest opens too: hardware dumps are that. An unfinished capture does not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

import numpy as np

from refnet.core.errors import FormatError, InputError
from refnet.formats.arguments import check_arguments
from refnet.formats.golden_file import Digest, digest
from refnet.formats.manifest import NAME, Manifest, Stored, read
from refnet.formats.npy import open_npy
from refnet.models.seed import seed_number

if TYPE_CHECKING:
    from refnet.core.op import F32

PROGRESS = "progress.jsonl"
"""What an unfinished capture has instead of a manifest."""
MOST_SYNTHETIC = 1 << 28
"""Elements of an input that a manifest may have made from a seed: 1 GiB, 1700 images of 3 by 224 by 224."""


class CapturedValues(Protocol):
    """What verification reads of a capture, wherever its values are."""

    @property
    def manifest(self) -> Manifest | None:
        """None for a plain folder of .npy files."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The values, in order of execution if that is known."""
        ...

    def has(self, name: str) -> bool:
        """Whether the value's array is there."""
        ...

    def value(self, name: str, kind: str | None = "float32") -> F32:
        """The value's array."""
        ...

    def input(self, name: str) -> F32:
        """The array of one of the network's inputs."""
        ...


@dataclass(frozen=True)
class Capture:
    """A capture on disk. manifest: None for a plain folder of .npy files.

    names: of the values, in order of execution (of a plain folder: sorted).

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(Path(folder, "a%2Fb.npy"), np.float32([1, 2]))
    ...     capture = open_capture(folder)
    ...     print(capture.names, capture.value("a/b"))
    ('a/b',) [1. 2.]
    """

    folder: Path
    manifest: Manifest | None
    files: dict[str, Path]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the values, those of which only the hash is kept among them."""
        return tuple(self.files) if self.manifest is None else tuple(self.manifest.values)

    @property
    def hash_only(self) -> bool:
        """True if no value's data is there."""
        return self.manifest is not None and all(one.file is None for one in self.manifest.values.values())

    def has(self, name: str) -> bool:
        """Whether the value's, or the input's, data is there."""
        if self.manifest is None:
            return name in self.files
        stored = self._stored(name)
        return stored is not None and stored.file is not None

    def digest(self, name: str) -> Digest | None:
        """What the manifest says of a value or an input; None if nothing."""
        stored = self._stored(name)
        return None if stored is None else stored.digest

    def size(self, name: str) -> int:
        """How many elements a value has, by the manifest or its file's header; 0 if it is not there."""
        if self.manifest is not None:
            stored = self._stored(name)
            return 0 if stored is None else math.prod(stored.digest.shape)
        return math.prod(open_npy(self.files[name], None).shape) if name in self.files else 0

    def value(self, name: str, kind: str | None = "float32") -> F32:
        """A value, read from its file, of the shape and with the hash that the manifest says.

        kind: the dtype that a plain folder's file must have; None: any of a value's.
        Raises InputError if it is not there, FormatError if its file is not what the manifest says.
        """
        return self._read(name, self._stored(name), kind)

    def input(self, name: str) -> F32:
        """An input of the network: its file, or of float32 and only its hash kept, its seed's array again.

        Raises as `value`.
        """
        stored = None if self.manifest is None else self.manifest.inputs.get(name)
        if self.manifest is not None and stored is None:
            raise InputError(f"{self.folder}: the manifest has no input {name!r}")
        seed, real = self._seed(), stored is None or stored.digest.dtype == "float32"
        if stored is not None and stored.file is None and real and seed is not None:
            from refnet.models.synthetic import normal

            if math.prod(stored.digest.shape) > MOST_SYNTHETIC:
                raise InputError(f"{self.folder}: input {name!r} is too large to be synthetic")
            array = normal(seed, name, stored.digest.shape)
            if (found := digest(array)) != stored.digest:
                raise FormatError(self.folder / NAME, None, f"{stored.digest} for seed:{seed}", f"{found}")
            return array
        return self._read(name, stored)

    def _seed(self) -> int | None:
        """N of the inputs' seed:N; None if they have none."""
        source = "" if self.manifest is None or self.manifest.sources is None else self.manifest.sources.input
        return seed_number(source)

    def _stored(self, name: str) -> Stored | None:
        if self.manifest is None:
            return None
        return self.manifest.values.get(name) or self.manifest.inputs.get(name)

    def _read(self, name: str, stored: Stored | None, kind: str | None = "float32") -> F32:
        if self.manifest is None:
            if name not in self.files:
                raise InputError(f"{self.folder} has no value {name!r}")
            return open_npy(self.files[name], kind).read()
        if stored is None:
            raise InputError(f"{self.folder}: the manifest has no value {name!r}")
        if stored.file is None:
            raise InputError(f"{self.folder} keeps only the hash of {name!r}")
        path = self.folder / stored.file
        file = open_npy(path, stored.digest.dtype)
        if file.shape != stored.digest.shape:
            raise FormatError(path, None, f"the shape {list(file.shape)}", f"{stored.digest} ({NAME})")
        array = file.read()
        if (found := digest(array)) != stored.digest:
            raise FormatError(path, None, f"{found}", f"{stored.digest} ({NAME})")
        return array


def open_capture(folder: str | os.PathLike[str]) -> Capture:
    """Open a capture, or a plain folder of .npy files; no value is read yet.

    Raises InputError if there is no such folder, it has no .npy file, or the capture in it is not
    finished; FormatError or UnsupportedError for its manifest.

    >>> from refnet.models.weights import shipped_captures
    >>> open_capture(shipped_captures()[0][0]).manifest.reference.framework
    'mxnet'
    """
    check_arguments(locals())
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"{os.fspath(folder)!r} is not a folder")
    if os.path.lexists(path / PROGRESS):
        raise InputError(
            f"{path}: the capture is not finished; `refnet capture` with the same arguments goes on"
        )
    manifest = read(path / NAME) if (path / NAME).exists() else None
    listed = sorted((unquote(found.stem), found) for found in path.glob("*.npy"))
    files = dict(listed)
    if len(files) < len(listed):
        twice = next(a[0] for a, b in pairwise(listed) if a[0] == b[0])
        raise InputError(f"{path}: two files hold the value {twice!r}: %XX in a name stands for a character")
    if manifest is None and not files:
        raise InputError(f"{path}: no capture: neither {NAME} nor any .npy file")
    return Capture(path, manifest, files)


@dataclass(frozen=True)
class Values:
    """A capture in memory: values and inputs by name, without a manifest.

    >>> import numpy as np
    >>> Values({"relu": np.zeros((1, 2), np.float32)}).names
    ('relu',)
    """

    values: Mapping[str, F32]
    inputs: Mapping[str, F32] = field(default_factory=dict)
    manifest: Manifest | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The values' names, in their order."""
        return tuple(self.values)

    def has(self, name: str) -> bool:
        """Whether there is such a value."""
        return name in self.values

    def value(self, name: str, kind: str | None = "float32") -> F32:
        """The value's array. InputError if it is something else."""
        return _array(name, self.values[name])

    def input(self, name: str) -> F32:
        """The array of an input; InputError if there is none."""
        if name not in self.inputs:
            raise InputError(f"there is no input {name!r}")
        return _array(name, self.inputs[name])


def float32(name: str, array: F32) -> F32:
    """The array; InputError if it is not float32: a value of another dtype would be rounded unseen."""
    if array.dtype != np.float32:
        raise InputError(f"{name}: must be float32, got {array.dtype}")
    return array


def _array(name: str, value: object) -> F32:
    if not isinstance(value, np.ndarray | np.generic):
        raise InputError(f"{name}: must be an array, got {type(value).__name__}")
    return np.asarray(value)


def opened(capture: str | os.PathLike[str] | Mapping[str, F32] | CapturedValues) -> CapturedValues:
    """The capture in a folder, or of arrays by name. Raises as `open_capture`."""
    if isinstance(capture, str | os.PathLike):
        return open_capture(capture)
    return Values(capture) if isinstance(capture, Mapping) else capture
