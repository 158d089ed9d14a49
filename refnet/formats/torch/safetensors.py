"""safetensors files -> names and arrays, with the safetensors package.

A file: uint64 header length (little endian), a JSON header {name: {"dtype", "shape", "data_offsets"}},
then the data. The header is checked here first, so that a message can tell the byte; then the package reads
it, which checks again. Source: the format's description at github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.errors import FormatError, UnsupportedError
from refnet.formats.bounded import Bounded, bfloat16_to_float32, check_name, open_file, to_float32

LARGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""
LARGEST_DIMENSION = 2**53
DTYPES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""The dtypes that refnet reads -> bytes per element."""


def read(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    """Names and arrays of a safetensors file, in the order of their names.

    Floats become float32 (float16 and bfloat16 exactly, float64 rounded once to nearest), integers and
    booleans int64. Raises FormatError (file, byte offset where it can be told) for a damaged file and
    UnsupportedError for other dtypes, by name.

    >>> read("missing.safetensors")
    Traceback (most recent call last):
    refnet.core.errors.FormatError: missing.safetensors: found no such file
    """
    from safetensors import SafetensorError, deserialize

    file = os.fspath(path)
    stream, size = open_file(path)
    with stream:
        header = _header(Bounded(stream, file, size))
        stream.seek(0)
        data = stream.read(size)
    try:
        entries = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise FormatError(file, None, f"a file that safetensors refuses ({error})") from None
    found = {
        name: _array(bytes(entry["data"]), entry["dtype"], tuple(entry["shape"])) for name, entry in entries
    }
    if missing := sorted(set(header) - set(found)):
        raise FormatError(file, 8, f"no data of {missing[0][:100]!r}", "all tensors of the header")
    return {name: found[name] for name in sorted(found)}


def _array(data: bytes, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "u1"}
    raw = np.frombuffer(data, kinds.get(dtype) or f"<{dtype[0].lower()}{DTYPES[dtype]}").reshape(shape)
    if dtype == "BF16":
        return bfloat16_to_float32(raw)
    if dtype[0] == "F":
        return to_float32(raw).copy()
    return raw.astype(np.int64)


def _header(data: Bounded) -> dict[str, Any]:
    """The entries of the header, each checked: dtype, shape, offsets that follow one another to the end."""
    length = data.number("<Q", "the header's length")
    if length > min(data.left, LARGEST_HEADER):
        raise data.wrong(f"a header of {length} bytes", f"at most {min(data.left, LARGEST_HEADER)}", 8)
    raw = data.bytes(length, "the header")
    start = data.offset
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise FormatError(data.file, 8 + error.start, f"byte {raw[error.start]:#04x}", "UTF-8 text") from None
    except json.JSONDecodeError as error:
        offset = 8 + len(raw.decode("utf-8")[: error.pos].encode())
        raise FormatError(data.file, offset, f"malformed JSON ({error.msg})", "the header") from None
    except (RecursionError, ValueError) as error:
        raise FormatError(data.file, 8, f"a header that cannot be read ({str(error)[:200]})") from None
    if not isinstance(header, dict):
        raise FormatError(data.file, 8, f"a JSON {type(header).__name__}", "an object of tensors")
    header.pop("__metadata__", None)
    places = sorted((_place(name, entry, data.file) for name, entry in header.items()), key=lambda p: p[:2])
    expected = 0
    for begin, end, name in places:
        if begin != expected:
            raise FormatError(
                data.file, 8, f"{name[:100]!r} that begins at {begin}", f"at {expected} of the data"
            )
        expected = end
    if expected != data.left:
        raise FormatError(data.file, start, f"{data.left} bytes of data", f"{expected}, as the header says")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in it")
    return found


def _place(name: str, entry: Any, file: str) -> tuple[int, int, str]:
    """(begin, end, name) of a tensor whose entry agrees with itself."""
    check_name(name, file, 8, "a tensor's name")
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]}:
            numbers = [*shape, begin, end]
        case _:
            raise FormatError(file, 8, f"another entry {name[:100]!r}", "dtype, shape and data_offsets")
    if dtype not in DTYPES:
        raise UnsupportedError(f"{file}: {name[:100]!r} is {dtype[:20]}, refnet reads {', '.join(DTYPES)}")
    if any(type(n) is not int or not 0 <= n <= LARGEST_DIMENSION for n in numbers) or len(shape) > 32:
        raise FormatError(file, 8, f"shape or offsets of {name[:100]!r}", "whole numbers >= 0, 32 at most")
    needed = math.prod(shape) * DTYPES[dtype]
    if end - begin != needed:
        found = f"{end - begin} bytes of {name[:100]!r}"
        raise FormatError(file, 8, found, f"{needed} for {dtype} {shape[:8]}")
    if not needed and math.prod(n for n in shape if n) > 2**31 - 1:
        raise FormatError(file, 8, f"shape {shape[:8]}", "dimensions whose product is below 2**31")
    return begin, end, name
