"""The builders against the official symbol files; the catalog against its rules and weights/README.md."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from refnet.cli.common import PIPELINES
from refnet.core.errors import GraphError, InputError
from refnet.core.graph import Graph, Node
from refnet.formats.mxnet.reader import read_symbol, write_symbol
from refnet.models.catalog import Entry, build, entries, entry
from refnet.models.octdensenet import octave_densenet
from refnet.models.octmobilenet import octave_mobilenet_v1, octave_mobilenet_v2
from refnet.models.octresnet import LAYERS, octave_resnet
from refnet.models.octresnet_gluon import octave_resnet_v1
from refnet.models.resnest import resnest
from refnet.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Conv,
    Dense,
    ExpandDims,
    Flatten,
    GlobalAvgPool,
    MaxPool,
    Mul,
    Op,
    Relu,
    Sigmoid,
    Softmax,
    UpsampleNearest,
)
from tests.helpers.official import STRUCTURES, SYMBOLS, shapes_hash, structure_hash

OFFICIAL = {
    "mobilenet_v1_075_alpha-0.375": {
        "builder": octave_mobilenet_v1,
        "options": {"ratio": 0.375, "multiplier": 0.75},
    },
    "se-resnet-50_alpha-0.125": {
        "options": {"depth": 50, "ratio": 0.125, "se": True},
        "numbers": {"pooling": 504, "upsampling": 384, "elementwisesum": 20, "broadcast_mul": 0},
    },
    "mobilenet_v2_1125_alpha-0.5": {
        "builder": octave_mobilenet_v2,
        "options": {"ratio": 0.5, "multiplier": 1.125},
    },
    "resnet152_v1f_alpha-0.125": {"builder": octave_resnet_v1, "options": {"ratio": 0.125}},
    "se-resnet152_v1e_alpha-0.125": {"builder": octave_resnet_v1, "options": {"ratio": 0.125, "se": True}},
    "densenet-121_alpha-0.125": {"builder": octave_densenet, "options": {"ratio": 0.125}, "numbers": {}},
    "densenet-121_alpha-baseline": {"builder": octave_densenet, "options": {"ratio": 0.0}, "numbers": {}},
    "resnet-26_alpha-0.25": {
        "options": {"depth": 26, "ratio": 0.25},
        "numbers": {"pooling": 203, "upsampling": 188, "elementwisesum": 2},
    },
    "resnet-50_alpha-baseline": {"options": {"depth": 50, "ratio": 0.0}, "numbers": {}},
    "resnext-50_32x4d_alpha-0.25": {
        "options": {"depth": 50, "ratio": 0.25, "groups": 32, "width": 2},
        "numbers": {"pooling": 712, "upsampling": 532, "elementwisesum": 32},
    },
}


HASHES = json.loads(STRUCTURES.read_text())


def expected_op(op: str, attrs: dict[str, str]) -> Op:
    """The op that a node of the official files stands for; every attribute must be known."""
    a = {key: ast.literal_eval(v) if v[0] in "(0123456789TF" else v for key, v in attrs.items()}
    match op:
        case "Convolution":
            window = (a["kernel"], a["stride"], a["pad"])
            return Conv(a["num_filter"], *window, groups=a["num_group"], bias=not a["no_bias"])
        case "BatchNorm":
            assert a["momentum"] in (0.9, 0.92)
            return BatchNorm(a["eps"], a["fix_gamma"])
        case "clip":
            return Clip(float(a["a_min"]), float(a["a_max"]))
        case "relu":
            return Relu()
        case "elemwise_add":
            return Add()
        case "_contrib_AdaptiveAvgPooling2D":
            assert a["output_size"] == 1
            return GlobalAvgPool()
        case "Activation":
            return {"relu": Relu(), "sigmoid": Sigmoid()}[a["act_type"]]
        case "Pooling" if a.get("global_pool"):
            assert a["pool_type"] == "avg"
            return GlobalAvgPool()
        case "Pooling":
            window = (a["kernel"], a["stride"], a.get("pad", (0, 0)))
            convention = a.get("pooling_convention", "valid")
            if a["pool_type"] == "max":
                return MaxPool(*window, convention=convention)
            included = a.get("count_include_pad", True)
            return AvgPool(*window, convention=convention, count_include_pad=included)
        case "UpSampling":
            assert (a["sample_type"], a["num_args"]) == ("nearest", 1)
            return UpsampleNearest(a["scale"])
        case "add_n":
            return Add(a["num_args"])
        case "broadcast_mul":
            return Mul()
        case "Concat":
            assert a.get("dim", 1) == 1
            return Concat()
        case "expand_dims":
            return ExpandDims(a["axis"])
        case "FullyConnected":
            return Dense(a["num_hidden"], bias=not a.get("no_bias", False))
        case "Flatten":
            return Flatten()
        case "SoftmaxOutput":
            return Softmax()
    raise AssertionError(op)


def official_nodes(path: Path) -> tuple[list[Node], list[str]]:
    """Nodes as refnet writes them, and all names in the file's order without data and label."""
    symbol = json.loads(path.read_text())
    nodes, names = symbol["nodes"], [node["name"] for node in symbol["nodes"]]
    assert all(output == 0 for node in nodes for _, output, *_ in node["inputs"])
    made = [
        Node(
            node["name"],
            expected_op(node["op"], node.get("attrs", {})),
            tuple(names[i] for i, *_ in node["inputs"] if not names[i].endswith("_label")),
        )
        for node in nodes
        if node["op"] != "null"
    ]
    assert [names[i] for i, *_ in symbol["heads"]] == [made[-1].name]
    if made[-1].op == Flatten():  # Gluon's networks end with logits
        made.append(Node("prob", Softmax(), (made[-1].name,)))
        names.append("prob")
    return made, [name for name in names if name not in ("data", "softmax_label")]


def official_graph(name: str) -> Graph:
    """The builder's graph with the running numbers of the official file."""
    case = OFFICIAL[name]
    numbers = {"numbers": case["numbers"]} if "numbers" in case else {}
    graph = case.get("builder", octave_resnet)(**case["options"], **numbers)
    assert isinstance(graph, Graph)
    return graph


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_builder_makes_the_official_network(name: str) -> None:
    """Names, ops, attributes, inputs and order have the committed hashes of the official file. Where the file
    lies here, they are compared node by node, and so are the hashes."""
    graph = official_graph(name)
    assert structure_hash(graph.nodes) == HASHES[name]["structure"]
    assert shapes_hash(graph.weight_types) == HASHES[name]["shapes"]
    path = SYMBOLS / f"{name}-symbol.json"
    if path.exists():
        nodes, names = official_nodes(path)
        for ours, theirs in zip(graph.nodes, nodes, strict=True):
            assert ours == theirs
        assert [one for node in graph.nodes for one in (*node.weights, node.name)] == names
        assert HASHES[name]["structure"] == structure_hash(nodes)


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_builder_equals_the_reader(name: str, tmp_path: Path) -> None:
    """The same graph, and so the same types of all weights and values, as read from the official file; where
    that is not here, from refnet's own export."""
    graph, path = official_graph(name), SYMBOLS / f"{name}-symbol.json"
    if not path.exists():
        path = tmp_path / path.name
        write_symbol(path, graph)
    read = read_symbol(path)
    assert read.nodes == graph.nodes
    assert read.types() == graph.types()
    assert read.outputs == graph.outputs


def test_running_numbers_start_at_zero_by_default() -> None:
    names = {node.name for node in octave_resnet(26, 0.25, se=True).nodes}
    for kind in ("pooling", "upsampling", "elementwisesum", "broadcast_mul"):
        numbers = sorted(int(n.removeprefix(kind)) for n in names if re.fullmatch(kind + "[0-9]+", n))
        assert numbers == list(range(len(numbers)))
        assert numbers


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 34},
        {"ratio": 1.0},
        {"ratio": -0.5},
        {"layers": (1, 1)},
        {"layers": (1, 0, 1, 1)},
        {"numbers": {"conv": 3}},
    ],
)
def test_octave_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        octave_resnet(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (octave_densenet, {"ratio": 1.0}),
        (octave_densenet, {"layers": ()}),
        (octave_densenet, {"layers": (2, 0)}),
        (octave_densenet, {"numbers": {"conv": 3}}),
        (octave_mobilenet_v1, {"ratio": 0.0}),
        (octave_mobilenet_v1, {"multiplier": 0.0}),
        (octave_mobilenet_v2, {"ratio": 1.0}),
        (octave_mobilenet_v2, {"multiplier": float("nan")}),
        (octave_resnet_v1, {"ratio": -0.1}),
        (octave_resnet_v1, {"layers": (1, 1, 1)}),
    ],
)
def test_options_of_the_other_octave_networks(make: Callable[..., Graph], options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        make(**options)


@pytest.mark.parametrize("name", ["octave-mobilenet-v1-1.0-0.5", "octave-mobilenet-v2-1.0-0.375"])
def test_names_of_width_one_begin_with_its_digits(name: str) -> None:
    assert build(entry(name)).nodes[0].name == "M100_conv1_fwd"


@pytest.mark.parametrize(
    ("name", "at"), [("octave-densenet-121-0.25", "L2"), ("octave-mobilenet-v1-1.0-0.5", "M100_L2_B0")]
)
def test_an_odd_image_is_refused_by_the_other_octave_networks(name: str, at: str) -> None:
    with pytest.raises(GraphError, match=at):
        build(entry(name), (100, 100))


def test_groups_are_capped_at_the_channels_of_a_part() -> None:
    graph = octave_resnet(ratio=0.5, groups=32, layers=(1, 1), channels=(32, 256))
    for path in ("h2h", "h2l", "l2h", "l2l"):
        assert graph.by_name[f"L2_B01_conv2_conv-{path}"].op == Conv(4, (3, 3), pad=(1, 1), groups=4)
    assert graph.by_name["L3_B01_conv2_conv-h2h"].op == Conv(64, (3, 3), pad=(1, 1), groups=32)


def test_an_image_that_does_not_halve_evenly_is_refused() -> None:
    with pytest.raises(GraphError, match="L2_B01_conv2_conv-h"):
        octave_resnet(26, 0.25, image=(3, 228, 228))


@pytest.mark.parametrize("options", [{"layers": (3, 4)}, {"layers": (0, 1, 1, 1)}, {"radix": 0}])
def test_resnest_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        resnest(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("depth", "convolutions"), [(26, 26), (50, 50), (101, 101), (152, 152), (200, 200)])
def test_depth_counts_convolutions_and_classifier(depth: int, convolutions: int) -> None:
    """A bottleneck has three; the stem and the classifier make two more (shortcuts are not counted)."""
    assert 3 * sum(LAYERS[depth]) + 2 == convolutions


VALUES = {
    2: {"layer1.0.conv2.add_1": "RadixSum(radix=2)", "layer1.0.conv2.add_3": "WeightedSum(radix=2)"},
    4: {"layer1.0.conv2.add_3": "RadixSum(radix=4)", "layer1.0.conv2.add_7": "WeightedSum(radix=4)"},
    1: {"layer1.0.conv2.mul": "Mul()"},
}


@pytest.mark.parametrize("radix", VALUES)
def test_resnest_values_are_named_as_pytorch_makes_them(radix: int) -> None:
    graph = resnest(radix=radix)
    by_name = graph.by_name
    for name, op in VALUES[radix].items():
        assert repr(by_name[name].op) == op
    sums = {n for n in by_name if re.search(r"\.(add|mul)", n) and n.startswith("layer1.0.")}
    assert sums == set(VALUES[radix])
    assert by_name["layer1.0.iadd"].inputs == ("layer1.0.bn3", "layer1.0.downsample.2")
    assert by_name["layer1.1.iadd"].inputs == ("layer1.1.bn3", "layer1.0.relu_1")
    assert graph.outputs == {"prob": "prob", "logits": "fc"}
    assert graph.types()["avgpool"].shape == (1, 2048)


def test_average_pool_stands_after_or_before_the_split_attention() -> None:
    slow, fast = resnest(), resnest(avd_first=True)
    assert slow.by_name["layer2.0.avd_layer"].inputs == ("layer2.0.conv2.add_3",)
    assert fast.by_name["layer2.0.avd_layer"].inputs == ("layer2.0.relu",)
    for graph in (slow, fast):
        assert [n for n in graph.by_name if "avd" in n] == [f"layer{i}.0.avd_layer" for i in (2, 3, 4)]
        assert graph.by_name["layer3.0.avd_layer"].op == AvgPool((3, 3), (2, 2), (1, 1))
        shortcut = AvgPool((2, 2), (2, 2), convention="ceil", count_include_pad=False)
        assert graph.by_name["layer3.0.downsample.0"].op == shortcut


# The catalog.


def test_catalog_is_complete() -> None:
    names = set(entries())
    assert {"octave-se-resnet-50-0.125", "resnest-50-pytorch"} <= names
    assert {"octave-se-resnet-digits", "resnest-digits"} <= names
    table = {
        "densenet-121": "0.125 0.25",
        "resnet-26": "0.125 0.25 0.5 0.75",
        "resnet-50": "0.125 0.25 0.5 0.75",
        "se-resnet-50": "0.125 0.25 0.5 0.75",
        "resnext-50": "0.25 0.5 0.75",
        "resnet-101": "0.125 0.25 0.5",
        "resnext-101": "0.25 0.5",
        "resnet-200": "0.125 0.25 0.5",
    }
    assert {f"octave-{kind}-{a}" for kind, alphas in table.items() for a in alphas.split()} <= names
    assert {f"{kind}-baseline" for kind in table} <= names
    octconv = [found for found in entries().values() if found.source.endswith("/OctConv")]
    assert len(octconv) == 25 + 8 + 6
    assert len({file.url for found in octconv for file in found.files}) == 31


@pytest.mark.parametrize("found", entries().values(), ids=lambda found: found.name)
def test_entries_keep_their_rules(found: Entry) -> None:
    assert found.framework in ("mxnet", "pytorch")
    assert found.dataset in ("imagenet", "digits")
    for file in found.files:
        for digest, length in ((file.sha256, 64), (file.sha384, 96), (file.sha256_prefix, 8)):
            assert digest is None or re.fullmatch(f"[0-9a-f]{{{length}}}", digest)
        assert file.fetchable or file.partly_checked  # nothing unchecked is offered
        assert file.url is not None
        assert file.url.startswith("https://")
        assert file.url.endswith("/" + file.name)
        assert file.bytes is None or file.bytes > 0


@pytest.mark.parametrize("found", entries().values(), ids=lambda found: found.name)
def test_every_builder_builds(found: Entry) -> None:
    graph = build(found)
    types = graph.types()
    classes = {"imagenet": 1000, "digits": 10}[found.dataset]
    assert graph.name == found.name
    assert graph.inputs["data"].shape == (1, *found.input_shape)
    assert types[graph.outputs["prob"]].shape == (1, classes)


def test_default_pipelines_exist() -> None:
    from refnet.models.preprocess import pipelines

    known = pipelines()
    for found in entries().values():
        assert known[found.pipeline].shape == found.input_shape
    assert tuple(known) == PIPELINES


def test_each_table_has_its_scorers_pipeline() -> None:
    """And the catalog's mean and scale are the pipeline's; of the ablation the card's, 1 / 0.0167."""
    from refnet.models.preprocess import pipeline

    scorers = dict.fromkeys(("octmobilenet-v1", "octmobilenet-v2"), "octave-gluon-record")
    scorers |= {"octresnet-v1": "octave-gluon-record", "resnest": "resnest"}
    scorers |= dict.fromkeys(("octresnet", "octdensenet"), "octave-scorer")
    for found in entries().values():
        digits = found.dataset == "digits"
        assert found.pipeline == ("digits" if digits else scorers[found.builder]), found.name
        own = pipeline(found.pipeline)
        mean, scale = (tuple(map(float, text.split(","))) for text in (found.mean, found.scale))
        assert mean == own.mean
        assert scale == ((59.880239521,) if found.pipeline == "octave-scorer" else own.scale)


def test_another_image_size() -> None:
    assert build(entry("resnest-50-pytorch"), (256, 192)).types()["layer4.2.relu_1"].shape == (1, 2048, 8, 6)


def test_digits_networks_are_small() -> None:
    for name, limit in (("octave-se-resnet-digits", 250_000), ("resnest-digits", 200_000)):
        assert sum(kind.size for kind in build(entry(name)).weight_types.values()) < limit


@pytest.mark.parametrize("name", ["", "x", "resnest-50", "octave-se-resnet-50", "../weights", "\0"])
def test_unknown_names_are_refused_with_help(name: str) -> None:
    with pytest.raises(InputError, match=r"did you mean |refnet models"):
        entry(name)


def test_readme_of_the_weights_lists_every_official_file() -> None:
    """Each row of the tables is one official file, with exactly what the catalog knows of it."""
    text = (Path(__file__).parents[2] / "weights" / "README.md").read_text()
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)` \| (\S+) \| (.+?) \| (\S+) \|$", text, re.MULTILINE)
    expected = []
    for found in entries().values():
        for file in found.files:
            sums = {"sha256": file.sha256, "sha256 begins": file.sha256_prefix, "sha384": file.sha384}
            shown = ", ".join(f"{kind} `{digest}`" for kind, digest in sums.items() if digest) or "-"
            url = f"<{file.url}>" if file.url else "-"
            expected.append((found.name, file.name, str(file.bytes or "-"), shown, url))
            stem = file.name.removesuffix(".tar")
            members = ("checkpoint-0-symbol.json", "checkpoint-0-0000.params") if stem != file.name else ()
            assert file.inside == tuple(f"{stem}/{member}" for member in members)
            assert all(f"`NAME/{member}`" in text for member in members)
    assert sorted(rows) == sorted(expected)
    for found in entries().values():
        assert f"`{found.name}`" in text
        assert found.shipped is None or f"`{found.shipped}`" in text
