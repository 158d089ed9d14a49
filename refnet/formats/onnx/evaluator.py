"""The process in which constants of a file are computed: started when first needed, ended with the reading.

    Evaluator.run ─────── fold_worker.py ── onnx.reference          limits of bytes and seconds,
    Evaluator.inferred ── fold_worker.py ── onnx's shape inference  of the process and here

REFNET_FOLD_BYTES and REFNET_FOLD_SECONDS raise or lower the limits. What nobody holds any more does not count
(`Evaluator.held`).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from refnet.core.errors import InputError
from refnet.formats.onnx.file import OnnxNode

Array = npt.NDArray[Any]

BYTES = 1 << 30
"""Of all values that are computed of a file's constants and are still needed; nine networks with random
weights have up to 575 MB."""
TOTAL = 4
"""Times that limit: of all that is computed, still needed or not. It ends what computes forever."""
LEAST_OPSET = {"DequantizeLinear": 19}
"""The oldest versions that onnx's reference evaluator has, where they mean the same as those before."""
SECONDS = 60
"""That this may take."""
BFLOAT16 = "bfloat16"
"""A type that .npy does not know: its bits are sent."""
WORKSPACE = 1 << 28
"""Bytes of address space that the process may take beyond four times the limit: libraries loaded later."""
UNANSWERED = (OSError, ValueError, EOFError, KeyError, TypeError)
"""What is raised where the process ended, or its answer is none."""
HEADER = 4096
"""Bytes of an answer beyond its arrays, and of an array's header."""


def limits() -> tuple[int, int]:
    """(bytes, seconds): REFNET_FOLD_BYTES and REFNET_FOLD_SECONDS, else BYTES and SECONDS.

    Raises InputError for what is no whole number from 1 on.
    """
    found = []
    for name, usual in (("REFNET_FOLD_BYTES", BYTES), ("REFNET_FOLD_SECONDS", SECONDS)):
        text = os.environ.get(name, str(usual))
        if not (text.isdecimal() and text.isascii() and len(text) < 16 and int(text)):
            raise InputError(f"{name} must be a whole number from 1 on, got {text[:60]!r}")
        found.append(int(text))
    return found[0], found[1]


class Evaluator:
    """onnx's evaluator and shape inference in a process of their own. bytes, seconds: its limits."""

    def __init__(self) -> None:
        self.bytes, self.seconds = limits()
        self.left, self.work = self.bytes, TOTAL * self.bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def take(self, node: OnnxNode, count: int, width: int) -> None:
        """Count a value of so many elements against the limits. Raises FormatError where one is exceeded."""
        size, most = count * width, TOTAL * self.bytes
        for left, whole in ((self.left, self.bytes), (self.work, most)):
            if not 0 <= size <= left:
                room = f"at most {left} bytes more of {whole} (REFNET_FOLD_BYTES gives another limit)"
                raise node.wrong(f"a constant of {count} elements, {size} bytes", room)
        self.left -= size
        self.work -= size

    def held(self, taken: int, arrays: Sequence[Array]) -> None:
        """Of so many bytes taken for these arrays, count theirs, and only until they are released."""
        for array in arrays:
            owner, size = array, array.nbytes
            while isinstance(owner.base, np.ndarray):  # what others hold may be a view of it
                owner = owner.base
            weakref.finalize(owner, self._released, size).atexit = False
            taken -= size
        self.left += taken
        self.work += taken

    def _released(self, size: int) -> None:
        self.left += size

    def run(self, node: OnnxNode, inputs: Sequence[Array | None], most: int) -> list[Array]:
        """The outputs of a node, at most so many bytes together.

        Raises FormatError for operands that the evaluator refuses, UnsupportedError where it ends or hangs.
        """
        proto = type(node.proto)()
        proto.CopyFrom(node.proto)
        del proto.input[:], proto.output[:]
        proto.input.extend("" if x is None else f"i{k}" for k, x in enumerate(inputs))
        proto.output.extend(f"o{k}" if name else "" for k, name in enumerate(node.outputs))
        arrays = [x for x in inputs if x is not None]
        opset = max(node.opset, LEAST_OPSET.get(node.op, 1))
        try:
            message, found = self._asked(
                {"node": proto.SerializeToString().hex(), "opset": opset}, arrays, most
            )
            if BFLOAT16 in message["names"]:
                import ml_dtypes  # onnx needs it, too

                found = [
                    one.view(ml_dtypes.bfloat16) if name == BFLOAT16 else one
                    for one, name in zip(found, message["names"], strict=True)
                ]
        except UNANSWERED:
            self._end()
            why = f"its constants need more than {self.bytes} bytes or {self.seconds} s"
            raise node.unsupported(f"{why} (REFNET_FOLD_BYTES, REFNET_FOLD_SECONDS)") from None
        if message.get("kind") == "unsupported":
            raise node.unsupported(f"of constants only, which onnx does not compute ({message['error']})")
        if "error" in message:
            raise node.wrong(f"constants that onnx cannot compute ({str(message['error'])[:200]})")
        made = iter(found)
        return [next(made) if name else np.zeros(0) for name in node.outputs]

    def inferred(
        self, node: OnnxNode, kinds: Mapping[str, bytes], shown: Mapping[str, Array]
    ) -> dict[str, bytes]:
        """What onnx's shape inference says of a node's outputs: name -> ONNX's type; {} where it refuses.

        kinds: the same of the inputs. shown: those of them that are constants and small. Raises
        UnsupportedError where the inference ends its process, or hangs.
        """
        message = {"node": node.proto.SerializeToString().hex(), "opset": node.opset, "shown": [*shown]}
        message["kinds"] = {name: kind.hex() for name, kind in kinds.items()}
        try:
            answer, _ = self._asked(message, [*shown.values()], 0)
            return {name: bytes.fromhex(kind) for name, kind in answer["inferred"].items()}
        except (*UNANSWERED, AttributeError):
            self._end()
            why = f"onnx's shape inference of it ends its process, or needs more than {self.seconds} s"
            raise node.unsupported(why) from None

    def _asked(
        self, message: dict[str, Any], arrays: Sequence[Array], most: int
    ) -> tuple[dict[str, Any], list[Array]]:
        """The process's answer. Raises UNANSWERED where there is none."""
        process = self._started()
        assert process.stdin
        assert process.stdout
        _write(process.stdin, message, arrays)
        return _read(process.stdout, most)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            file = Path(__file__).with_name("fold_worker.py")
            command = [sys.executable, "-P", str(file), str(WORKSPACE + 4 * self.bytes), str(self.seconds)]
            keep = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=keep | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            )
            self._timer = threading.Timer(self.seconds, self._process.kill)
            self._timer.daemon = True
            self._timer.start()
        return self._process

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    if pipe:
                        pipe.close()
            self._process.wait()
        self._process = self._timer = None


def _write(stream: IO[bytes], message: dict[str, Any], arrays: Sequence[Array]) -> None:
    parts = []
    for array in arrays:
        part = io.BytesIO()
        plain = array.view(f"u{array.dtype.itemsize}") if array.dtype.name == BFLOAT16 else array
        np.save(part, plain, allow_pickle=False)
        parts.append(part.getvalue())
    names = [array.dtype.name for array in arrays]
    head = json.dumps(message | {"lengths": [len(part) for part in parts], "names": names}).encode()
    stream.write(len(head).to_bytes(4, "little") + head)
    for data in parts:
        stream.write(data)
    stream.flush()


def _read(stream: IO[bytes], most: int) -> tuple[dict[str, Any], list[Array]]:
    """An answer. Raises EOFError where it ends, ValueError for one of another form or of too many bytes."""
    length = int.from_bytes(_exactly(stream, 4), "little")
    if length > HEADER * 64:
        raise ValueError(length)
    message = json.loads(_exactly(stream, length))
    lengths = message["lengths"]
    if any(not isinstance(n, int) or n < 0 for n in lengths) or sum(lengths) > most + HEADER * len(lengths):
        raise ValueError(lengths)
    found = [np.load(io.BytesIO(_exactly(stream, n)), allow_pickle=False) for n in lengths]
    return message, found


def _exactly(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data
