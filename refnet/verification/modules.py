"""The values of a module: those whose names begin with the module's own, as frameworks name them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node
from refnet.core.words import counted, did_you_mean

SEPARATORS = "./_-"
"""What stands between a module's name and the rest: PyTorch and TensorFlow, ONNX exports, MXNet."""


def members(graph: Graph, name: str) -> tuple[Node, ...]:
    """The nodes of a module, in order of execution; () if no name begins with the module's.

    Where a node has that name, conv2d_1 is another node with a running number, and no part of conv2d.

    >>> import refnet
    >>> graph = refnet.load("octave-se-resnet-digits")
    >>> [node.name for node in members(graph, "L2_B01_se_fc1")]
    ['L2_B01_se_fc1-h2h', 'L2_B01_se_fc1-l2h', 'L2_B01_se_fc1-h']
    >>> members(graph, "L2_B0")
    ()
    """
    starts = tuple(name + one for one in SEPARATORS)
    found = (node for node in graph.nodes if node.name == name or node.name.startswith(starts))
    numbered = re.compile(re.escape(name) + r"_\d+") if name in graph.by_name else None
    return tuple(node for node in found if numbered is None or not numbered.fullmatch(node.name))


def module_names(names: Iterable[str]) -> list[str]:
    """Every module that values lie in, outer ones too, in order of first use.

    >>> module_names(["layer1.0.conv1", "layer1.0.bn1", "fc"])
    ['layer1', 'layer1.0']
    """
    found: dict[str, None] = {}
    for name in names:
        for i, letter in enumerate(name[:200]):
            if letter in SEPARATORS and i:
                found[name[:i]] = None
    return list(found)


def named_node(graph: Graph, name: str) -> Node:
    """The node of a value. InputError if there is none: it names close ones, or what a module holds."""
    node = graph.by_name.get(name)
    if node is not None:
        return node
    if inside := members(graph, name):
        holds = f"{counted(len(inside), 'value')}: {inside[0].name} to {inside[-1].name}"
        raise InputError(f"{graph.name} has no value {name!r}, but a module of that name with {holds}")
    raise unknown(graph, name)


def unknown(graph: Graph, name: str) -> InputError:
    """The error that there is neither a value nor a module of that name."""
    names = dict.fromkeys([*graph.by_name, *module_names(graph.by_name)])
    return InputError(
        f"{graph.name} has no value {name!r}{did_you_mean(name, names, f' among its {len(graph.by_name)}')}"
    )
