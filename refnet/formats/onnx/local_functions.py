"""The functions that an .onnx file defines for itself, put in the place of their calls.

onnx's own inliner does it. What a call makes keeps its name, and values inside a function get unique names
of the inliner's. Before, the calls are counted: a function that calls itself is refused, and so is a file
whose calls, written out, are more nodes than `MOST_NODES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from refnet.core.errors import FormatError, UnsupportedError

MOST_NODES = 1 << 20
"""Nodes that a file may have after its functions are written out."""

MOST_DEPTH = 100
"""Calls inside calls."""

Key = tuple[str, str, str]


def inlined(proto: Any, file: str) -> Any:
    """The model without functions of its own.

    Raises UnsupportedError for functions that call themselves, or that need another opset than the model's,
    FormatError for two of a name and for more nodes than `MOST_NODES`.
    """
    if not proto.functions:
        return proto
    bodies: dict[Key, Any] = {}
    for function in proto.functions:
        key = (function.domain, function.name, function.overload)
        if key in bodies:
            raise FormatError(file, None, f"two functions {_shown(key)}", "one of a name")
        bodies[key] = function
        _check_opsets(proto, function, file)
    sizes: dict[Key, int] = {}
    depths: dict[Key, int] = {}
    for key in bodies:
        _measure(key, bodies, sizes, depths, file)
    if (deepest := max(depths.values())) > MOST_DEPTH:
        raise FormatError(file, None, f"functions {deepest} deep in each other", f"at most {MOST_DEPTH}")
    total = sum(sizes.get(_key(node), 1) for node in _nodes(proto.graph.node))
    if total > MOST_NODES:
        raise FormatError(file, None, f"functions that make {total} nodes", f"at most {MOST_NODES}")
    import onnx.inliner  # no other file than .onnx needs it

    try:
        return onnx.inliner.inline_local_functions(proto)
    except Exception as error:  # of C++, without a class of its own
        raise FormatError(file, None, f"functions that onnx refuses ({str(error)[:200]})") from None


def _check_opsets(proto: Any, function: Any, file: str) -> None:
    """Refuse a function of another opset: its nodes would mean something else in the model."""
    said = {one.domain or "ai.onnx": one.version for one in proto.opset_import}
    for one in function.opset_import:
        domain = one.domain or "ai.onnx"
        if said.get(domain, one.version) != one.version:
            raise UnsupportedError(
                f"{file}: function {_shown((function.domain, function.name, function.overload))} is of opset "
                f"{one.version} of {domain[:60]}, the model of {said[domain]}; "
                "onnx.inliner.inline_local_functions(model, convert_version=True) makes one of both"
            )


def _measure(
    key: Key, bodies: Mapping[Key, Any], sizes: dict[Key, int], depths: dict[Key, int], file: str
) -> None:
    """Note how many nodes a function makes, and how deep its calls are; without recursion of our own."""
    if key in sizes:
        return
    stack, open_ = [(key, _calls(bodies[key], bodies))], {key: None}
    while stack:
        current, calls = stack[-1]
        called = next((one for one in calls if one not in sizes), None)
        if called is None:
            sizes[current] = sum(sizes.get(_key(node), 1) for node in _nodes(bodies[current].node))
            depths[current] = 1 + max((depths[one] for one in _calls(bodies[current], bodies)), default=0)
            del open_[current]
            stack.pop()
        elif called in open_:
            circle = " -> ".join(_shown(one) for one in [*open_][[*open_].index(called) :][:8])
            raise UnsupportedError(f"{file}: functions that call themselves: {circle} -> {_shown(called)}")
        else:
            open_[called] = None
            stack.append((called, _calls(bodies[called], bodies)))


def _calls(function: Any, bodies: Mapping[Key, Any]) -> Iterator[Key]:
    return (key for node in _nodes(function.node) if (key := _key(node)) in bodies)


def _nodes(nodes: Any) -> Iterator[Any]:
    """The nodes, and those of their branches and loops."""
    waiting = [nodes]
    while waiting:
        for node in waiting.pop():
            yield node
            for attribute in node.attribute:
                waiting += [graph.node for graph in (attribute.g, *attribute.graphs) if graph.node]


def _key(node: Any) -> Key:
    return (node.domain, node.op_type, node.overload)


def _shown(key: Key) -> str:
    domain, name, overload = (part[:60] for part in key)
    return f"{domain}::{name}" + (f":{overload}" if overload else "")
