"""symbol.json -> Graph: the network that an MXNet symbol file describes, without its weights.

read_symbol ── _nodes (json -> SymbolNode, checked) ── _reachable ── _build (SymbolNode -> Node)
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from refnet.core.errors import FormatError, GraphError, UnsupportedError
from refnet.core.graph import Graph, Node
from refnet.formats.bounded import check_name, open_file, text
from refnet.formats.heads import with_outputs
from refnet.formats.mxnet.node import ANNOTATION, SymbolNode
from refnet.formats.mxnet.ops import RULES, SOFTMAX_OUTPUTS, arguments, check_attributes
from refnet.ops import TensorType

Image = tuple[int, int, int]
LARGEST_FILE = 64 * 2**20
"""Bytes. A network of 5000 nodes takes 1.6 million."""
NAME = re.compile(rb'"name"\s*:\s*("(?:[^"\\]|\\.)*")')
"""Where names stand in a sound file; group 1 is the JSON string."""
LARGEST_VALUE = 2**31 - 1
"""Elements of a value or weight: MXNet's own limit in its usual builds."""


def read_symbol(path: str | os.PathLike[str], image: Image = (3, 224, 224)) -> Graph:
    """The graph of a symbol.json, without weights.

    image: (channels, height, width) of the one data input; the batch is 1 and may be fed at any size.
    Values keep MXNet's node names. Outputs: {"prob": node} where the only head is a softmax; for
    a head of (n, classes) logits without softmax, {"prob": "prob", "logits": head}, where prob is a node
    of refnet only; the same for two heads, a softmax and its input; several heads by their nodes' names.
    Labels are dropped.
    Raises FormatError (file, byte offset of the node's name), UnsupportedError (all unknown ops at once),
    GraphError (shapes that do not fit). Source: files written by MXNet 1.9.1; docs/formats.md.

    >>> read_symbol("missing-symbol.json")
    Traceback (most recent call last):
    refnet.core.errors.FormatError: missing-symbol.json: found no such file
    """
    file = os.fspath(path)
    stream, size = open_file(path)
    with stream:
        if size > LARGEST_FILE:
            raise FormatError(file, LARGEST_FILE, "more bytes", f"at most {LARGEST_FILE} in a symbol.json")
        data = stream.read(size)
    name = Path(file).name.removesuffix(".json").removesuffix("-symbol")
    return parse_symbol(data, file, text(name), image)


def parse_symbol(data: bytes, file: str, name: str, image: Image = (3, 224, 224)) -> Graph:
    """The graph of a symbol.json's bytes; file is for messages, name becomes the graph's.

    >>> text = b'{"nodes": [{"op": "null", "name": "data", "inputs": []},'
    >>> text += b'{"op": "relu", "name": "r", "inputs": [[0, 0, 0]]}], "heads": [[1, 0, 0]]}'
    >>> print(parse_symbol(text, "r-symbol.json", "r", (3, 2, 2)))
    r(data: float32[1, 3, 2, 2]):
        r = Relu()(data)
        return r=r
    """
    document = _json(data, file)
    nodes = _nodes(document, data, file)
    heads = [_head(entry, nodes, file) for entry in _list(document, "heads", file)]
    if not heads:
        raise FormatError(file, None, "no heads", "at least one")
    if len(set(heads)) < len(heads):
        raise FormatError(file, None, f"heads {heads}", "each once")
    _check_arg_nodes(document, nodes, file)
    return _build(_reachable(nodes, heads), heads, file, name, image)


def _json(data: bytes, file: str) -> dict[str, Any]:
    try:
        decoded = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(file, error.start, f"byte {data[error.start]:#04x}", "UTF-8 text") from None
    try:
        document = json.loads(decoded)
    except json.JSONDecodeError as error:
        offset = len(decoded[: error.pos].encode())
        raise FormatError(file, offset, f"malformed JSON ({error.msg})") from None
    except (RecursionError, ValueError) as error:
        raise FormatError(file, None, f"JSON that nests too deep or has endless numbers ({error})") from None
    if not isinstance(document, dict):
        raise FormatError(file, 0, f"a JSON {type(document).__name__}", "an object with nodes and heads")
    return document


def _list(document: dict[str, Any], key: str, file: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        found = "no" if key not in document else f"{type(value).__name__} as"
        raise FormatError(file, None, f"{found} {key!r}", "a list")
    return value


def _nodes(document: dict[str, Any], data: bytes, file: str) -> list[SymbolNode]:
    """All nodes in the file's order, each checked by itself and for reading earlier nodes only."""
    old = _version(document, file) < 900  # before 0.9, auxiliary states and more were not listed as inputs
    nodes: list[SymbolNode] = []
    places = NAME.finditer(data)
    for index, entry in enumerate(_list(document, "nodes", file)):
        if not isinstance(entry, dict):
            raise FormatError(file, None, f"{type(entry).__name__} as node {index}", "an object")
        op, name = entry.get("op"), entry.get("name")
        if not isinstance(name, str) or not name:
            raise FormatError(file, None, f"{str(name)[:60]!r} as name of node {index}", "a string")
        where = next((place.start(1) for place in places if json.loads(place[1]) == name), None)
        check_name(name, file, where, f"name of node {index}")
        if not isinstance(op, str):
            raise FormatError(file, where, f"{str(op)[:60]!r} as op of node {index} {name!r}", "a string")
        inputs = _inputs(entry.get("inputs", []), index, name, where, file)
        nodes.append(SymbolNode(file, where, index, op, name, _attributes(entry, where, file), inputs))
    if old:
        for node in nodes[:]:
            _complete(node, nodes)
    return nodes


def _version(document: dict[str, Any], file: str) -> int:
    """MXNet's version number as 10901; 800 where there is none, as MXNet takes it."""
    attributes = document.get("attrs", {})
    entry = attributes.get("mxnet_version", ["int", 800]) if isinstance(attributes, dict) else None
    if not (isinstance(entry, list) and len(entry) == 2 and type(entry[1]) is int):
        raise FormatError(file, None, f"{str(entry)[:60]} as mxnet_version", '["int", number]')
    return int(entry[1])


def _attributes(entry: dict[str, Any], offset: int | None, file: str) -> dict[str, str]:
    """The union of param (the oldest files), attr and attrs; contradictions are refused.

    Next to attrs, MXNet 1.9.1 does not read attr: only annotations may stand there alone.
    """
    found: dict[str, str] = {}
    for field in ("param", "attr", "attrs"):
        values = entry.get(field, {})
        if not isinstance(values, dict):
            raise FormatError(file, offset, f"{type(values).__name__} as {field!r}", "an object of strings")
        for key, value in values.items():
            if not isinstance(value, str):
                raise FormatError(file, offset, f"{str(value)[:60]} as {field!r} {key!r}", "a string")
            if found.setdefault(key, value) != value:
                both = f"two values of {key!r}, {found[key][:60]!r} and {value[:60]!r}"
                raise FormatError(file, offset, both, "one")
    if entry.get("attrs") and entry.get("op") != "null":
        for key in entry.get("attr", {}):
            if key not in entry["attrs"] and not ANNOTATION.fullmatch(key):
                raise FormatError(file, offset, f"{key!r} in attr next to attrs", "it in attrs")
    return found


def _inputs(
    entries: Any, index: int, name: str, offset: int | None, file: str
) -> tuple[tuple[int, int], ...]:
    """(node, output) pairs; each node stands before this one, so there are no cycles."""
    if not isinstance(entries, list):
        raise FormatError(file, offset, f"{type(entries).__name__} as inputs of {name!r}", "a list")
    pairs = []
    for entry in entries:
        node, output = _reference(entry, f"an input of {name!r}", offset, file)
        if not 0 <= node < index:
            expected = f"a node before it (0 to {index - 1})"
            raise FormatError(file, offset, f"node {node} as input of node {index} {name!r}", expected)
        pairs.append((node, output))
    return tuple(pairs)


def _reference(entry: Any, what: str, offset: int | None, file: str) -> tuple[int, int]:
    numbers = entry if isinstance(entry, list) else []
    if len(numbers) not in (2, 3) or any(type(n) is not int for n in numbers):
        shown = f"{str(entry)[:60]} as {what}"
        raise FormatError(file, offset, shown, "[node, output] or [node, output, version]")
    return numbers[0], numbers[1]


def _head(entry: Any, nodes: list[SymbolNode], file: str) -> int:
    node, output = _reference(entry, "a head", None, file)
    if not 0 <= node < len(nodes):
        raise FormatError(file, None, f"node {node} as head", f"0 to {len(nodes) - 1}")
    if output != 0:
        raise UnsupportedError(
            f"{file}: a head is output {output} of {nodes[node].title}, refnet has output 0"
        )
    return node


def _check_arg_nodes(document: dict[str, Any], nodes: list[SymbolNode], file: str) -> None:
    for index in _list(document, "arg_nodes", file) if "arg_nodes" in document else []:
        if type(index) is not int or not 0 <= index < len(nodes) or nodes[index].op != "null":
            raise FormatError(
                file, None, f"{str(index)[:60]} in arg_nodes", "the index of a variable (op null)"
            )


def _complete(node: SymbolNode, nodes: list[SymbolNode]) -> None:
    """Files before 0.9: append the variables that a node does not list, named as MXNet names them."""
    rule = RULES.get(node.op)
    wanted = arguments(node, rule) if rule else ()
    inputs = list(node.inputs)
    for role in wanted[len(inputs) :]:
        name = f"{node.name}_{role}"
        nodes.append(SymbolNode(node.file, node.offset, len(nodes), "null", name, {}, ()))
        inputs.append((len(nodes) - 1, 0))
    filled = SymbolNode(
        node.file, node.offset, node.index, node.op, node.name, node.attributes, tuple(inputs)
    )
    nodes[node.index] = filled


def _reachable(nodes: list[SymbolNode], heads: list[int]) -> dict[int, SymbolNode]:
    """The nodes that the heads need, in order, labels left out, under unique names (`_distinct`)."""
    wanted: set[int] = set()
    waiting = list(heads)
    while waiting:
        index = waiting.pop()
        if index in wanted:
            continue
        wanted.add(index)
        node = nodes[index]
        waiting += [i for i, _ in (node.inputs[:1] if node.op in SOFTMAX_OUTPUTS else node.inputs)]
    return _distinct({index: nodes[index] for index in sorted(wanted)})


def _distinct(nodes: dict[int, SymbolNode]) -> dict[int, SymbolNode]:
    """The nodes with unique names: MXNet runs files in which several ops have one name.

    Variables keep their names, by which weights are found; two of one name MXNet refuses, too. Of the ops of
    a name the first keeps it, unless a variable has it; any other is called NAME@INDEX, its place among the
    file's nodes.
    """
    variables = Counter(node.name for node in nodes.values() if node.op == "null")
    for node in nodes.values():
        if node.op == "null" and variables[node.name] > 1:
            found = f"{variables[node.name]} variables {node.name!r}"
            raise FormatError(node.file, node.offset, found, "one of a name")
    taken = {node.name for node in nodes.values()}
    used = set(variables)
    renamed = {}
    for index, node in nodes.items():
        name = node.name
        if node.op != "null" and name in used:
            name = f"{name}@{index}"
            while name in taken:
                name += "_"
            taken.add(name)
        used.add(name)
        renamed[index] = node if name == node.name else replace(node, name=name)
    return renamed


def distinct_symbol(data: bytes, file: str) -> bytes:
    """A symbol.json's bytes with the names that the values of its graph have; data itself if they are unique.

    For MXNet, which shows two nodes of one name under that name. Raises as `parse_symbol`.

    >>> twice = '{"op": "relu", "name": "r", "inputs": [[%d, 0, 0]]}'
    >>> text = '{"nodes": [{"op": "null", "name": "x", "inputs": []}, %s, %s], "heads": [[2, 0, 0]]}'
    >>> distinct_symbol((text % (twice % 0, twice % 1)).encode(), "r-symbol.json").count(b"r@2")
    1
    """
    document = _json(data, file)
    nodes = _nodes(document, data, file)
    heads = [_head(entry, nodes, file) for entry in _list(document, "heads", file)]
    renamed = {i: n.name for i, n in _reachable(nodes, heads).items() if n.name != nodes[i].name}
    for index, name in renamed.items():
        document["nodes"][index]["name"] = name
    return json.dumps(document).encode() if renamed else data


def _build(nodes: dict[int, SymbolNode], heads: list[int], file: str, name: str, image: Image) -> Graph:
    _refuse_unknown_ops(nodes, file)
    for node in nodes.values():
        if node.op != "null":
            _check_arguments(node)
    source = _data_input(nodes, file)
    inputs = {source: TensorType((1, *image))}
    types: dict[int, TensorType] = {i: inputs[source] for i, n in nodes.items() if n.name == source}
    built = []
    for index, node in nodes.items():
        if node.op == "null":
            continue
        try:
            made, types[index] = _node(node, nodes, types)
        except GraphError as error:
            raise GraphError(f"{file}: {node.title}: {error}") from None
        built.append(made)
    if any(nodes[i].op == "null" for i in heads):
        raise UnsupportedError(f"{file}: a head is a variable, refnet's outputs are values")
    kinds = {node.name: types[index] for index, node in nodes.items() if index in types}
    taken = {node.name for node in nodes.values()}
    built, outputs = with_outputs(built, [nodes[i].name for i in heads], kinds, taken)
    try:
        graph = Graph(name, inputs, tuple(built), outputs)
        graph.types()
    except GraphError as error:
        raise GraphError(f"{file}: {error}") from None
    return graph


def _refuse_unknown_ops(nodes: dict[int, SymbolNode], file: str) -> None:
    unknown: dict[str, list[str]] = defaultdict(list)
    for node in nodes.values():
        if node.op != "null" and node.op not in RULES:
            unknown[node.op].append(node.name)
    if unknown:
        lines = []
        for op, names in unknown.items():
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            lines.append(f"\n  {op}: {', '.join(names[:8])}{more}")
        raise UnsupportedError(f"{file}: ops that refnet does not have:{''.join(lines)}")


def _check_arguments(node: SymbolNode) -> None:
    """Only known attributes, and as many inputs as they ask for; a label may be left out."""
    rule = RULES[node.op]
    check_attributes(node, rule)
    wanted = arguments(node, rule)
    label_missing = node.op in SOFTMAX_OUTPUTS and len(node.inputs) == 1
    if not node.inputs or (len(node.inputs) != len(wanted) and not label_missing):
        expected = ", ".join(wanted) or "at least one"
        raise FormatError(node.file, node.offset, f"{len(node.inputs)} inputs of {node.title}", expected)
    if "num_args" in node.attributes and node.integer("num_args") != len(node.inputs):
        raise node.wrong("num_args", f"{len(node.inputs)}, the number of its inputs")


def _data_input(nodes: dict[int, SymbolNode], file: str) -> str:
    """Name of the variable that is data: the one that stands where an op expects a value."""
    as_data: list[str] = []
    as_weight: set[str] = set()
    for node, role, source in _uses(nodes):
        if source.op != "null":
            continue
        if role < _data_count(node):
            as_data.append(source.name)
        else:
            as_weight.add(source.name)
    names = list(dict.fromkeys(as_data))
    if both := [name for name in names if name in as_weight]:
        raise UnsupportedError(f"{file}: the variable {both[0]!r} is used both as data and as a weight")
    if len(names) != 1:
        shown = ", ".join(names[:8]) or "none"
        raise UnsupportedError(f"{file}: the data inputs are {shown}; refnet reads networks with one")
    return names[0]


def _data_count(node: SymbolNode) -> int:
    rule = RULES[node.op]
    return rule.data if rule.arguments else len(node.inputs)


def _uses(nodes: dict[int, SymbolNode]) -> Iterator[tuple[SymbolNode, int, SymbolNode]]:
    """(node, position, source) of every input, labels left out."""
    for node in nodes.values():
        if node.op == "null":
            continue
        inputs = node.inputs[:1] if node.op in SOFTMAX_OUTPUTS else node.inputs
        for position, (index, _) in enumerate(inputs):
            yield node, position, nodes[index]


def _node(
    node: SymbolNode, nodes: dict[int, SymbolNode], types: dict[int, TensorType]
) -> tuple[Node, TensorType]:
    """refnet's node for one of MXNet's, and the type of its value."""
    rule = RULES[node.op]
    count = _data_count(node)
    inputs = node.inputs[:1] if node.op in SOFTMAX_OUTPUTS else node.inputs
    for position, (index, output) in enumerate(inputs):
        source = nodes[index]
        if output != 0:
            raise UnsupportedError(
                f"{node.file}: {node.title} reads output {output} of {source.title}, refnet has output 0"
            )
        if position >= count and source.op != "null":
            raise UnsupportedError(
                f"{node.file}: {node.title}: its {rule.arguments[position]} is computed by {source.title}"
            )
    data = [types[index] for index, _ in inputs[:count]]
    hints = tuple(nodes[index].shape("__shape__") or None for index, _ in inputs)
    op = rule.make(replace(node, hints=hints), data)
    weights = op.weight_types(*data)
    kind = op.type(*data, *weights)
    for found in (*weights, kind):
        if found.size > LARGEST_VALUE or min(found.shape) < 1:
            raise FormatError(
                node.file, node.offset, f"{node.title} with {found!r}", f"1 to {LARGEST_VALUE} elements"
            )
    return Node(node.name, op, tuple(nodes[index].name for index, _ in inputs)), kind
