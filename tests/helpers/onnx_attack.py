"""Nodes of operators that ONNX defines by others, with attributes and inputs of any kind, read one by one.

    python -m tests.helpers.onnx_attack SEED COUNT FILE

Prints how many were read and how many refused. Anything else than an error of refnet's ends it.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx.defs
from onnx import AttributeProto, helper, numpy_helper

from refnet.core.errors import RefnetError
from refnet.formats.onnx.bodies import DEFINED
from refnet.formats.onnx.reader import read_onnx
from tests.helpers.onnx_build import one_process

WHOLE = [0, 1, -1, 2, 3, 4, 7, -2, 1 << 30, -(1 << 31), 1 << 62, -(1 << 63)]
REAL = [0.0, -1.0, 1e38, float("nan"), float("inf")]
TEXT = [b"", b"mean", b"sum", b"none", b"nonsense" * 9]


def attribute(name: str, kind: int, pick: random.Random) -> Any:
    """An attribute of this type; None for types that none of these operators has."""
    given = {
        AttributeProto.INT: pick.choice(WHOLE),
        AttributeProto.FLOAT: pick.choice(REAL),
        AttributeProto.INTS: pick.choices(WHOLE, k=pick.randrange(5)),
        AttributeProto.STRING: pick.choice(TEXT),
    }
    return helper.make_attribute(name, given[kind], attr_type=kind) if kind in given else None


def model(op: str, pick: random.Random) -> Any:
    """A model of one node."""
    every = onnx.defs.get_all_schemas_with_history()
    opset = max(pick.choice(sorted({s.since_version for s in every if s.name == op and not s.domain})), 7)
    schema = onnx.defs.get_schema(op, opset, "")
    count = pick.randint(schema.min_input, min(schema.max_input, 7))
    names = ["x", *(pick.choice(["x", f"i{n}", ""]) for n in range(1, count))]
    values, constants = [], []
    for name in dict.fromkeys(filter(None, names)):
        shape = [pick.choice([1, 2, 3, 8]) for _ in range(pick.randrange(1, 6))]
        if name == "x" or pick.random() < 0.5:
            values.append(helper.make_tensor_value_info(name, 1, shape))
        else:
            kind = pick.choice([np.int64, np.int32, np.bool_, np.float32, np.float16])
            size = pick.choice([[], [0], [1], [4], shape])
            constants.append(numpy_helper.from_array(np.full(size, pick.choice([0, 1, 2]), kind), name))
    outputs = ["y", "z"][: pick.randint(1, schema.max_output)]
    node = helper.make_node(op, names, outputs)
    for name, rule in schema.attributes.items():
        made = attribute(name, int(rule.type.value), pick)
        if made is not None and (rule.required or pick.random() < 0.7):
            node.attribute.append(made)
    infos = [helper.make_tensor_value_info(name, 1, None) for name in outputs]
    graph = helper.make_graph([node], "g", values, infos, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def main(seed: int, count: int, file: Path) -> None:
    """Read so many models."""
    pick, read, refused = random.Random(seed), 0, 0
    with one_process():
        for k in range(count):
            file.write_bytes(model(sorted(DEFINED)[k % len(DEFINED)], pick).SerializeToString())
            try:
                read_onnx(file)
                read += 1
            except RefnetError:
                refused += 1
    print(read, refused)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
