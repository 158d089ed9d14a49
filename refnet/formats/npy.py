"""NumPy's .npy files of values, read row by row and written whole or not at all.

A file: b"\\x93NUMPY", version (2 bytes), header length (2 bytes little endian in version 1, 4 bytes in 2
and 3), the header (text of a dict with descr, fortran_order and shape), then the elements in row order.
Nothing of the header is evaluated, and its shape is compared with the file's size before memory is taken.

Source: NumPy Enhancement Proposal 1 and numpy.lib.format.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refnet.core.errors import FormatError, InputError
from refnet.core.op import F32
from refnet.formats.write import whole_file

MAGIC = b"\x93NUMPY"
HEADER = re.compile(
    r"\{ *'descr': *(?:'([^'\\]*)'|(\[.*\])), *'fortran_order': *(True|False),"
    r" *'shape': *\(([0-9, ]*)\),? *\}\s*"
)
CODES = {
    "float32": "<f4", "bool": "|b1", "int8": "|i1", "uint8": "|u1", "int16": "<i2", "uint16": "<u2",
    "int32": "<i4", "uint32": "<u4", "int64": "<i8", "uint64": "<u8",
}  # fmt: skip
"""The dtypes of values, as .npy files have them."""
LONGEST_HEADER = 10000
"""Bytes; NumPy's own headers of plain arrays are 64 to 128 bytes long."""


@dataclass(frozen=True)
class Npy:
    """A checked .npy file: where its elements begin, their shape and dtype."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str = "float32"

    def read(self, start: int = 0, stop: int | None = None) -> F32:
        """Rows start to stop (default: all) along the first dimension; InputError if they are gone.

        A single number counts as one row.
        """
        start, stop, _ = slice(start, stop).indices(self.shape[0] if self.shape else 1)
        row = math.prod(self.shape[1:])
        count = max(stop - start, 0) * row
        with _mending(self.path), open(self.path, "rb") as file:
            file.seek(self.offset + np.dtype(self.dtype).itemsize * start * row)
            flat = np.fromfile(file, CODES[self.dtype], count)
        if flat.size != count:
            raise FormatError(self.path, None, f"{flat.size} elements from row {start}", f"{count}")
        rows = flat.astype(self.dtype, copy=False)
        return rows.reshape(-1, *self.shape[1:]) if self.shape else rows.reshape(())


def open_npy(path: str | os.PathLike[str], dtype: str | None = "float32") -> Npy:
    """Check a .npy file's header and size, and read none of its elements.

    dtype: what it must be; None: one of CODES. Raises InputError (naming the file) if it cannot be opened, is
    of another dtype, is empty or is
    stored column by column; FormatError (with the offset) if it is no .npy file, or cut, or too long.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "x.npy")
    ...     np.save(file, np.arange(6, dtype=np.float32).reshape(3, 2))
    ...     print(open_npy(file).shape, open_npy(file).read(1, 2))
    (3, 2) [[2. 3.]]
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # opening a pipe would wait for somebody to write
        raise InputError(f"{path}: is not a regular file")
    with _mending(path), open(path, "rb") as file:
        head = file.read(12)
        wide = head[6:7] in (b"\x02", b"\x03")
        start = 12 if wide else 10
        if head[:6] != MAGIC or len(head) < 12:
            raise FormatError(path, 0, f"{head[:6]!r}", f"{MAGIC!r} (a .npy file)")
        if head[6:8] not in (b"\x01\0", b"\x02\0", b"\x03\0"):
            raise FormatError(path, 6, f"version {head[6]}.{head[7]}", "1.0, 2.0 or 3.0")
        length = int.from_bytes(head[8:start], "little")
        if length > LONGEST_HEADER:
            raise FormatError(path, 8, f"a header of {length} bytes", f"at most {LONGEST_HEADER}")
        file.seek(start)
        text = file.read(length).decode("latin-1")
        size = file.seek(0, os.SEEK_END)
    match = HEADER.fullmatch(text)
    if len(text) < length or match is None:
        raise FormatError(
            path, start, f"the header {text[:80]!r}", "descr, fortran_order and shape of one array"
        )
    kind, fields, fortran, numbers = match.groups()
    shape = tuple(int(n[:40]) for n in numbers.replace(" ", "").split(",") if n)
    known = {code: name for name, code in CODES.items()}
    found = known.get(kind or "")
    if found is None or found != (dtype or found):
        said = "float32, an integer or bool" if dtype is None else f"{dtype} ({CODES[dtype]!r})"
        raise InputError(f"{path}: must be {said}, found {kind or fields!r}")
    if fortran == "True" and len(shape) > 1:
        raise InputError(f"{path}: is stored column by column; save np.ascontiguousarray(x)")
    if len(shape) > 32 or 0 in shape:
        raise InputError(f"{path}: must have elements and at most 32 dimensions, found the shape {shape}")
    offset = start + length
    needed = np.dtype(found).itemsize * math.prod(shape)
    if size - offset != needed:
        raise FormatError(path, offset, f"{size - offset} bytes of elements", f"{needed} for {shape}")
    return Npy(path, offset, shape, found)


@contextmanager
def writing(
    path: str | os.PathLike[str], shape: tuple[int, ...], dtype: str = "float32"
) -> Iterator[Callable[[F32], None]]:
    """Write a .npy file of this shape and dtype part by part; it takes its name when it is complete.

    Yields a function that appends rows. If anything goes wrong, no file of that name is left or
    changed. Raises InputError as `whole_file` does.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with writing(Path(folder, "y.npy"), (2, 2)) as append:
    ...         append(np.float32([[1, 2]]))
    ...         append(np.float32([[3, 4]]))
    ...     print(np.load(Path(folder, "y.npy")).tolist())
    [[1.0, 2.0], [3.0, 4.0]]
    """
    with whole_file(path) as file:
        header = {"descr": CODES[dtype], "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)

        def append(rows: F32) -> None:
            file.write(np.ascontiguousarray(rows, CODES[dtype]).data)

        yield append


@contextmanager
def _mending(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a path that no system takes
        raise InputError(f"{os.fspath(path)!r} cannot be read: {getattr(error, 'strerror', error)}") from None
