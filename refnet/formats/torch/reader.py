"""PyTorch state dicts: .pth files, zip and legacy, read by an inert unpickler.

    read_state_dict ─┬─ zip: zip_file.py ────┬─ pickle_file.py (opcodes -> data, allow-list of globals)
                     └─ legacy: this file ───┴─ _tensors (storages, offsets, strides -> arrays)

Source of the layouts: torch/serialization.py of PyTorch 2.13 (`_save`, `_legacy_save`), read as facts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from refnet.core.errors import FormatError, UnsupportedError
from refnet.formats.bounded import Bounded, bfloat16_to_float32, check_name, open_file, to_float32
from refnet.formats.torch.pickle_file import Ordered, Storage, Tensor, load
from refnet.formats.torch.zip_file import Member, check_crc, zip_members

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
LARGEST_PICKLE = 64 * 2**20
"""Bytes. ResNeSt-269's takes about 300,000."""
MOST_COPIED = 2
"""Copies of non-contiguous tensors, together, as a multiple of all stored elements."""
DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""Storage class -> NumPy's dtype (bfloat16 as its 16 bits)."""

Storages = Mapping[str, npt.NDArray[Any]]


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    """Names and arrays of a state dict that torch saved, in the file's order.

    Float tensors become float32 (float16 and bfloat16 exactly, float64 rounded once to nearest), integer and
    boolean ones int64 (`num_batches_tracked`). A checkpoint that holds the state dict under `state_dict`
    or `model` is opened; the prefix `module.`, where all names have it (DataParallel), is taken off; entries
    that are not tensors are refused. Nothing in the file is executed: see pickle_file.py.

    Raises FormatError (file, byte offset, found, expected) for a damaged file and UnsupportedError for
    globals, dtypes or features that are not on the list, by name.

    >>> read_state_dict("missing.pth")
    Traceback (most recent call last):
    refnet.core.errors.FormatError: missing.pth: found no such file
    """
    file = os.fspath(path)
    stream, size = open_file(path)
    with stream:
        head = stream.read(4)
        if head == b"PK\x03\x04":
            return _read_zip(stream, size, file)
        if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            return _read_legacy(Bounded(stream, file, size))
    found = head.hex(" ") or "nothing"
    raise FormatError(file, 0, found, "a zip (50 4b 03 04) or a pickle (80 02) that torch saved")


def _read_zip(stream: BinaryIO, size: int, file: str) -> dict[str, npt.NDArray[Any]]:
    members = zip_members(Bounded(stream, file, size))
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise FormatError(file, None, f"{len(pickles)} members */data.pkl of {len(members)}", "exactly one")
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}byteorder" in members:
        order = _member(stream, members[f"{prefix}byteorder"], file, 16)
        if order != b"little":
            raise UnsupportedError(f"{file}: byte order {order!r}, refnet reads little")
    data = _member(stream, members[pickles[0]], file, LARGEST_PICKLE)
    start = members[pickles[0]].offset
    saved, used = load(data, file, start)
    if used != len(data):
        raise FormatError(file, start + used, f"{len(data) - used} more bytes", "the end of data.pkl")
    tensors = _tensors(saved, file)
    storages: dict[str, npt.NDArray[Any]] = {}
    for storage in _storages(tensors, file).values():
        name = f"{prefix}data/{storage.key}"
        if name not in members:
            raise FormatError(file, start, f"no member {name[:200]!r}", "the storage that a tensor needs")
        member = members[name]
        kind = np.dtype(DTYPES[storage.kind])
        if storage.count * kind.itemsize != member.size:
            expected = f"{storage.count} elements of {storage.kind}"
            raise FormatError(file, member.offset, f"{member.size} bytes in {name[:200]!r}", expected)
        body = Bounded(stream, file, member.size, member.offset)
        raw = body.array("u1", member.size, name)
        check_crc(member, raw.data, file)
        storages[storage.key] = _converted(raw.view(kind), storage.kind)
    return _arrays(tensors, storages, file)


def _member(stream: BinaryIO, member: Member, file: str, limit: int) -> bytes:
    if member.size > limit:
        raise FormatError(
            file, member.offset, f"{member.size} bytes in {member.name[:200]!r}", f"at most {limit}"
        )
    data = Bounded(stream, file, member.size, member.offset).bytes(member.size, member.name)
    check_crc(member, data, file)
    return data


def _read_legacy(data: Bounded) -> dict[str, npt.NDArray[Any]]:
    """Pickles of magic, protocol, system, the object, the storages' keys; then count and bytes of each."""
    file = data.file
    head = Bounded(data.stream, file, data.size).bytes(min(data.size, LARGEST_PICKLE), "the pickles")

    def pickle(persistent: bool = False) -> Any:
        value, used = load(head[data.place :], file, data.place, persistent)
        data.skip(used, "a pickle")
        return value

    for name, expected in (("magic", LEGACY_MAGIC), ("protocol", LEGACY_PROTOCOL)):
        at, value = data.place, pickle()
        if type(value) is not int or value != expected:
            raise FormatError(file, at, f"another {name}", f"{expected:#x} (a file that torch saved)")
    at, system = data.place, pickle()
    if type(system) is not dict or system.get("little_endian") is not True:
        raise UnsupportedError(f"{file}: at byte {at}: not written by a little-endian machine")
    tensors = _tensors(pickle(persistent=True), file)
    wanted = _storages(tensors, file)
    at, keys = data.place, pickle()
    if type(keys) is not list or any(type(key) is not str for key in keys) or len(set(keys)) < len(keys):
        raise FormatError(file, at, "another list of storages", "a list of different strings")
    storages: dict[str, npt.NDArray[Any]] = {}
    for key in keys:
        if key not in wanted:
            raise FormatError(file, at, f"the storage {key[:40]!r}, which no tensor uses", "used ones only")
        storage = wanted[key]
        count = data.number("<q", f"the length of storage {key[:40]!r}")
        if count != storage.count:
            raise data.wrong(f"{count} elements in storage {key[:40]!r}", f"{storage.count}", 8)
        raw = data.array(DTYPES[storage.kind], count, f"storage {key[:40]!r}")
        storages[key] = _converted(raw, storage.kind)
    if missing := [key for key in wanted if key not in storages]:
        raise FormatError(file, at, f"no storage {missing[0][:40]!r}", "all that the tensors need")
    data.end("the last storage")
    return _arrays(tensors, storages, file)


def _tensors(saved: Any, file: str) -> dict[str, Tensor]:
    """The named tensors of what was pickled: a dict, or a checkpoint that holds one."""
    items = saved.items if isinstance(saved, Ordered) else saved
    if type(items) is not dict:
        raise UnsupportedError(f"{file}: holds {type(saved).__name__}, refnet reads state dicts")
    for key in ("state_dict", "model"):
        inner = items.get(key)
        if isinstance(inner, (dict, Ordered)):
            items = inner.items if isinstance(inner, Ordered) else inner
            break
    for name, value in items.items():
        if type(name) is not str or type(value) is not Tensor:
            shown = f"entry {str(name)[:100]!r} is {type(value).__name__}"
            raise UnsupportedError(f"{file}: {shown}; a state dict holds names and tensors only")
        check_name(name, file, value.at, "a tensor's name")
    if items and all(name.startswith("module.") for name in items):
        return {name.removeprefix("module."): tensor for name, tensor in items.items()}
    return dict(items)


def _storages(tensors: Mapping[str, Tensor], file: str) -> dict[str, Storage]:
    """Key -> storage; all tensors of a storage must agree on its class and length."""
    found: dict[str, Storage] = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        known = found.setdefault(storage.key, storage)
        if (known.kind, known.count) != (storage.kind, storage.count):
            both = f"storage {storage.key[:40]!r} of {name[:100]!r} described in two ways"
            raise FormatError(file, tensor.at, both, "one class and length")
    return found


def _converted(raw: npt.NDArray[Any], kind: str) -> npt.NDArray[Any]:
    """A storage's elements as float32 or int64."""
    if kind == "BFloat16Storage":
        return bfloat16_to_float32(raw)
    if raw.dtype.kind == "f":
        return to_float32(raw)
    return raw.view(np.uint8).astype(np.int64) if raw.dtype.kind == "b" else raw.astype(np.int64, copy=False)


def _arrays(tensors: Mapping[str, Tensor], storages: Storages, file: str) -> dict[str, npt.NDArray[Any]]:
    """Each tensor's array: a part of its storage where that is contiguous, otherwise a copy."""
    room = MOST_COPIED * sum(array.size for array in storages.values())
    found: dict[str, npt.NDArray[Any]] = {}
    for name, tensor in tensors.items():
        part = tensor.storage
        elements = storages[part.key][part.begin : part.begin + part.elements]
        _check_place(name, tensor, file)
        steps = zip(tensor.size, tensor.stride, strict=True)
        strides = tuple(step * elements.itemsize if n > 1 else 0 for n, step in steps)
        if 0 in tensor.size:
            array = np.empty(tensor.size, elements.dtype)
        else:
            base = elements[tensor.offset :]
            array = np.lib.stride_tricks.as_strided(base, tensor.size, strides, writeable=True)
        if not array.flags.c_contiguous:
            room -= array.size
            if room < 0:
                raise UnsupportedError(f"{file}: {name[:100]!r}: too many tensors that share their storages")
            array = np.ascontiguousarray(array)
        found[name] = array
    return found


def _check_place(name: str, tensor: Tensor, file: str) -> None:
    """Refuse a tensor that leaves its storage, or that repeats elements (expand)."""
    elements = tensor.storage.elements
    shown = f"tensor {name[:100]!r} of size {list(tensor.size)[:8]}"
    if 0 in tensor.size:
        if math.prod(n for n in tensor.size if n) > 2**31 - 1:
            raise FormatError(file, tensor.at, shown, "dimensions whose product is below 2**31")
        return
    if math.prod(tensor.size) > elements:
        raise UnsupportedError(f"{file}: {shown} repeats the {elements} elements of its storage (expanded)")
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
    if last >= elements:
        stride = list(tensor.stride)[:8]
        where = f"{shown}, stride {stride} and offset {tensor.offset}"
        raise FormatError(file, tensor.at, where, f"to end within {elements} elements")
