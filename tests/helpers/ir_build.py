"""OpenVINO IR written by hand: an .xml and a .bin, of either version, any opset. No framework is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

TYPES = {"float32": "f32", "float16": "f16", "float64": "f64", "int64": "i64", "int32": "i32", "uint8": "u8",
         "int8": "i8", "bool": "boolean"}  # fmt: skip

Value = tuple[int, int]
"""A layer's id, and the id of its output port."""


@dataclass
class Ir:
    """An IR that grows layer by layer. half: weights are stored as float16, with a Convert behind them."""

    version: int = 11
    half: bool = False
    layers: list[str] = field(default_factory=list)
    edges: list[str] = field(default_factory=list)
    blob: bytearray = field(default_factory=bytearray)

    def layer(
        self,
        kind: str,
        inputs: Sequence[Value] = (),
        *,
        opset: int = 1,
        name: str = "",
        names: Sequence[str | None] = (None,),
        dims: Sequence[Sequence[int] | None] = (),
        precision: str = "FP32",
        marks: Sequence[str] = (),
        **attributes: Any,
    ) -> Value:
        """One layer with as many outputs as `names` has; gives its first.

        names: of the outputs' values. dims: what the output ports say. attributes: a _ in a name is a -.
        """
        number = len(self.layers)
        said = "".join(
            f" {key.replace('__', '-')}={quoteattr(text(value))}" for key, value in attributes.items()
        )
        lines = [f'<layer id="{number}" name={quoteattr(name or f"layer{number}")} type="{kind}" '
                 f'version="opset{opset}">']  # fmt: skip
        lines += [f"<data{said}/>"] if attributes else []
        if marks:
            rows = "".join(f'<attribute name="{mark}" version="0"/>' for mark in marks)
            lines.append(f"<rt_info>{rows}</rt_info>")
        if inputs:
            ports = "".join(f'<port id="{i}" precision="FP32"/>' for i in range(len(inputs)))
            lines.append(f"<input>{ports}</input>")
        for i, source in enumerate(inputs):
            ends = f'from-layer="{source[0]}" from-port="{source[1]}" to-layer="{number}" to-port="{i}"'
            self.edges.append(f"<edge {ends}/>")
        ports = ""
        for k, own in enumerate(names):
            called = "" if own is None else f" names={quoteattr(own)}"
            sizes = "".join(f"<dim>{n}</dim>" for n in (dims[k] if k < len(dims) else None) or ())
            kind_ = precision if k == 0 or kind not in ("MaxPool",) else "I64"
            ports += f'<port id="{len(inputs) + k}" precision="{kind_}"{called}>{sizes}</port>'
        lines += [f"<output>{ports}</output>"] if ports else []
        self.layers.append("\n".join([*lines, "</layer>"]))
        return number, len(inputs)

    def parameter(self, shape: Sequence[object], name: str = "x", kind: str = "f32") -> Value:
        """An input. shape: numbers, or "?"."""
        dims = [-1 if n == "?" else int(str(n)) for n in shape]
        said = ",".join(map(str, shape))
        return self.layer("Parameter", name=name, names=[name], dims=[dims], shape=said, element_type=kind)

    def const(self, array: Any, name: str = "") -> Value:
        """A constant, as it is stored."""
        array = np.asarray(array)
        offset, data = len(self.blob), np.ascontiguousarray(array).tobytes()
        self.blob += data
        return self.layer(
            "Const", name=name, dims=[array.shape], element_type=TYPES[str(array.dtype)],
            shape=", ".join(map(str, array.shape)), offset=offset, size=len(data),
        )  # fmt: skip

    def weight(self, array: Any, name: str = "") -> Value:
        """A float32 constant; in a file of halves its float16, widened again."""
        array = np.asarray(array, np.float32)
        if not self.half:
            return self.const(array, name)
        stored = self.const(array.astype(np.float16), f"{name}_compressed" if name else "")
        return self.layer("Convert", [stored], name=name, dims=[array.shape], marks=["decompression"],
                          destination_type="f32")  # fmt: skip

    def whole(self, *numbers: int) -> Value:
        """A list of whole numbers."""
        return self.const(np.array(numbers, np.int64))

    def result(self, value: Value) -> None:
        """An output."""
        self.layer("Result", [value], names=(), name=f"result{len(self.layers)}")

    @property
    def xml(self) -> str:
        """The .xml's text."""
        layers, edges = "\n".join(self.layers), "\n".join(self.edges)
        return (
            f'<?xml version="1.0"?>\n<net name="n" version="{self.version}">\n<layers>\n{layers}\n</layers>\n'
            f"<edges>\n{edges}\n</edges>\n</net>\n"
        )

    def save(self, folder: Path, name: str = "net") -> Path:
        """Write both files; gives the .xml."""
        path = folder / f"{name}.xml"
        path.write_text(self.xml)
        path.with_suffix(".bin").write_bytes(bytes(self.blob))
        return path


def text(value: Any) -> str:
    """An attribute as a file has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
