"""The builders against the frameworks: names and shapes of weights and values in resnest and MXNet."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refnet.formats.mxnet.reader import write_symbol
from refnet.frameworks.process import Worker
from refnet.models.catalog import Entry, build, entries
from tests.crosscheck.conftest import interpreter
from tests.crosscheck.test_torch_values import NETWORKS

pytestmark = pytest.mark.crosscheck

SHAPES_OF_STATE_DICTS = """
import json, sys, torch, resnest.torch
found = {}
for name in sys.argv[1:]:
    with torch.device("meta"):
        state = getattr(resnest.torch, name)().state_dict()
    found[name] = [[key, list(value.shape)] for key, value in state.items() if "num_batches" not in key]
print(json.dumps(found))
"""

SHAPES_THAT_MXNET_INFERS = """
import json, sys, mxnet
found = {}
for path in sys.argv[1:]:
    symbol = mxnet.sym.load(path)
    arguments, outputs, states = symbol.get_internals().infer_shape(data=(1, 3, 224, 224))
    names = symbol.list_arguments() + symbol.list_auxiliary_states()
    values = zip(symbol.get_internals().list_outputs(), outputs)
    found[path] = [dict(zip(names, arguments + states)), dict(values)]
print(json.dumps(found))
"""

RESNESTS = [e for e in entries().values() if e.builder == "resnest" and e.dataset == "imagenet"]
LARGEST = [found for found in RESNESTS if found.name not in NETWORKS]
OCTAVES = [e for e in entries().values() if e.framework == "mxnet" and e.dataset == "imagenet"]


def official_name(found: Entry) -> str:
    """resnest-50-fast-2s2x40d-pytorch is resnest50_fast_2s2x40d in the package."""
    return found.name.removesuffix("-pytorch").replace("resnest-", "resnest").replace("-", "_")


def ask(framework: str, script: str, *arguments: str | Path) -> dict[str, Any]:
    """What a script prints in a framework's own Python."""
    run = subprocess.run(
        [interpreter(framework), "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    answer: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return answer


def test_state_dicts_of_the_resnest_package() -> None:
    """Names and shapes of all parameters and statistics of the eleven networks."""
    theirs = ask("torch", SHAPES_OF_STATE_DICTS, *map(official_name, RESNESTS))
    assert len(theirs) == len(RESNESTS) == 11
    for found in RESNESTS:
        ours = {name: list(kind.shape) for name, kind in build(found).weight_types.items()}
        assert ours == dict(theirs[official_name(found)]), found.name


def test_the_largest_are_left() -> None:
    assert [found.name for found in LARGEST] == ["resnest-200-pytorch", "resnest-269-pytorch"]


@pytest.mark.parametrize("found", LARGEST, ids=lambda found: found.name)
def test_values_of_the_resnest_package(found: Entry, torch: Worker) -> None:
    """Every value of the graph is one that PyTorch makes, of the same shape and in the same order.

    Of the other networks each value is judged: test_torch_values.py.
    """
    graph = build(found, (64, 64))
    types = graph.types()
    request = {"model": f"resnest.torch:{official_name(found)}"}
    data = np.zeros((1, 3, 64, 64), np.float32)
    theirs = {name: array.shape for name, array in torch.stream("run", request, {"data": data})}
    ours = [node.name for node in graph.nodes if node.name != "prob"]
    assert [name for name in ours if name not in theirs] == []
    assert {name: theirs[name] for name in ours} == {name: types[name].shape for name in ours}
    assert ours == [name for name in theirs if name in types]


def test_shapes_that_mxnet_infers(tmp_path: Path) -> None:
    """Of every weight and every value of the 39 octave networks, from the symbol files that refnet writes."""
    assert len(OCTAVES) == 39
    paths = {found.name: tmp_path / f"{found.name}-symbol.json" for found in OCTAVES}
    for found in OCTAVES:
        write_symbol(paths[found.name], build(found))
    answers = ask("mxnet", SHAPES_THAT_MXNET_INFERS, *paths.values())
    for found in OCTAVES:
        graph = build(found)
        types = graph.types()
        weights, values = answers[str(paths[found.name])]
        assert {name: list(kind.shape) for name, kind in graph.weight_types.items()} == {
            name: shape for name, shape in weights.items() if name not in ("data", "softmax_label")
        }
        for node in graph.nodes:
            assert values[f"{node.name}_output"] == list(types[node.name].shape), node.name
