"""Structural parameter names (Gluon's `conv1.0.weight`) -> the names that a symbol's variables have.

Gluon's `save_parameters` names an array after its place in the tree of blocks, in the order in which
the blocks were registered; the symbol names the same variable after its block's prefix, in the order in
which the network uses it. The two orders differ (high before low, low before high), so neither order nor
shape alone tells which is which.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from refnet.core.errors import WeightsError
from refnet.core.graph import Graph
from refnet.core.op import F32

Shape = tuple[int, ...]
ROLES = ("weight", "bias", "gamma", "beta", "running_mean", "running_var")


def is_structural(names: Collection[str], graph: Graph) -> bool:
    """True if none of the names is a weight of the graph and each ends like Gluon's: `.weight`, `.gamma`, ...

    >>> from refnet.core.graph import Graph
    >>> is_structural(["conv1.0.weight"], Graph("g", {}, (), {}))
    True
    """
    wanted = set(graph.weight_types)
    return bool(names) and all(n not in wanted and n.rpartition(".")[2] in ROLES for n in names)


def rename_structural(
    arrays: Mapping[str, F32], graph: Graph, structure: Mapping[str, Any] | None = None
) -> dict[str, F32]:
    """The arrays under the graph's weight names.

    arrays: structural name -> array. structure: {structural name: {"name": ..., "shape": [...]}}, the parsed
    *-structure.json that may come with a symbol file; without it the names are derived (`structural_names`).
    Raises WeightsError where the two do not fit, or where the derivation is not certain.

    >>> rename_structural({}, Graph("g", {}, (), {}))
    {}
    """
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    mapping = structural_names(shapes, graph) if structure is None else _given(structure, shapes, graph)
    return {mapping[name]: array for name, array in arrays.items()}


def _given(structure: Mapping[str, Any], shapes: Mapping[str, Shape], graph: Graph) -> dict[str, str]:
    """The mapping of a structure file, checked against the arrays and the graph."""
    mapping: dict[str, str] = {}
    taken: set[str] = set()
    for name, entry in structure.items():
        new = entry.get("name") if isinstance(entry, Mapping) else None
        if not isinstance(new, str):
            raise WeightsError(f"{graph.name}: the structure's {name!r} has no 'name'")
        if new in taken:
            raise WeightsError(f"{graph.name}: the structure gives the name {new!r} twice")
        mapping[name] = new
        taken.add(new)
    if missing := [name for name in shapes if name not in mapping]:
        raise WeightsError(
            f"{graph.name}: {len(missing)} arrays are not in the structure, first {missing[0]!r}"
        )
    roles = _roles(graph)
    for name, shape in shapes.items():
        _agree(name, shape, mapping[name], roles, graph)
    return {name: mapping[name] for name in shapes}


def structural_names(shapes: Mapping[str, Shape], graph: Graph) -> dict[str, str]:
    """{structural name: the graph's weight name}, derived from names, roles, shapes and order.

    shapes: structural name -> shape, in the file's order.

    1. Only pairs of one role (weight, bias, gamma, beta, running mean, running variance) and one shape.
    2. By words: the words of the symbol's name, without the prefix that all its names share, appear in
       this order in the structural name (`L1_B1_conv2-h2l_weight` in `L1_B1.conv2.conv_h2l.weight`).
       The name with most words wins; a tie, or two arrays with one winner, is refused.
    3. What is left (blocks inside of a Sequential, whose structural name is a number; renamed ones):
       the k-th array to the k-th weight, in the two files' orders, where role and shape agree pair by pair.

    The derived names equal those of both published structure files (tests/formats/test_mxnet.py).
    Raises WeightsError, with the first array that finds no partner, if any of it fails.

    >>> structural_names({"a.weight": (2, 2)}, Graph("g", {}, (), {}))
    Traceback (most recent call last):
    refnet.core.errors.WeightsError: g: 1 arrays with structural names, but the graph has 0 weights
    """
    roles = _roles(graph)
    if len(shapes) != len(roles):
        raise WeightsError(
            f"{graph.name}: {len(shapes)} arrays with structural names, "
            f"but the graph has {len(roles)} weights"
        )
    groups: dict[tuple[str, Shape], list[str]] = defaultdict(list)
    for weight, key in roles.items():
        groups[key].append(weight)
    words = _words_without_prefix(list(roles))
    mapping: dict[str, str] = {}
    for name, shape in shapes.items():
        best = _by_words(name, groups.get((name.rpartition(".")[2], shape), []), words)
        if len(best) > 1:
            raise WeightsError(f"{graph.name}: {name!r} may be {best[0]!r} or {best[1]!r}: {_ADVICE}")
        if best:
            mapping[name] = best[0]
    taken = set(mapping.values())
    if len(taken) < len(mapping):
        weight = next(w for w in mapping.values() if list(mapping.values()).count(w) > 1)
        rivals = [name for name in mapping if mapping[name] == weight]
        raise WeightsError(f"{graph.name}: {rivals[0]!r} and {rivals[1]!r} may both be {weight!r}: {_ADVICE}")
    rest = [weight for weight in roles if weight not in taken]
    for name, weight in zip([n for n in shapes if n not in mapping], rest, strict=True):
        _agree(name, shapes[name], weight, roles, graph)
        mapping[name] = weight
    return {name: mapping[name] for name in shapes}


_ADVICE = "give the structure file that belongs to the symbol"


def _roles(graph: Graph) -> dict[str, tuple[str, Shape]]:
    """Weight name -> (Gluon's word for its role, shape), in order of first use."""
    gluon = {"mean": "running_mean", "var": "running_var"}
    found: dict[str, tuple[str, Shape]] = {}
    for node in graph.nodes:
        for weight, role in zip(node.weights, node.op.weight_roles(), strict=True):
            found.setdefault(weight, (gluon.get(role, role), graph.weight_types[weight].shape))
    return found


def _agree(
    name: str, shape: Shape, weight: str, roles: Mapping[str, tuple[str, Shape]], graph: Graph
) -> None:
    found = (name.rpartition(".")[2], shape)
    if weight not in roles:
        raise WeightsError(f"{graph.name}: {name!r} is named {weight!r}, which is no weight of the graph")
    if found != roles[weight]:
        is_, needs = f"{found[0]} {list(shape)}", f"{roles[weight][0]} {list(roles[weight][1])}"
        raise WeightsError(f"{graph.name}: {name!r} is {is_}, but {weight!r} must be {needs}: {_ADVICE}")


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^0-9a-zA-Z]+", name.lower()) if word]


def _words_without_prefix(weights: list[str]) -> dict[str, list[str]]:
    """The words of each weight's name, without the leading ones that all have in common."""
    split = {weight: _words(weight) for weight in weights}
    shared = 0
    while len(split) > 1 and len({tuple(w[: shared + 1]) for w in split.values()}) == 1:
        shared += 1
    return {weight: found[shared:] for weight, found in split.items()}


def _by_words(name: str, weights: list[str], words: Mapping[str, list[str]]) -> list[str]:
    """The weights whose words all appear in the name, in order: those with most words."""
    inside = []
    for weight in weights:
        remaining = iter(_words(name))
        if all(word in remaining for word in words[weight]):
            inside.append(weight)
    most = max((len(words[weight]) for weight in inside), default=0)
    return [weight for weight in inside if len(words[weight]) == most]
