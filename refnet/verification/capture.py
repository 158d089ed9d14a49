"""Captures: folders with the values that a framework, or refnet, computed. Reading one.

    open_capture(folder) -> Capture ── .names, .value(name), .input(name)

A capture is a folder with manifest.json and one .npy file per value (docs/formats.md). A folder of .npy files
without a manifest opens too: hardware dumps are that. An unfinished capture does not.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from refnet.core.errors import FormatError, InputError
from refnet.formats.golden_file import Digest, digest
from refnet.formats.manifest import NAME, Manifest, Stored, read
from refnet.formats.npy import open_npy

if TYPE_CHECKING:
    from refnet.core.op import F32

PROGRESS = "progress.jsonl"
"""What an unfinished capture has instead of a manifest."""
MOST_SYNTHETIC = 1 << 28
"""Elements of an input that a manifest may have made from a seed: 1 GiB, 1700 images of 3 by 224 by 224."""


@dataclass(frozen=True)
class Capture:
    """A capture that lies on disk. manifest: None for a plain folder of .npy files.

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
        return math.prod(open_npy(self.files[name]).shape) if name in self.files else 0

    def value(self, name: str) -> F32:
        """A value, read from its file, of the shape and with the hash that the manifest says.

        Raises InputError if it is not there, FormatError if its file is not what the manifest says.
        """
        return self._read(name, self._stored(name))

    def input(self, name: str) -> F32:
        """An input of the network: its file, or if the capture keeps only its hash, its seed's array again.

        Raises as `value`.
        """
        stored = None if self.manifest is None else self.manifest.inputs.get(name)
        if self.manifest is not None and stored is None:
            raise InputError(f"{self.folder}: the manifest has no input {name!r}")
        if stored is not None and stored.file is None and (seed := self._seed()) is not None:
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
        found = re.fullmatch("seed:([0-9]{1,20})", source)
        return int(found[1]) if found and int(found[1]) < 1 << 64 else None

    def _stored(self, name: str) -> Stored | None:
        if self.manifest is None:
            return None
        return self.manifest.values.get(name) or self.manifest.inputs.get(name)

    def _read(self, name: str, stored: Stored | None) -> F32:
        if self.manifest is None:
            if name not in self.files:
                raise InputError(f"{self.folder} has no value {name!r}")
            return open_npy(self.files[name]).read()
        if stored is None:
            raise InputError(f"{self.folder}: the manifest has no value {name!r}")
        if stored.file is None:
            raise InputError(f"{self.folder} keeps only the hash of {name!r}")
        path = self.folder / stored.file
        file = open_npy(path)
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
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"{os.fspath(folder)!r} is no folder")
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
