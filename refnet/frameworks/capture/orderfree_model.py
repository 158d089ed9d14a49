"""The order-free model on disk: to be run by anything that reads the file, and judged as a capture.

    order_free_graph ── every reduction of a network, each with an input of its own
    write_model ─────── DIR/model.onnx, DIR/inputs/*.npy, DIR/expected/ (a capture)

Only .onnx has models of many inputs that refnet can read back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import refnet
from refnet.arithmetic.types import types_of
from refnet.core.errors import InputError, UnsupportedError
from refnet.core.graph import Graph, Node
from refnet.core.op import F32
from refnet.exact.engine import DecideOrRefine
from refnet.formats.manifest import Origin, file_name
from refnet.formats.npy import writing
from refnet.frameworks.capture.orderfree import reductions, undriven
from refnet.frameworks.capture.writer import CapturePlan, write
from refnet.kernels.engine import Fast
from refnet.models.export import export
from refnet.verification.order_free import arrays


@dataclass(frozen=True)
class OrderFreeModel:
    """What was written. file: the model. values: names of its outputs.

    left_out: reduction -> why it has no exact inputs. undriven: kind of op -> how many values of the network
    may round and are not in the model.
    """

    file: Path
    values: tuple[str, ...]
    left_out: Mapping[str, str]
    undriven: Mapping[str, int]


def order_free_graph(graph: Graph) -> tuple[Graph, dict[str, F32], dict[str, str]]:
    """(the reductions of a graph, each with an input of its own; the inputs; what is left out, and why).

    Weights and inputs are `arrays`: no sum of them rounds in any order. Every node is an output.

    >>> from refnet.models.loading import structure
    >>> made, inputs, left_out = order_free_graph(structure("resnest-digits"))
    >>> len(made.nodes), len(inputs), made.by_name["fc"].inputs, left_out
    (37, 37, ('fc.input', 'fc.weight', 'fc.bias'), {})
    """
    taken = {*graph.by_name, *graph.inputs}
    nodes: list[Node] = []
    inputs: dict[str, F32] = {}
    weights: dict[str, F32] = {}
    left_out: dict[str, str] = {}

    def free(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    for name, (node, types) in reductions(graph).items():
        try:
            x, *rest = arrays(node.op, types, name)
        except UnsupportedError as error:
            left_out[name] = str(error)
            continue
        data = free(f"{name}.input")
        names = [free(f"{name}.{role}") for role in node.op.weight_roles()]
        inputs[data] = x
        weights |= dict(zip(names, rest, strict=True))
        nodes.append(Node(name, node.op, (data, *names)))
    kinds = types_of(inputs)
    outputs = {node.name: node.name for node in nodes}
    made = Graph(f"{graph.name}-order-free", kinds, tuple(nodes), outputs, weights)
    return made, inputs, left_out


def write_model(graph: Graph, folder: str | os.PathLike[str]) -> OrderFreeModel:
    """Write the order-free model of a graph, its inputs and the exact results into a new or empty folder.

    Raises InputError for a folder with something in it, a graph without reductions, and as `export`.
    """
    place = Path(folder)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise InputError(f"{place}: an order-free model needs a new or an empty folder")
    made, inputs, left_out = order_free_graph(graph)
    if not made.nodes:
        raise InputError(f"{graph.name} has no convolution, dense layer or average that could be order-free")
    for path in (place, place / "inputs"):
        path.mkdir(parents=True, exist_ok=True)
    (file,) = export(made, place / "model", "onnx")
    for name, array in inputs.items():
        with writing(place / "inputs" / file_name(name), array.shape) as append:
            append(array)
    exact = DecideOrRefine(Fast(1))
    weights = made.weights
    golden = (
        (node.name, node.op.golden(inputs[node.data[0]], *(weights[w] for w in node.weights), exact=exact))
        for node in made.nodes
    )
    who = Origin("refnet", refnet.__version__, threads=1, mode="golden", flags={"order-free": "0"})
    write(
        place / "expected", CapturePlan(who, {}, lambda: golden, lambda: made.outputs, total=len(made.nodes))
    )
    return OrderFreeModel(file, tuple(made.by_name), left_out, undriven(graph))
