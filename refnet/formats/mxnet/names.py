"""Structural parameter names (Gluon's `conv1.0.weight`) -> the names that a symbol's variables have.

Gluon's `save_parameters` names an array after its place in the tree of blocks, in the order in which
the blocks were registered; the symbol names the same variable after its block's prefix, in the order in
which the network uses it. The two orders differ (high before low, low before high), so neither order nor
shape alone tells which is which. Where names and numbers do not decide, nothing is assumed: the structure
file decides (docs/formats.md says how to write one).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import pairwise
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

    arrays: structural name -> array. structure: {structural name: {"name": ...}}, or the names themselves
    for the objects: the parsed structure file; without it the names are derived (`structural_names`).
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
        new = entry.get("name") if isinstance(entry, Mapping) else entry
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
       The name with most words wins; a tie, or two arrays with one winner, is refused. So is a match by a
       number that the rest contradicts: MXNet counts convolutions from conv0 in the order in which they
       are made, so an attribute conv1 may be the symbol's conv0 (see `_refuse_shifted`).
    3. What is left, if it is the only array of its role and shape, to the only weight.
    4. Of several that are left, those of a block whose prefix is known from 2 and 3 to those with that
       prefix, there again by words or as the only ones.
    5. Others only if both sides are numbered: the names are children of one Sequential
       (`features.3.weight`, `features.7.weight`), which runs them in the order of their numbers, and the
       symbol's names are counted in the order in which the network uses them (conv0 before conv1).
    6. The arrays of one block (weight and bias, a batch norm's four) are the weights of one node.

    The derived names equal those of the published structure files (tests/formats/test_mxnet.py).
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
    if len(set(mapping.values())) < len(mapping):
        weight = next(w for w in mapping.values() if list(mapping.values()).count(w) > 1)
        rivals = [name for name in mapping if mapping[name] == weight]
        raise WeightsError(f"{graph.name}: {rivals[0]!r} and {rivals[1]!r} may both be {weight!r}: {_ADVICE}")
    _refuse_shifted(mapping, groups, graph)
    mapping.update(_rest(shapes, mapping, roles, graph))
    _refuse_torn(mapping, graph)
    return {name: mapping[name] for name in shapes}


def _refuse_shifted(
    mapping: Mapping[str, str], groups: Mapping[tuple[str, Shape], list[str]], graph: Graph
) -> None:
    """Refuse matches by words whose numbers may be counted from elsewhere.

    Weights of one role and shape whose names differ in numbers only must all have been matched by words, in
    the order of their numbers: then no number is shifted (the array with the highest would find no partner).
    """
    array_of = {weight: name for name, weight in mapping.items()}
    place = {name: i for i, name in enumerate(mapping)}
    for weights in groups.values():
        families: dict[str, list[str]] = defaultdict(list)
        for weight in weights:
            families[_masked(weight)].append(weight)
        for family in families.values():
            found = [array_of.get(weight) for weight in sorted(family, key=_numbers)]
            matched = [name for name in found if name is not None]
            if len(family) < 2 or not matched:
                continue
            order = [place[name] for name in matched]
            if len(matched) < len(family) or order != sorted(order):
                shown = " or ".join(map(repr, sorted(family, key=_numbers)[:2]))
                raise WeightsError(
                    f"{graph.name}: {matched[0]!r} may be {shown}, which are counted: {_ADVICE}"
                )


def _rest(
    shapes: Mapping[str, Shape],
    mapping: Mapping[str, str],
    roles: Mapping[str, tuple[str, Shape]],
    graph: Graph,
) -> dict[str, str]:
    """The partners of the arrays that words do not match: the only ones, or those that numbers prove."""
    taken = set(mapping.values())
    names = [name for name in shapes if name not in mapping]
    weights = [weight for weight in roles if weight not in taken]  # in the order of their first use
    left: dict[tuple[str, Shape], tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for name in names:
        left[name.rpartition(".")[2], shapes[name]][0].append(name)
    for weight in weights:
        left[roles[weight]][1].append(weight)
    if any(len(arrays) != len(partners) for arrays, partners in left.values()):
        for name, weight in zip(names, weights, strict=True):  # the first pair that does not fit is named
            _agree(name, shapes[name], weight, roles, graph)
    known = dict(mapping)
    known.update((arrays[0], partners[0]) for arrays, partners in left.values() if len(arrays) == 1)
    single = set(known.values())
    parents = _parents(known, roles)
    for arrays, partners in left.values():
        free = dict.fromkeys(weight for weight in partners if weight not in single)
        for parent in dict.fromkeys(map(_parent, [name for name in arrays if name not in known])):
            mine = [name for name in arrays if _parent(name) == parent]
            pairs = _paired(mine, [w for w in free if _scope(w, roles) == parents.get(parent)])
            known.update(pairs)
            for weight in pairs.values():
                del free[weight]
        doubtful = [name for name in arrays if name not in known]
        if doubtful and not (_sequential(doubtful) and _counted(list(free))):
            shown = " or ".join(map(repr, list(free)[:2]))
            raise WeightsError(
                f"{graph.name}: {doubtful[0]!r}, one of {len(doubtful)} arrays of this role and shape that "
                f"names and numbers do not tell apart, may be {shown}: {_ADVICE}"
            )
        known.update(zip(doubtful, free, strict=True))
    return {name: known[name] for name in names}


def _parents(known: Mapping[str, str], roles: Mapping[str, tuple[str, Shape]]) -> dict[str, str]:
    """Block of the file -> prefix of its children in the symbol, where the known pairs agree on it."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, weight in known.items():
        found[_parent(name)].add(_scope(weight, roles))
    single = {parent: min(scopes) for parent, scopes in found.items() if len(scopes) == 1}
    return {p: scope for p, scope in single.items() if list(single.values()).count(scope) == 1}


def _paired(names: list[str], weights: list[str]) -> dict[str, str]:
    """The pairs of one block's children: the only ones, or by words, all of them in one order."""
    if len(names) != len(weights):
        return {}
    if len(names) == 1:
        return {names[0]: weights[0]}
    words = _words_without_prefix(weights)
    best = [_by_words(name, weights, words) for name in names]
    pairs = {name: one[0] for name, one in zip(names, best, strict=True) if len(one) == 1}
    if len(set(pairs.values())) < len(names) or not _counted(list(pairs.values())):
        return {}
    return pairs


def _parent(name: str) -> str:
    """The block that holds an array's block: conv1 for conv1.4.gamma."""
    return name.rpartition(".")[0].rpartition(".")[0]


def _scope(weight: str, roles: Mapping[str, tuple[str, Shape]]) -> str:
    """The prefix of a weight's block without its own name: R152_stem for R152_stem_bn2_gamma."""
    parts = weight.split("_")
    return "_".join(parts[: -1 - len(roles[weight][0].split("_"))])


def _sequential(names: list[str]) -> bool:
    """Whether structural names differ only in whole numbers between points, and rise in the file's order."""
    split = [name.split(".") for name in names]
    masked = {tuple("#" if part.isdecimal() else part for part in parts) for parts in split}
    numbers = [[int(part) for part in parts if part.isdecimal()] for parts in split]
    return len(masked) == 1 and all(a < b for a, b in pairwise(numbers))


def _counted(weights: list[str]) -> bool:
    """Whether a symbol's names, in the order of first use, differ only in numbers, and rise."""
    return len({_masked(w) for w in weights}) == 1 and all(
        _numbers(a) < _numbers(b) for a, b in pairwise(weights)
    )


def _masked(name: str) -> str:
    return re.sub(r"[0-9]+", "#", name)


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"[0-9]+", name)]


def _refuse_torn(mapping: Mapping[str, str], graph: Graph) -> None:
    """Refuse a block of the file whose arrays are of two nodes, and two blocks of one node."""
    node_of: dict[str, str] = {}
    for node in graph.nodes:
        for weight in node.weights:
            node_of.setdefault(weight, node.name)
    block_of: dict[str, str] = {}
    known: dict[str, str] = {}
    for name, weight in mapping.items():
        block, owner = name.rpartition(".")[0], node_of[weight]
        if block_of.setdefault(owner, block) != block or known.setdefault(block, owner) != owner:
            other = known.get(block, owner)
            raise WeightsError(
                f"{graph.name}: {block!r} would be {owner!r} and {other!r}, or share one with "
                f"{block_of[owner]!r}: {_ADVICE}"
            )


_ADVICE = "give the structure file that belongs to the symbol (--structure FILE)"


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
