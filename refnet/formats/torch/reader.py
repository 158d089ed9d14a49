"""PyTorch checkpoints: .pth files, zip and legacy, read by an inert unpickler.

    read_checkpoint ─┬─ zip: zip_file.py ──┬─ pickle_file.py ── checkpoint.py ── _arrays
                     └─ legacy: this file ─┘  opcodes -> data   which weights    storages, strides -> arrays

Source of the layouts: torch/serialization.py of PyTorch 2.13 (`_save`, `_legacy_save`), read as facts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from refnet.core.errors import FormatError, UnsupportedError
from refnet.formats.bounded import Bounded, bfloat16_to_float32, open_file, to_float32
from refnet.formats.foreign import HEAD, other_weights, other_zip
from refnet.formats.torch.checkpoint import Chosen, chosen
from refnet.formats.torch.pickle_file import load
from refnet.formats.torch.stand_ins import Opaque, Pickled, Storage, Tensor
from refnet.formats.torch.zip_file import Member, check_crc, refuse_packed, zip_members

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


@dataclass(frozen=True)
class Checkpoint:
    """The arrays of a file's weights by name, in the file's order, and what was taken of it.

    path: the keys of the weights, joined by points; "" if the file is a state dict itself. whole: the class
    of a module that was pickled whole, or "". others: the paths of other weights in the file, as of an EMA.
    """

    arrays: dict[str, npt.NDArray[Any]]
    path: str = ""
    whole: str = ""
    others: tuple[str, ...] = ()


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of `read_checkpoint`.

    >>> read_state_dict("missing.pth")
    Traceback (most recent call last):
    refnet.core.errors.FormatError: missing.pth: found no such file
    """
    return read_checkpoint(path).arrays


def read_checkpoint(path: str | os.PathLike[str], key: str | None = None) -> Checkpoint:
    """Names and arrays of the weights that torch saved: a state dict, a checkpoint with some, a whole module.

    Float tensors become float32 (float16 and bfloat16 exactly, float64 rounded once to nearest), integer and
    boolean ones int64 (`num_batches_tracked`). key: which weights of a checkpoint, for example
    "state_dict_ema"; without it checkpoint.py's rule tells. Names are those of the file. Nothing in the file
    is executed: see pickle_file.py.

    Raises FormatError (file, byte offset, found, expected) for a damaged file and UnsupportedError for what
    is not read, by name: other programs' files, other dtypes, tensors that an unknown global would make.

    >>> read_checkpoint("missing.pth")
    Traceback (most recent call last):
    refnet.core.errors.FormatError: missing.pth: found no such file
    """
    file = os.fspath(path)
    stream, size = open_file(path)
    with stream:
        head = stream.read(HEAD)
        if head[:4] == b"PK\x03\x04":
            taken, arrays = _read_zip(stream, size, file, key)
        elif head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            taken, arrays = _read_legacy(Bounded(stream, file, size), key)
        else:
            found = other_weights(head) or head[:4].hex(" ") or "nothing"
            raise FormatError(file, 0, found, "a zip (50 4b 03 04) or a pickle (80 02) that torch saved")
    return Checkpoint(arrays, taken.path, taken.whole, taken.others)


Read = tuple[Chosen, dict[str, npt.NDArray[Any]]]


def _read_zip(stream: BinaryIO, size: int, file: str, key: str | None) -> Read:
    members = zip_members(Bounded(stream, file, size))
    if other := other_zip(list(members)):
        raise UnsupportedError(f"{file}: is {other}")
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
    pickled = load(data, file, start)
    if pickled.used != len(data):
        raise FormatError(
            file, start + pickled.used, f"{len(data) - pickled.used} more bytes", "the end of data.pkl"
        )
    taken = chosen(pickled.value, key, file)
    storages: dict[str, npt.NDArray[Any]] = {}
    for storage in _storages(taken.tensors, file).values():
        name = f"{prefix}data/{storage.key}"
        if name not in members:
            raise FormatError(file, start, f"no member {name[:200]!r}", "the storage that a tensor needs")
        member = members[name]
        refuse_packed(member)
        kind = np.dtype(DTYPES[storage.kind])
        if storage.count * kind.itemsize != member.size:
            expected = f"{storage.count} elements of {storage.kind}"
            raise FormatError(file, member.offset, f"{member.size} bytes in {name[:200]!r}", expected)
        body = Bounded(stream, file, member.size, member.offset)
        raw = body.array("u1", member.size, name)
        check_crc(member, raw.data, file)
        storages[storage.key] = _converted(raw.view(kind), storage.kind)
    return taken, _arrays(taken.tensors, storages, file)


def _member(stream: BinaryIO, member: Member, file: str, limit: int) -> bytes:
    if member.size > limit:
        raise FormatError(
            file, member.offset, f"{member.size} bytes in {member.name[:200]!r}", f"at most {limit}"
        )
    refuse_packed(member)
    data = Bounded(stream, file, member.size, member.offset).bytes(member.size, member.name)
    check_crc(member, data, file)
    return data


def _read_legacy(data: Bounded, key: str | None) -> Read:
    """Pickles of magic, protocol, system, the object, the storages' keys; then count and bytes of each."""
    file = data.file
    head = Bounded(data.stream, file, data.size).bytes(min(data.size, LARGEST_PICKLE), "the pickles")

    def pickle(persistent: bool = False) -> Pickled:
        found = load(head[data.place :], file, data.place, persistent)
        data.skip(found.used, "a pickle")
        return found

    for name, expected in (("magic", LEGACY_MAGIC), ("protocol", LEGACY_PROTOCOL)):
        at, value = data.place, pickle().value
        if type(value) is not int or value != expected:
            raise FormatError(file, at, f"another {name}", f"{expected:#x} (a file that torch saved)")
    at, system = data.place, pickle().value
    if type(system) is not dict or system.get("little_endian") is not True:
        raise UnsupportedError(f"{file}: at byte {at}: not written by a little-endian machine")
    pickled = pickle(persistent=True)
    taken = chosen(pickled.value, key, file)
    wanted = _storages(taken.tensors, file)
    at, keys = data.place, pickle().value
    if type(keys) is not list or any(type(key) is not str for key in keys) or len(set(keys)) < len(keys):
        raise FormatError(file, at, "another list of storages", "a list of different strings")
    storages: dict[str, npt.NDArray[Any]] = {}
    for name in keys:
        storage = wanted.get(name) or _described(pickled.storages.get(name), name, file, at)
        count = data.number("<q", f"the length of storage {name[:40]!r}")
        if count != storage.count:
            raise data.wrong(f"{count} elements in storage {name[:40]!r}", f"{storage.count}", 8)
        if name in wanted:
            raw = data.array(DTYPES[storage.kind], count, f"storage {name[:40]!r}")
            storages[name] = _converted(raw, storage.kind)
        else:
            data.skip(count * np.dtype(DTYPES[storage.kind]).itemsize, f"storage {name[:40]!r}")
    if missing := [name for name in wanted if name not in storages]:
        raise FormatError(file, at, f"no storage {missing[0][:40]!r}", "all that the tensors need")
    data.end("the last storage")
    return taken, _arrays(taken.tensors, storages, file)


def _described(storage: Storage | Opaque | None, name: str, file: str, at: int) -> Storage:
    """A storage that no chosen tensor uses, as of an optimizer: its length tells where the next begins."""
    if storage is None:
        raise FormatError(file, at, f"the storage {name[:40]!r}, which no tensor uses", "used ones only")
    if isinstance(storage, Opaque):
        raise UnsupportedError(f"{file}: storage {name[:40]!r} is of {storage}, whose length is not known")
    return storage


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
