"""What a network costs: parameters, multiply-adds, operations and bytes, per node and in total.

Five ways to count, because published figures differ by what they count and not by the network:

- `macs`: multiply-adds of convolution and dense, the figure that papers call FLOPs.
- `table_macs`: as OctConv's second table counts, up to 1 % more, see `table_operations`.
- `flops`: every float operation of every op as refnet runs it, a multiply-add as two (`Op.flops`).
- `parameters`: learned weights as trained; running statistics are counted apart.
- `folded`: parameters after each batch norm that directly follows a convolution has been merged into
  it: its gamma scales the weights and goes, its beta becomes the convolution's bias. So a merged norm
  of c channels leaves c parameters of its 2c, and none if the convolution had a bias already. A norm
  merges if the convolution's value has no other reader.
- `card_flops`, `card_parameters`: the cards' rule, found by computing, see `card_operations`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from refnet.core.graph import Graph, Node
from refnet.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Conv,
    Dense,
    GlobalAvgPool,
    MaxPool,
    Mul,
    RadixSoftmax,
    RadixSum,
    Relu,
    Sigmoid,
    Softmax,
    TensorType,
    WeightedSum,
)

TABLE_RULE = (
    "a multiply-add counts as one, and so does the addition of a bias; a pool counts its window's size per "
    "element, and a relu that is a Gluon block of its own one"
)
"""The rule by which OctConv's second table counts #FLOPs."""
CARD_RULE = (
    "a batch norm after a convolution is folded into it; each other batch norm, and the input's mean and "
    "scale, is one scale-shift. Operations: multiply-add 2 (bias 0), relu and scale-shift 2, sum or product "
    "of two 3, sigmoid 3, softmax 5, pooling: the window's size per element"
)
"""The rule by which the model cards count, which differs from `macs` and `parameters`."""


@dataclass(frozen=True)
class Row:
    """One node. shape: of its value, batch 1. bytes: of its value and its weights, float32."""

    name: str
    op: str
    shape: tuple[int, ...]
    parameters: int
    statistics: int
    macs: int
    flops: int
    bytes: int


@dataclass(frozen=True)
class Summary:
    """A network's cost for one execution at its own input size; see the head of this file.

    parameters, statistics, folded, card_parameters: numbers. macs, table_macs, flops, card_flops: operations;
    table_macs is meant for networks of Gluon, whose names it reads.
    bytes: of all weights and values, float32. A weight that several nodes share is counted once. opaque: the
    nodes that refnet cannot compute, whose operations are not counted.

    >>> from refnet.models.catalog import build, entry
    >>> cost = summary(build(entry("resnest-50-pytorch")))
    >>> f"{cost.parameters / 1e6:.4f} M, folded {cost.folded / 1e6:.4f} M, {cost.macs / 1e9:.4f} G"
    '27.4832 M, folded 27.4491 M, 5.3712 G'
    >>> f"{cost.card_flops / 1e9:.4f} G"
    '10.8148 G'
    """

    network: str
    rows: tuple[Row, ...]
    parameters: int
    statistics: int
    folded: int
    macs: int
    flops: int
    bytes: int
    card_flops: int
    card_parameters: int
    table_macs: int
    opaque: tuple[str, ...] = ()
    card_rule: str = CARD_RULE
    table_rule: str = TABLE_RULE


def summary(graph: Graph) -> Summary:
    """The cost of each node and of the network. Needs no weights. Raises GraphError if shapes do not fit.

    Figures of two of the nine networks with a card, as printed there and as counted here:

        octave-se-resnet-50-0.125   7.246 GFLOPs, 28.082 M     card_flops 7.246 G, card_parameters 28.082 M
        resnest-50-pytorch         10.8148 GFLOPs, 27.4493 M   card_flops 10.8148 G, card_parameters 27.4491 M

    The seven others agree to every digit but resnet-200's operations, 25.407 there and 25.409 here. What
    remains unexplained besides: about 230 of resnest's 27.4493 M parameters. The published converted
    network, which could settle it, is not part of the project; constants such as the shapes and axes
    of its 16 split attentions would be of that size.

    >>> from refnet.models.catalog import build, entry
    >>> cost = summary(build(entry("octave-se-resnet-50-0.125")))
    >>> cost.rows[0].name, cost.rows[0].op, cost.rows[0].shape, cost.rows[0].macs
    ('conv1_conv', 'Conv', (1, 64, 112, 112), 118013952)
    """
    types = graph.types()
    aside = graph.statistics()
    merged = merged_norms(graph)
    seen: set[str] = set()
    rows = []
    for node in graph.nodes:
        own = [name for name in dict.fromkeys(node.weights) if name not in seen]
        seen.update(own)
        rows.append(_row(node, types, [n for n in own if n not in aside], [n for n in own if n in aside]))
    folded = sum(row.parameters for row in rows) - sum(
        types[name].shape[1] * (2 if _convolution(graph, name).bias else 1) for name in merged
    )
    inputs = sum(kind.size for kind in graph.inputs.values())
    return Summary(
        network=graph.name,
        rows=tuple(rows),
        parameters=sum(row.parameters for row in rows),
        statistics=sum(row.statistics for row in rows),
        folded=folded,
        macs=sum(row.macs for row in rows),
        flops=sum(row.flops for row in rows),
        bytes=sum(row.bytes for row in rows),
        card_flops=2 * inputs + sum(card_operations(n, types) for n in graph.nodes if n.name not in merged),
        card_parameters=folded + 2 * sum(kind.shape[1] for kind in graph.inputs.values()),
        table_macs=sum(table_operations(node, types) for node in graph.nodes),
        opaque=tuple(node.name for node in graph.nodes if node.op.opaque),
    )


def bytes_once(graph: Graph, batch: int = 1) -> int:
    """Bytes of every weight, and of a batch's inputs and values, each counted once.

    graph: one whose inputs are of one image. The sum is a size to compare operations with, not the traffic
    of a run: a value that is written to memory and read again moves twice, and one that is fused away or
    still in a cache does not move at all.

    >>> from refnet.models.catalog import build, entry
    >>> graph = build(entry("resnest-digits"))
    >>> bytes_once(graph, 2) - bytes_once(graph) == 4 * 32 * 32 + sum(
    ...     kind.nbytes for name, kind in graph.types().items() if name in graph.by_name)
    True
    """
    types = graph.types()
    images = [*graph.inputs.values(), *(types[node.name] for node in graph.nodes)]
    weights = {name for node in graph.nodes for name in node.weights}
    return sum(types[name].nbytes for name in weights) + batch * sum(kind.nbytes for kind in images)


def merged_norms(graph: Graph) -> set[str]:
    """Names of the batch norms that directly follow a convolution whose value nothing else reads.

    >>> from refnet.models.catalog import build, entry
    >>> sorted(merged_norms(build(entry("octave-se-resnet-digits"))))[:2]
    ['L2_B01_conv2_bn-h', 'L2_B01_conv2_bn-l']
    """
    readers = Counter([name for node in graph.nodes for name in node.data] + list(graph.outputs.values()))
    convolutions = {node.name for node in graph.nodes if isinstance(node.op, Conv)}
    return {
        node.name
        for node in graph.nodes
        if isinstance(node.op, BatchNorm) and node.data[0] in convolutions and readers[node.data[0]] == 1
    }


def card_operations(node: Node, types: dict[str, TensorType]) -> int:
    """Operations of one node by the cards' rule; batch norms that are merged must be left out.

    The cards' figures are those of Intel's Model Analyzer on the converted network. Its formulas
    (model_analyzer/layer_provider.py of github.com/openvinotoolkit/model_analyzer), per output element:
    convolution and dense 2 per multiply-add and nothing for the bias; relu 2; scale-shift (a batch norm
    that stays, the input's mean and scale) 2; an elementwise sum or product of n inputs 2n - 1; pooling
    the window's size, a global pool the whole map; sigmoid 3; softmax 5; what only moves data 0. A radix
    sum is radix - 1 sums of two, a weighted sum radix products and radix - 1 sums of two. No card's network
    has a clip: it is counted as a relu.
    """
    size = types[node.name].size
    match node.op:
        case Conv() | Dense():
            return 2 * node.op.flops(*(types[name] for name in node.inputs)).macs
        case Relu() | Clip() | BatchNorm():
            return 2 * size
        case Add(count):
            return (2 * count - 1) * size
        case Mul():
            return 3 * size
        case RadixSum(radix):
            return 3 * (radix - 1) * size
        case WeightedSum(radix):
            return 3 * (2 * radix - 1) * size
        case MaxPool() | AvgPool():
            return node.op.kernel[0] * node.op.kernel[1] * size
        case GlobalAvgPool():
            return types[node.data[0]].size
        case Sigmoid() | RadixSoftmax(1):
            return 3 * size
        case Softmax() | RadixSoftmax():
            return 5 * size
    return 0


def table_operations(node: Node, types: dict[str, TensorType]) -> int:
    """Operations of one node by the rule of OctConv's second table.

    The authors thank Ldpe2G in their README for the code that calculates #FLOPs: CalFlops.scala of
    github.com/Ldpe2G/DeepLearningForFun (Mxnet-Scala/UsefulTools). Of MXNet's ops it counts Convolution and
    FullyConnected: their multiply-adds, and each bias's addition; Pooling: the window's size per element, the
    whole map if it is global; and Activation with relu: 1 per element. All others count 0, and so do MXNet's
    ops `relu`, `clip` and `_contrib_AdaptiveAvgPooling2D`, which are refnet's Relu, Clip and GlobalAvgPool
    too. Gluon's names tell them apart: the value of a block of its own ends with `_fwd`.

    It gives five of the table's six figures as printed, 213, 321, 256 and 295 M and 10.9 G. ResNet-152 v1f
    has 10.84 G, where 10.9 G is printed.
    """
    size, block = types[node.name].size, node.name.endswith("_fwd")
    match node.op:
        case Conv(bias=bias) | Dense(bias=bias):
            return node.op.flops(*(types[name] for name in node.inputs)).macs + (size if bias else 0)
        case MaxPool() | AvgPool():
            return node.op.kernel[0] * node.op.kernel[1] * size
        case GlobalAvgPool() if block:
            return types[node.data[0]].size
        case Relu() if block:
            return size
    return 0


def _row(node: Node, types: dict[str, TensorType], learned: list[str], aside: list[str]) -> Row:
    cost = node.op.flops(*(types[name] for name in node.inputs))
    return Row(
        name=node.name,
        op=node.op.label() if node.op.opaque else type(node.op).__name__,
        shape=types[node.name].shape,
        parameters=sum(types[name].size for name in learned),
        statistics=sum(types[name].size for name in aside),
        macs=cost.macs,
        flops=cost.flops,
        bytes=types[node.name].nbytes + sum(types[name].nbytes for name in learned + aside),
    )


def _convolution(graph: Graph, norm: str) -> Conv:
    """The convolution that a merged norm follows."""
    op = graph.by_name[graph.by_name[norm].data[0]].op
    assert isinstance(op, Conv)
    return op
