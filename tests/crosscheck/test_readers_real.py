"""refnet's readers and writers against the frameworks' own, in both directions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from refnet.core.graph import Graph
from refnet.formats.mxnet import reader
from refnet.formats.mxnet.symbol import parse_symbol
from refnet.formats.torch.reader import read_state_dict
from refnet.frameworks.process import Worker
from tests.crosscheck.judge import walk
from tests.formats.test_mxnet import every_op, old_network
from tests.helpers import attacks
from tests.helpers.attacks import node, symbol, variable
from tests.helpers.bits import floats, same_bits

pytestmark = pytest.mark.crosscheck


def arrays_of(dtype: str) -> dict[str, np.ndarray]:
    return {"arg:a": floats((3, 4, 1), 0).astype(dtype), "aux:b": floats((7,), 1).astype(dtype)}


# .params


@pytest.mark.parametrize("numpy_shape", [False, True], ids=["V2", "V3"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_params_written_by_mxnet(dtype, numpy_shape, mxnet: Worker, tmp_path: Path):
    path = tmp_path / "a.params"
    arrays = arrays_of(dtype)
    mxnet.ask("save", {"path": str(path), "numpy_shape": numpy_shape}, arrays)
    magic = int.from_bytes(path.read_bytes()[24:28], "little")
    assert magic == (attacks.V3 if numpy_shape else attacks.V2)
    found = reader.read_params(path)
    assert all(same_bits(found[n[4:]], a.astype(np.float32)) for n, a in arrays.items())


@pytest.mark.parametrize("version", [attacks.V1, attacks.V2, attacks.LEGACY], ids=["V1", "V2", "legacy"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_mxnet_reads_the_samples_of_old_versions(dtype, version, mxnet: Worker, tmp_path: Path):
    """The hand-made files that the default tests use are files of MXNet's."""
    path = tmp_path / "a.params"
    arrays = arrays_of(dtype)
    path.write_bytes(attacks.params_file(arrays, version))
    found = mxnet.ask("load", {"path": str(path)}).arrays
    assert found.keys() == arrays.keys()
    assert all(found[n].dtype == a.dtype and found[n].tobytes() == a.tobytes() for n, a in arrays.items())


def test_mxnet_reads_what_refnet_writes(mxnet: Worker, tmp_path: Path):
    path = tmp_path / "a.params"
    arrays = {"w": floats((3, 4, 1), 0), "mean": floats((7,), 1)}
    reader.write_params(path, arrays, {"mean"})
    found = mxnet.ask("load", {"path": str(path)}).arrays
    assert same_bits(found["arg:w"], arrays["w"])
    assert same_bits(found["aux:mean"], arrays["mean"])


# symbol.json


def weights_for(graph: Graph) -> dict[str, np.ndarray]:
    """Weights between -1 and 1, variances between 1/2 and 3/2."""
    found = {}
    for n, kind in graph.weight_types.items():
        values = floats(kind.shape, n)
        found[n] = (values / 2 + 1).astype(np.float32) if n.endswith("var") else values
    return found


def compare(
    mxnet: Worker,
    graph: Graph,
    text: bytes,
    tmp_path: Path,
    surplus: dict[str, str],
    absent: Mapping[str, str] | None = None,
) -> None:
    """Every value of the symbol as MXNet computes it, judged as refnet's reading of it."""
    (tmp_path / "n-symbol.json").write_bytes(text)
    weights = graph.weights or {"unused": floats((1,), 0)}  # MXNet reads a file without arrays as a list
    reader.write_params(tmp_path / "n.params", weights, graph.statistics())
    request = {
        "symbol": str(tmp_path / "n-symbol.json"), "params": str(tmp_path / "n.params"), "mode": "internals",
    }  # fmt: skip
    (name,) = graph.inputs
    data = {name: floats((2, *graph.inputs[name].shape[1:]), "x")}
    tally = walk(graph, data, mxnet.stream("run", request, data), surplus=surplus, absent=absent or {})
    assert tally.compared == len(graph.nodes) - len(absent or {})


def test_exported_graphs_run_in_mxnet(mxnet: Worker, tmp_path: Path):
    """Every op of refnet, split attention too, within its bound of MXNet's own inputs."""
    graph = every_op()
    graph = graph.with_weights(weights_for(graph))
    parts = r"(radix|attention|weighted|weighted1|sig|one)_\w+"
    surplus = {parts: "a step of split attention", "joined_conv": "the convolution of a joined addition"}
    compare(mxnet, graph, reader.graph_to_symbol(graph).encode(), tmp_path, surplus)


def test_an_exported_resnest_runs_in_mxnet(mxnet: Worker, tmp_path: Path):
    from refnet.models.catalog import build, entry
    from refnet.models.synthetic import weights

    graph = build(entry("resnest-50-pytorch"), (64, 64))
    graph = graph.with_weights(weights(graph, 1))
    parts = r".*_(part|sum|group|expand|stack|softmax|soft|row|product|sigmoid)\w*"
    compare(
        mxnet, graph, reader.graph_to_symbol(graph).encode(), tmp_path, {parts: "a step of split attention"}
    )


def test_a_file_of_mxnet_0_8(mxnet: Worker, tmp_path: Path):
    """param, pairs, and auxiliary states and weights that the file does not list."""
    graph = parse_symbol(old_network(), "old-symbol.json", "old", (3, 2, 2))
    compare(mxnet, graph.with_weights(weights_for(graph)), old_network(), tmp_path, {})


DEFAULTS = [
    ("BatchNorm", ("g", "b", "m", "var"), {}),
    ("BatchNorm", ("g", "b", "m", "var"), {"eps": 1e-5, "fix_gamma": "0"}),
    ("BatchNorm", ("g", "b", "m", "var"), {"eps": 0.0, "axis": -3}),
    ("Convolution", ("w", "b"), {"kernel": "(3, 3)", "num_filter": "4"}),
    (
        "Convolution",
        ("w",),
        {"kernel": "[3,2]", "num_filter": 4, "no_bias": "1", "dilate": "(2L, 1L)", "pad": "()"},
    ),
    ("Pooling", (), {"kernel": "(2, 2)"}),
    ("Pooling", (), {"kernel": "(3, 3)", "pool_type": "avg", "pad": "(1, 1)"}),
    (
        "Pooling",
        (),
        {
            "kernel": "(3, 3)",
            "pool_type": "avg",
            "pad": "(1, 1)",
            "stride": "(2, 2)",
            "pooling_convention": "full",
        },
    ),
    (
        "Pooling",
        (),
        {
            "kernel": "(3, 3)",
            "pool_type": "avg",
            "pad": "(1, 1)",
            "stride": "(2, 2)",
            "pooling_convention": "full",
            "count_include_pad": "False",
        },
    ),
    ("Pooling", (), {"kernel": "(3, 3)", "pad": "(1, 1)", "stride": "(2, 2)", "pooling_convention": "full"}),
    ("Pooling", (), {"global_pool": "1", "pool_type": "avg", "kernel": "(3, 3)", "pad": "(1, 1)"}),
    ("_contrib_AdaptiveAvgPooling2D", (), {}),
    ("_contrib_AdaptiveAvgPooling2D", (), {"output_size": "(1, 1)"}),
    ("FullyConnected", ("w", "b"), {"num_hidden": "5"}),
    ("UpSampling", (), {"scale": "3", "sample_type": "nearest", "num_args": "1"}),
    ("Dropout", (), {}),
    ("BlockGrad", (), {}),
    ("_copy", (), {}),
    ("expand_dims", (), {"axis": "-1"}),
    ("slice_axis", (), {"axis": "-1", "begin": "-5", "end": "-1"}),
    ("slice_axis", (), {"axis": "1", "begin": "1", "end": "None"}),
    ("softmax", (), {}),
    ("softmax", (), {"axis": "1", "temperature": "1.0"}),
    ("SoftmaxActivation", (), {"mode": "channel"}),
    ("SoftmaxOutput", ("label",), {"multi_output": "True"}),
    ("SoftmaxOutput", ("label",), {"preserve_shape": "True"}),
    ("SoftmaxOutput", ("label",), {"preserve_shape": "True", "multi_output": "True"}),
    ("Dropout", (), {"mode": "training"}),
]


@pytest.mark.parametrize(("op", "weights", "attributes"), DEFAULTS)
def test_attributes_and_defaults_mean_what_mxnet_means(
    op, weights, attributes, mxnet: Worker, tmp_path: Path
):
    nodes = [variable("data"), *map(variable, weights)]
    text = symbol([*nodes, node(op, "n", list(range(len(nodes))), **attributes)])
    graph = parse_symbol(text, "n-symbol.json", "n", (3, 8, 7))
    absent = {"prob": "a node of refnet only"} if "logits" in graph.outputs else {}
    compare(mxnet, graph.with_weights(weights_for(graph)), text, tmp_path, {}, absent)


@pytest.mark.parametrize("key", ["attrs", "attr", "param"])
def test_where_attributes_stand(key, mxnet: Worker, tmp_path: Path):
    entry = node("Pooling", "n", [0]) | {key: {"kernel": "(2, 2)", "pool_type": "avg"}}
    text = symbol([variable("data"), entry])
    graph = parse_symbol(text, "n-symbol.json", "n", (3, 8, 7))
    compare(mxnet, graph.with_weights({}), text, tmp_path, {})


# .pth


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
def test_state_dicts_written_by_torch(as_zip, torch: Worker, tmp_path: Path):
    path = tmp_path / "a.pth"
    arrays = {
        "w": floats((3, 4, 1, 1), 0),
        "half": floats((5,), 1).astype(np.float16),
        "wide": floats((2, 2), 2).astype(np.float64) / 3,
        "empty": np.zeros((0, 3), np.float32),
    }
    torch.ask("save", {"path": str(path), "zip": as_zip, "counters": ["bn.num_batches_tracked"]}, arrays)
    found = read_state_dict(path)
    assert list(found) == [*arrays, "bn.num_batches_tracked"]
    assert all(same_bits(found[n], a.astype(np.float32)) for n, a in arrays.items())
    assert found["bn.num_batches_tracked"].shape == ()
    assert found["bn.num_batches_tracked"].dtype == np.int64


@pytest.mark.parametrize("kind", ["pth zip", "pth legacy"])
def test_torch_reads_the_samples(kind, torch: Worker, tmp_path: Path):
    """The hand-made files that the default tests use are files of torch's."""
    path = tmp_path / "a.pth"
    path.write_bytes(attacks.SAMPLES[kind][1])
    found = torch.ask("load", {"path": str(path)}).arrays
    expected = attacks.torch_weights()
    assert found.keys() == expected.keys()
    assert all(same_bits(found[n], a) for n, a in expected.items())


def test_the_export_is_plain_json(tmp_path: Path):
    assert json.loads(reader.graph_to_symbol(every_op()))["attrs"] == {"mxnet_version": ["int", 10901]}
