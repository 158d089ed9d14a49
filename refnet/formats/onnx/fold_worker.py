"""Computes nodes of constants and infers shapes with onnx, in a process of its own with limits.

    python fold_worker.py BYTES SECONDS: reads requests from standard input and answers on standard output.
    A message: 4 bytes (length, little endian), JSON, then the arrays that it names, as .npy, without pickles.

The limits are the operating system's: of address space beyond what the imports need, and of processor time.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import warnings
from typing import IO, Any

import numpy as np


def read(stream: IO[bytes]) -> tuple[Any, list[Any]] | None:
    """A message and its arrays; None at the end of the stream."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    message = json.loads(stream.read(int.from_bytes(head, "little")))
    arrays = []
    for length, name in zip(message["lengths"], message["names"], strict=True):
        array = np.load(io.BytesIO(stream.read(length)), allow_pickle=False)
        arrays.append(array.view(bfloat16()) if name == "bfloat16" else array)
    return message, arrays


def bfloat16() -> Any:
    """NumPy's type of these numbers, of which .npy holds the bits."""
    import ml_dtypes

    return ml_dtypes.bfloat16


def write(stream: IO[bytes], message: dict[str, Any], arrays: list[Any]) -> None:
    """Write a message and its arrays."""
    parts = []
    for array in arrays:
        part = io.BytesIO()
        np.save(part, array.view(np.uint16) if array.dtype.name == "bfloat16" else array, allow_pickle=False)
        parts.append(part.getvalue())
    names = [array.dtype.name for array in arrays]
    head = json.dumps(message | {"lengths": [len(part) for part in parts], "names": names}).encode()
    stream.write(len(head).to_bytes(4, "little") + head)
    for data in parts:
        stream.write(data)
    stream.flush()


def evaluated(node: str, opset: int, arrays: list[Any]) -> list[Any]:
    """The outputs of a node, of which `node` is the message in hexadecimal digits."""
    import onnx.helper
    from onnx.reference import ReferenceEvaluator

    proto = onnx.NodeProto.FromString(bytes.fromhex(node))
    names = [name for name in dict.fromkeys(proto.input) if name]
    value = onnx.helper.make_tensor_value_info
    kinds = [onnx.helper.np_dtype_to_tensor_dtype(array.dtype) for array in arrays]
    graph = onnx.helper.make_graph(
        [proto],
        "fold",
        [value(name, kind, None) for name, kind in zip(names, kinds, strict=True)],
        [onnx.ValueInfoProto(name=name) for name in proto.output if name],
    )
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        evaluator = ReferenceEvaluator(graph, opsets={"": opset})
        found = evaluator.run(None, dict(zip(names, arrays, strict=True)))
    return [np.asarray(one) for one in found]


def inferred(node: str, opset: int, kinds: dict[str, str], shown: dict[str, Any]) -> dict[str, str]:
    """What onnx's shape inference says of a node's outputs: name -> its type, as hexadecimal digits.

    kinds: the same of its inputs. shown: those that are constants. {} where the operands do not fit, or onnx
    has no such operator. A node may end this process: some attributes are taken unchecked in C++.
    """
    import onnx.helper
    import onnx.numpy_helper
    import onnx.shape_inference

    proto = onnx.NodeProto.FromString(bytes.fromhex(node))
    given = {name: onnx.TypeProto.FromString(bytes.fromhex(kind)) for name, kind in kinds.items()}
    tensors = {name: onnx.numpy_helper.from_array(array, name) for name, array in shown.items()}
    imports = [onnx.helper.make_opsetid("", opset)]
    try:
        schema = onnx.defs.get_schema(proto.op_type, opset, "")
        found = onnx.shape_inference.infer_node_outputs(
            schema, proto, given, tensors, opset_imports=imports, ir_version=10
        )
    except Exception:  # of C++, without a class of its own
        return {}
    return {name: kind.SerializeToString().hex() for name, kind in found.items()}


def limit(more: int, seconds: int) -> None:
    """Limit this process, where the operating system can."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))


def main() -> None:
    """Serve until standard input ends."""
    import onnx.reference  # noqa: F401  before the limit

    out = sys.stdout.buffer
    sys.stdout = sys.stderr
    limit(int(sys.argv[1]), int(sys.argv[2]))
    while (request := read(sys.stdin.buffer)) is not None:
        message, arrays = request
        if "kinds" in message:
            shown = dict(zip(message["shown"], arrays, strict=True))
            answer = inferred(message["node"], message["opset"], message["kinds"], shown)
            write(out, {"inferred": answer}, [])
            continue
        try:
            found = evaluated(message["node"], message["opset"], arrays)
            if any(one.dtype.kind not in "biuf" and one.dtype.name != "bfloat16" for one in found):
                write(out, {"kind": "unsupported", "error": "it makes no number"}, [])
            else:
                write(out, {}, found)
        except MemoryError:
            write(out, {"kind": "unsupported", "error": "it needs more memory than its limit"}, [])
        except Exception as error:
            lacks = isinstance(error, NotImplementedError) or "No implementation for" in str(error)
            write(out, {"kind": "unsupported" if lacks else "wrong", "error": f"{error}"[:200]}, [])


if __name__ == "__main__":
    main()
