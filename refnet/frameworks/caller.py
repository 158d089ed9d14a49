"""One op of a network, executed by a framework as it executes the network: many calls per request.

    caller(framework, worker, op, types, threads) -> Caller
        caller(fixed, each, take) -> (calls, ...)

MXNet, ONNX Runtime and OpenVINO get a graph of one node, written by refnet's own exporters; PyTorch gets a
call of its functional interface (torch_ops.py). Only what the op means is said, not how to add.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refnet.core.errors import UnsupportedError
from refnet.core.graph import Graph, Node
from refnet.core.op import F32, Op, Reduction, TensorType
from refnet.frameworks.capture.names import LIVE
from refnet.frameworks.process import Serves
from refnet.frameworks.torch_ops import torch_function

BYTES = 1 << 26
"""Of the arrays of one request."""


@dataclass(frozen=True)
class Caller:
    """What executes an op. names: of its inputs, in order (see `input_names`)."""

    names: tuple[str, ...]
    request: Callable[[Mapping[str, F32], Mapping[str, F32], Sequence[int | None]], F32]

    def __call__(
        self, fixed: Mapping[str, F32], each: Mapping[str, F32], take: Sequence[int | None] = ()
    ) -> F32:
        """The results (calls, ...), cut by `take`: an index, or None for all, per axis of the op's result.

        fixed: arrays that are the same in all calls. each: arrays with a first axis that counts the calls.
        """
        calls = len(next(iter(each.values())))
        per = max(1, BYTES // max(1, sum(a.nbytes // calls for a in each.values())))
        parts = [
            self.request(fixed, {name: a[i : i + per] for name, a in each.items()}, take)
            for i in range(0, calls, per)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def wholes(self, many: Sequence[Sequence[F32]]) -> list[F32]:
        """The framework's value for each of these lists of inputs, in the order of `names`."""
        return list(
            self({}, {n: np.stack(a) for n, a in zip(self.names, zip(*many, strict=True), strict=True)})
        )

    def whole(self, inputs: Sequence[F32]) -> F32:
        """The framework's value for these inputs, in the order of `names`."""
        return self.wholes([inputs])[0]


def input_names(op: Op, count: int) -> tuple[str, ...]:
    """`x`, or `x0`, `x1` ... where there are several, then the op's weights by their roles.

    >>> from refnet.ops import Add, Conv
    >>> input_names(Add(), 2), input_names(Conv(8, (3, 3)), 2)
    (('x0', 'x1'), ('x', 'weight'))
    """
    data = count - len(op.weight_roles())
    return (*(["x"] if data == 1 else [f"x{i}" for i in range(data)]), *op.weight_roles())


def caller(
    framework: str,
    worker: Serves,
    op: Op,
    types: Sequence[TensorType],
    threads: int,
    opset: int | None = None,
    precision: str | None = None,
    behind: bool = False,
) -> Caller:
    """What executes this op on inputs of these types. framework: one of LIVE (capture/names.py).

    opset: ONNX Runtime's, for what differs between versions of an operator; None: that of refnet's exporter.
    precision: OpenVINO's; None: its first. behind: the op reads what a convolution wrote (`layouts`).
    Raises UnsupportedError where the framework has no such op.
    """
    names = input_names(op, len(types))
    if framework == "torch":
        function, arguments = torch_function(op, *types)
        request: dict[str, Any] = {"function": function, "arguments": arguments}
        more: dict[str, Any] = {}
    else:
        graph = _one_node(op, types, names)
        request, more = _written(framework, graph, opset)
    request["threads"] = threads
    if opset is not None:
        request["opset"] = opset
    if precision is not None:
        request["precision"] = precision
    if behind:
        request["behind"] = True
    return _asking(worker, request, names, more)


def node_caller(
    worker: Serves, name: str, inputs: Sequence[str], op: Op, types: Sequence[TensorType], threads: int
) -> Caller:
    """What executes one node of the module that a worker of torch has exported. inputs: their names there."""
    node = [name, list(inputs), [list(kind.shape) for kind in types]]
    return _asking(worker, {"node": node, "threads": threads}, input_names(op, len(types)), {})


def _asking(
    worker: Serves, request: Mapping[str, Any], names: tuple[str, ...], more: Mapping[str, Any]
) -> Caller:
    """A Caller by the worker's command probe. more: arrays that the request holds beside the inputs."""

    def ask(fixed: Mapping[str, F32], each: Mapping[str, F32], take: Sequence[int | None]) -> F32:
        order = {name: each.get(name, fixed.get(name)) for name in names}
        arrays = {name: array for name, array in order.items() if array is not None}
        cut = {**request, "each": list(each), "take": list(take)}
        found: F32 = worker.ask("probe", cut, {**arrays, **more}).array("y")
        return found

    return Caller(names, ask)


def layouts(framework: str, op: Op, types: Sequence[TensorType]) -> tuple[bool, ...]:
    """The ways to ask for an op: alone (False), and behind a convolution (True).

    OpenVINO's convolutions leave their results with the channels last, and its averages add in the order of
    the memory. Its other sums bring their inputs into a layout of their own.

    >>> from refnet.ops import GlobalAvgPool
    >>> layouts("openvino", GlobalAvgPool(), [TensorType((1, 8, 7, 7))])
    (False, True)
    """
    pool = isinstance(op, Reduction) and op.averages and len(types[0].shape) == 4
    return (False, True) if pool and framework == "openvino" else (False,)


def _one_node(op: Op, types: Sequence[TensorType], names: Sequence[str]) -> Graph:
    count = len(types) - len(op.weight_roles())
    data = dict(zip(names[:count], types[:count], strict=True))
    held = zip(names[count:], types[count:], strict=True)
    weights = {name: np.zeros(kind.shape, np.float32) for name, kind in held}
    return Graph("probe", data, (Node("y", op, tuple(names)),), {"y": "y"}, weights)


def _written(framework: str, graph: Graph, opset: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The request's fields and arrays that hold the graph."""
    if framework == "mxnet":
        from refnet.formats.mxnet.reader import graph_to_symbol

        return {"symbol": graph_to_symbol(graph)}, {}
    if framework in ("onnxruntime", "openvino"):
        from refnet.formats.onnx.export import graph_to_onnx
        from refnet.formats.onnx.functions import as_one_node

        model = graph_to_onnx(graph)
        if framework == "onnxruntime" and opset is not None:
            as_one_node(model, graph.nodes[0].op, opset)
        return {}, {"model": np.frombuffer(model.SerializeToString(), np.uint8)}
    raise UnsupportedError(f"framework must be one of {', '.join(LIVE)}, got {framework!r}")
