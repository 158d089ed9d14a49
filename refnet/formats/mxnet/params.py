"""MXNet .params files: names and arrays, read and written.

A file: uint64 magic 0x112, uint64 0, uint64 count, the arrays, uint64 count, the names (uint64 length
and bytes each). All numbers little endian. An array begins with a uint32 that tells its layout:

    V2, V3  magic, int32 storage, int32 ndim, int64 dims, int32 device type, int32 its id, int32 dtype, data
    V1      magic,                uint32 ndim, int64 dims, device, dtype, data
    legacy  (no magic)            uint32 ndim, uint32 dims, device, dtype, data

An array of ndim 0 (V1, V2, legacy: "none") ends after its dims; V3 has scalars there and "unknown"
is ndim -1. Source: NDArray::Save and Load of MXNet 1.9.1 (src/ndarray/ndarray.cc), read as facts.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Collection, Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from refnet.core.errors import FormatError, InputError, UnsupportedError
from refnet.core.op import F32
from refnet.formats.bounded import Bounded, check_name, open_file, to_float32
from refnet.formats.write import whole_file

FILE_MAGIC = 0x112
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DTYPES = {
    0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8", 7: "?",
    8: "<i2", 9: "<u2", 10: "<u4", 11: "<u8", 12: "<u2",
}  # fmt: skip
"""MXNet's type flags; 12 is bfloat16, whose data is passed over as 16-bit words."""
STORAGES = {-1: "undefined", 0: "dense", 1: "row_sparse", 2: "csr"}
DEVICES = (1, 2, 3, 5)
"""Device types cpu, gpu, cpu_pinned, cpu_shared: where the array lived; it says nothing about the data."""
MOST_DIMENSIONS = 32
LARGEST_NAME = 4096


def read_params(path: str | os.PathLike[str]) -> dict[str, F32]:
    """Names and float32 arrays of a .params file, in the file's order.

    The prefixes arg: and aux: are taken off. float16 is widened exactly, float64 rounded once to the
    nearest float32. Raises FormatError (file, byte offset, found, expected) for a damaged file, before
    anything of a false size is allocated; UnsupportedError for sparse arrays and other dtypes, by name.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_params(folder + "/a.params", {"w": np.float32([[1, 2]])})
    ...     read_params(folder + "/a.params")
    {'w': array([[1., 2.]], dtype=float32)}
    """
    stream, size = open_file(path)
    with stream:
        return parse_params(stream, size, os.fspath(path))


def parse_params(stream: BinaryIO, size: int, file: str, start: int = 0) -> dict[str, F32]:
    """The same from `size` bytes of an open stream that begin at `start` (an archive's member).

    >>> import io
    >>> parse_params(io.BytesIO(bytes(24)), 24, "a.params")
    Traceback (most recent call last):
    refnet.core.errors.FormatError: a.params: at byte 0: found magic 0x0, expected 0x112 (MXNet .params)
    """
    data = Bounded(stream, file, size, start)
    if (magic := data.number("<Q", "the file's magic")) != FILE_MAGIC:
        raise data.wrong(f"magic {magic:#x}", "0x112 (MXNet .params)", 8)
    if (reserved := data.number("<Q", "the reserved word")) != 0:
        raise data.wrong(f"reserved word {reserved:#x}", "0", 8)
    count = data.number("<Q", "the number of arrays")
    if count > data.left // 4:
        raise data.wrong(f"a count of {count} arrays", f"at most {data.left // 4} in {data.left} bytes", 8)
    arrays = [_array(data, index) for index in range(count)]
    names = _names(data, count)
    data.end("the names")
    found: dict[str, F32] = {}
    for name, (array, offset, problem) in zip(names, arrays, strict=True):
        if problem:
            raise UnsupportedError(f"{file}: array {name!r} at byte {offset} {problem}")
        bare = name.removeprefix("arg:").removeprefix("aux:") if name[:4] in ("arg:", "aux:") else name
        if bare in found:
            raise FormatError(file, offset, f"a second array named {bare!r}", "each name once")
        found[bare] = to_float32(array)
    return found


_Array = tuple[npt.NDArray[Any], int, str]
_NOTHING = np.empty(0, np.float32)


def _array(data: Bounded, index: int) -> _Array:
    """(array, offset, what refnet cannot do with it): the names, for messages, come at the file's end."""
    begin = data.offset
    what = f"array {index}"
    magic = data.number("<I", f"the magic of {what}")
    if magic in (V2, V3):
        storage = data.number("<i", f"the storage type of {what}")
        if storage not in STORAGES:
            raise data.wrong(f"storage type {storage} of {what}", "0 (dense)", 4)
        if storage in (1, 2):
            return _pass_sparse(data, what, begin, magic, storage)
        if storage != 0:
            raise UnsupportedError(f"{data.file}: {what} at byte {begin} has an undefined storage type")
        shape = _shape(data, what, magic)
    else:
        shape = _shape(data, what, magic, data.number("<I", f"the rank of {what}") if magic == V1 else magic)
    if not shape and magic != V3:
        return _NOTHING, begin, "is empty (no shape, no data)"
    return _body(data, what, begin, shape)


def _shape(data: Bounded, what: str, magic: int, rank: int | None = None) -> tuple[int, ...]:
    """The dimensions, after the rank unless that is known; V1 to V3 have int64, legacy files uint32."""
    if rank is None:
        rank = data.number("<i", f"the rank of {what}")
        if magic == V3 and rank == -1:
            raise UnsupportedError(
                f"{data.file}: {what} before byte {data.offset} has an unknown shape (ndim -1)"
            )
    if not 0 <= rank <= MOST_DIMENSIONS:
        expected = f"a rank of 0 to {MOST_DIMENSIONS} or a magic 0xF993FAC8 (V1), ...C9 (V2), ...CA (V3)"
        raise data.wrong(f"rank {rank} ({rank & 0xFFFFFFFF:#x}) of {what}", expected, 4)
    code = "<q" if magic in (V1, V2, V3) else "<I"
    shape = []
    for _ in range(rank):
        shape.append(data.number(code, f"a dimension of {what}"))
        if shape[-1] < 0:
            raise data.wrong(f"dimension {shape[-1]} of {what}", "0 or more", 8)
    return tuple(shape)


def _pass_sparse(data: Bounded, what: str, begin: int, magic: int, storage: int) -> _Array:
    """Pass over a sparse array, so that the message can give its name."""
    parts = [_shape(data, what, magic)]  # of the stored values
    _shape(data, what, magic)  # of the array
    data.skip(8, f"the device of {what}")
    flags = [data.number("<i", f"the dtype of {what}")]
    for _ in range(storage):  # row_sparse has one index array, csr two
        flags.append(data.number("<i", f"an index dtype of {what}"))
        parts.append(_shape(data, what, magic))
    for flag, shape in zip(flags, parts, strict=True):
        if flag not in DTYPES:
            raise data.wrong(f"dtype {flag} of {what}", f"one of {list(DTYPES)}")
        data.skip(math.prod(shape) * np.dtype(DTYPES[flag]).itemsize, what)
    return _NOTHING, begin, f"is {STORAGES[storage]}, refnet reads dense arrays"


def _body(data: Bounded, what: str, begin: int, shape: tuple[int, ...]) -> _Array:
    device = data.number("<i", f"the device type of {what}")
    if device not in DEVICES:
        raise data.wrong(f"device type {device} of {what}", f"one of {DEVICES}", 4)
    data.number("<i", f"the device id of {what}")
    flag = data.number("<i", f"the dtype of {what}")
    if flag not in DTYPES:
        raise data.wrong(f"dtype {flag} of {what}", f"one of {list(DTYPES)}", 4)
    elements = math.prod(shape)
    claim = f"{what} of shape {list(shape)}"
    if elements == 0 and math.prod(n for n in shape if n) > 2**31 - 1:
        raise data.wrong(claim, "dimensions whose product is below 2**31")
    if flag not in (0, 1, 2):
        data.skip(elements * np.dtype(DTYPES[flag]).itemsize, claim)
        kind = "bfloat16" if flag == 12 else np.dtype(DTYPES[flag]).name
        return _NOTHING, begin, f"is {kind}, refnet reads float32, float16 and float64"
    return data.array(DTYPES[flag], elements, claim).reshape(shape), begin, ""


def _names(data: Bounded, count: int) -> list[str]:
    found = data.number("<Q", "the number of names")
    if found != count:
        raise data.wrong(f"{found} names", f"{count}, one for each array", 8)
    names = []
    for index in range(count):
        length = data.number("<Q", f"the length of name {index}")
        if length > LARGEST_NAME:
            raise data.wrong(f"a length of {length} for name {index}", f"at most {LARGEST_NAME}", 8)
        raw = data.bytes(length, f"name {index}")
        try:
            names.append(raw.decode("utf-8"))
        except UnicodeDecodeError:
            raise data.wrong(f"{raw[:40]!r} as name {index}", "UTF-8", length) from None
        check_name(names[-1], data.file, data.offset - length, f"name {index}")
    return names


def write_params(
    path: str | os.PathLike[str], arrays: Mapping[str, F32], statistics: Collection[str] = ()
) -> None:
    """Write a .params file (V2) that MXNet loads, first under a temporary name in the same folder.

    arrays: name -> float32 array. statistics: names of running statistics, written with the prefix aux:,
    the others with arg:. Raises InputError for an array that is not float32 or has no dimensions, or
    where the file cannot be written.

    >>> write_params("/no/such/folder/a.params", {"w": np.zeros(3, np.float32)})
    Traceback (most recent call last):
    refnet.core.errors.InputError: cannot write /no/such/folder/a.params: No such file or directory
    """
    for name, array in arrays.items():
        if array.dtype != np.float32 or array.ndim == 0:
            raise InputError(
                f"array {name!r} must be float32 with dimensions, got {array.dtype}{list(array.shape)}"
            )
    with whole_file(path) as stream:
        stream.write(struct.pack("<QQQ", FILE_MAGIC, 0, len(arrays)))
        for array in arrays.values():
            stream.write(struct.pack("<Iii", V2, 0, array.ndim))
            stream.write(struct.pack(f"<{array.ndim}q", *array.shape))
            stream.write(struct.pack("<iii", 1, 0, 0))
            stream.write(np.ascontiguousarray(array, "<f4").tobytes())
        stream.write(struct.pack("<Q", len(arrays)))
        for name in arrays:
            raw = (("aux:" if name in statistics else "arg:") + name).encode()
            stream.write(struct.pack("<Q", len(raw)) + raw)
