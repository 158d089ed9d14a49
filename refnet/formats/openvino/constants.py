"""The constants of an IR: read from the .bin by offset, each length compared with what is there first."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.errors import FormatError
from refnet.formats.assembly import LARGEST_NUMBER, LARGEST_VALUE
from refnet.formats.bounded import Bounded, bfloat16_to_float32
from refnet.formats.foreign import HEAD, refuse_foreign
from refnet.formats.openvino.file import Layer

Array = npt.NDArray[Any]

DTYPES = {
    "f64": "<f8", "f32": "<f4", "f16": "<f2", "bf16": "<u2", "boolean": "?",
    "i8": "i1", "i16": "<i2", "i32": "<i4", "i64": "<i8",
    "u8": "u1", "u16": "<u2", "u32": "<u4", "u64": "<u8",
}  # fmt: skip
"""Element type -> what it is in the .bin."""


@dataclass
class Weights:
    """The .bin beside an .xml. Nothing is opened before a constant is read.

    Constants of the same bytes share one array, and all others together may not be longer than the file: so
    no more is read than it holds, however many layers name it.
    """

    xml: str
    _shared: dict[tuple[int, int, str], Array] = field(default_factory=dict)
    _total: int = 0

    @property
    def file(self) -> str:
        """The name of the .bin."""
        return os.path.splitext(self.xml)[0] + ".bin"

    def read(self, layer: Layer) -> Array:
        """The array of a Const layer. float16 stays float16; bfloat16 is widened to float32."""
        kind, shape, offset, size = self._said(layer)
        key = (offset, size, kind)
        if key not in self._shared:
            if not size:
                return np.zeros(shape, DTYPES[kind])
            self._shared[key] = self._bytes(layer, kind, offset, size)
        return self._shared[key].reshape(shape)

    def _said(self, layer: Layer) -> tuple[str, tuple[int, ...], int, int]:
        """Element type, shape, offset and size, as the layer says them."""
        said = layer.attributes
        kind = said.get("element_type", "")
        if kind not in DTYPES:
            raise layer.unsupported(f"element_type {kind[:60]!r}; refnet reads {', '.join(DTYPES)}")
        numbers = [said.get("offset", ""), said.get("size", "")]
        if not all(re.fullmatch("[0-9]{1,18}", text) for text in numbers):
            raise layer.wrong(f"offset and size {[text[:30] for text in numbers]}", "whole numbers from 0 on")
        shape = shape_of(layer, said.get("shape", ""))
        count = math.prod(shape)
        if count > LARGEST_VALUE:
            raise layer.wrong(f"{count} elements", f"at most {LARGEST_VALUE}")
        offset, size = map(int, numbers)
        if size != (needed := count * np.dtype(DTYPES[kind]).itemsize):
            raise layer.wrong(f"size {size}", f"{needed} for {kind} {list(shape)}")
        return kind, shape, offset, size

    def _bytes(self, layer: Layer, kind: str, offset: int, size: int) -> Array:
        """The elements at a place of the file, in one dimension."""
        what = f"{layer.title} of {os.path.basename(self.xml)}"
        if not os.path.isfile(self.file):
            needed = f"the constants of {os.path.basename(self.xml)}, beside it"
            raise FormatError(self.file, None, "no such file", needed)
        try:
            stream = open(self.file, "rb")  # noqa: SIM115
        except OSError as error:
            raise FormatError(self.file, None, f"no readable file ({error.strerror})") from None
        with stream:
            length = os.fstat(stream.fileno()).st_size
            self._total += size
            if offset + size > length or self._total > length:
                refuse_foreign(stream.read(HEAD), self.file)
            data = Bounded(stream, self.file, length)
            data.skip(offset, f"the offset of {what}")
            data.skip(size, what)
            data.place = offset
            if self._total > length:
                found = f"constants of {self._total} bytes, the last {what}"
                raise FormatError(self.file, offset, found, f"at most the file's {length}")
            array = data.array(DTYPES[kind], size // np.dtype(DTYPES[kind]).itemsize, what)
        if kind == "boolean" and array.view(np.uint8).max() > 1:
            raise FormatError(self.file, offset, f"other bytes than 0 and 1 for {what}")
        return bfloat16_to_float32(array) if kind == "bf16" else array


def shape_of(layer: Layer, text: str) -> tuple[int, ...]:
    """The shape that an attribute states, such as "64, 3, 7, 7"; "" is a single number."""
    parts = [part.strip() for part in text.split(",", 33)] if text.strip() else []
    if len(parts) > 32 or not all(re.fullmatch("[0-9]{1,10}", part) for part in parts):
        raise layer.wrong(f"shape {text[:60]!r}", "at most 32 whole numbers from 0 on")
    shape = tuple(map(int, parts))
    if shape and max(shape) > LARGEST_NUMBER:
        raise layer.wrong(f"shape {text[:60]!r}", f"numbers up to {LARGEST_NUMBER}")
    return shape
