"""A file's bytes, read with every claimed length checked against what is really there."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from refnet.core.errors import FormatError
from refnet.formats.foreign import HEAD, refuse_foreign

UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line ends, and halves of surrogate pairs, which no encoding has."""


@dataclass
class Bounded:
    """A cursor over `size` bytes of a stream that begin at `start`.

    Nothing is read or allocated before its length is known to fit.

    file: the name for messages. Offsets in messages count from the stream's beginning.

    >>> import io
    >>> b = Bounded(io.BytesIO(bytes([3, 0, 0, 0, 9])), "a.bin", 5)
    >>> b.number("<I", "a count"), b.left
    (3, 1)
    >>> b.bytes(2, "data")
    Traceback (most recent call last):
    refnet.core.errors.FormatError: a.bin: at byte 4: found 1 bytes left, expected 2 for data
    """

    stream: BinaryIO
    file: str
    size: int
    start: int = 0
    place: int = 0

    @property
    def left(self) -> int:
        """Bytes that are left."""
        return self.size - self.place

    @property
    def offset(self) -> int:
        """Where the next byte stands in the stream."""
        return self.start + self.place

    def wrong(self, found: str, expected: str, back: int = 0) -> FormatError:
        """A FormatError at the next byte, or `back` bytes before it."""
        return FormatError(self.file, self.offset - back, found, expected)

    def bytes(self, count: int, what: str) -> bytes:
        """The next `count` bytes."""
        self._claim(count, what)
        self.stream.seek(self.offset)
        data = self.stream.read(count)
        if len(data) < count:
            raise self.wrong(f"{len(data)} bytes left", f"{count} for {what}")
        self.place += count
        return data

    def number(self, code: str, what: str) -> int:
        """One integer, by its code of the struct module, for example '<Q'."""
        (value,) = struct.unpack(code, self.bytes(struct.calcsize(code), what))
        return int(value)

    def array(self, dtype: str, count: int, what: str) -> npt.NDArray[Any]:
        """The next `count` elements: the memory is only allocated once the file holds so many bytes."""
        kind = np.dtype(dtype)
        self._claim(count * kind.itemsize, what)
        self.stream.seek(self.offset)
        array = np.empty(count, kind)
        view = memoryview(array.view(np.uint8).data)
        done = 0
        while done < len(view):
            step = self.stream.readinto(view[done:])  # type: ignore[attr-defined]
            if not step:
                raise self.wrong(f"{done} bytes left", f"{len(view)} for {what}")
            done += step
        self.place += len(view)
        return array

    def skip(self, count: int, what: str) -> None:
        """Pass over `count` bytes."""
        self._claim(count, what)
        self.place += count

    def end(self, after: str) -> None:
        """Refuse bytes that are left over."""
        if self.left:
            raise self.wrong(f"{self.left} more bytes", f"the end after {after}")

    def _claim(self, count: int, what: str) -> None:
        if not 0 <= count <= self.left:
            raise self.wrong(f"{self.left} bytes left", f"{count} for {what}")


def open_file(path: str | os.PathLike[str]) -> tuple[BinaryIO, int]:
    """The file, opened for reading, and its size in bytes.

    FormatError where there is no regular file, UnsupportedError for a pointer, a page or a compressed file
    (foreign.py).
    """
    file = os.fspath(path)
    try:
        if not os.path.isfile(file):
            raise FormatError(file, None, "no such file" if not os.path.exists(file) else "no regular file")
        stream = open(file, "rb")  # noqa: SIM115
        try:
            refuse_foreign(stream.read(HEAD), file)
            stream.seek(0)
            return stream, os.fstat(stream.fileno()).st_size
        except BaseException:
            stream.close()
            raise
    except OSError as error:
        raise FormatError(file, None, f"no readable file ({error.strerror})") from None


def check_name(name: str, file: str, offset: int | None, what: str) -> None:
    """Refuse a name with characters that are no text: a graph is printed, hashed and written with its names.

    >>> check_name("conv1.weight", "a.params", 24, "name 0")
    >>> check_name("w\\n", "a.bin", 24, "name 1")
    Traceback (most recent call last):
    refnet.core.errors.FormatError: a.bin: at byte 24: found 'w\\n' as name 1, expected no control character
    """
    if UNFIT.search(name):
        raise FormatError(file, offset, f"{name[:100]!a} as {what}", "no control character")


def text(name: str) -> str:
    """The name of a file as text: bytes of it that are no UTF-8 are escaped.

    >>> text("net-\\udcff")
    'net-\\\\udcff'
    """
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def to_float32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """float16 and float32 exactly, float64 rounded once to nearest, ties to even; overflow gives infinity.

    >>> to_float32(np.array([1e300, 1.0], "f8"))
    array([inf,  1.], dtype=float32)
    """
    with np.errstate(all="ignore"):
        return array.astype(np.float32, order="C", copy=False)


def bfloat16_to_float32(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """bfloat16 (the upper half of a float32) widened, exactly.

    >>> bfloat16_to_float32(np.array([0x3F80, 0xC000], np.uint16))
    array([ 1., -2.], dtype=float32)
    """
    wide: npt.NDArray[np.float32] = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return wide
