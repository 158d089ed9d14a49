"""A network of each family that MXNet's Gluon defines, and the ops beside the tables, against live MXNet.

All networks, at their own sizes: python -m tests.crosscheck.gluon_zoo (docs/third-party.md has its table).
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.core.errors import GraphError, RefnetError, UnsupportedError
from refnet.formats.mxnet.symbol import parse_symbol
from refnet.ops import LeakyRelu, PRelu, TensorType
from tests.crosscheck import gluon_zoo
from tests.helpers.attacks import node, symbol, variable

pytestmark = pytest.mark.crosscheck

SLICE = {
    "alexnet": 64,
    "mobilenet0.25": 32,
    "mobilenetv2_0.25": 32,
    "octave-resnet-26": 64,
    "resnet18_v1": 32,
    "resnet18_v2": 32,
    "squeezenet1.1": 224,
    "vgg11": 32,
}
"""Name -> the image's side. DenseNet and Inception v3 need 224 and 299: too long for a slice."""
EXPORTED = ("mobilenetv2_0.25", "octave-resnet-26")


@pytest.mark.parametrize("name", SLICE)
def test_every_value_of_a_network_of_the_family(name: str, report: list[str]) -> None:
    """From MXNet's own file, and of some from refnet's export of what it read."""
    for row in gluon_zoo.rows(name, SLICE[name], name in EXPORTED):
        report.append(row.line())
        assert row.good
        assert row.twins == (4 if name.startswith("octave") else 0)
        assert row.equal + row.rounding + row.twins >= row.nodes - 1  # but a softmax of refnet's own


def test_every_kind_of_op_beside_the_tables(report: list[str]) -> None:
    """Leaky rectifiers, arithmetic, broadcasting, slices, reshapes: nodes of one name among them."""
    for row in gluon_zoo.rows("every-kind", 24):
        report.append(row.line())
        assert row.good
        assert row.equal >= 50


def test_names_that_mxnet_gives_twice(tmp_path: Path) -> None:
    file, graph = gluon_zoo.written("every-kind", 24, tmp_path)
    names = [one["name"] for one in json.loads(file.read_text())["nodes"]]
    assert names.count("None__leaky") == 6
    leaky = [one.name for one in graph.nodes if one.name.startswith("None__leaky")]
    assert leaky == ["None__leaky", *(f"None__leaky@{i}" for i in range(len(names)) if i in places(names))]
    assert sum(isinstance(one.op, LeakyRelu) for one in graph.nodes) == 7
    shapes = [one.op.shape for one in graph.nodes if isinstance(one.op, PRelu)]
    assert shapes == [(6,), (1,)]
    value = refnet.run(graph, {"data": np.ones((2, 3, 24, 24), np.float32)})["logits"]
    assert value.shape[0] == 2  # written for one image, run with two


def places(names: list[str]) -> list[int]:
    """Where a name stands again."""
    return [i for i, name in enumerate(names) if name == "None__leaky"][1:]


def test_reshapes_of_any_batch() -> None:
    """Random codes, batches of 1, 2 and 3: the shape is MXNet's, or both refuse it."""
    random = np.random.default_rng(0)
    cases: list[tuple[list[int], list[int], bool]] = []
    ours: list[list[int] | None] = []
    while len(ours) < 900:
        image = ((6, 4, 2), (3, 8, 1), (12, 1, 1))[random.integers(3)]
        size = int(random.integers(1, 7))
        codes = random.choice([0, -1, -2, -3, -4, 1, 2, 3, 4, 6, 8, 12, 24], size).tolist()
        reverse = bool(random.random() < 0.3)
        data = symbol([variable("data"), node("Reshape", "y", [0], shape=tuple(codes), reverse=reverse)])
        with contextlib.suppress(RefnetError):
            op = parse_symbol(data, "r-symbol.json", "r", image).by_name["y"].op
            for batch in (1, 2, 3):
                cases.append(([batch, *image], codes, reverse))
                ours.append(None)
                with contextlib.suppress(GraphError):
                    ours[-1] = list(op.type(TensorType((batch, *image))).shape)
    assert json.loads(gluon_zoo.ask("reshape", json.dumps(cases))) == ours
    assert sum(shape is not None for shape in ours) > 600


def test_the_zoo_is_known_by_name() -> None:
    """What a newer zoo would add must come to somebody's attention."""
    known = gluon_zoo.names()
    assert len(known) == 34
    assert {name for name in SLICE if not name.startswith("octave")} <= set(known)


def test_a_network_in_float16_is_refused_by_name(tmp_path: Path) -> None:
    """As the third-party network's file is by default: it casts to float16 after its input."""
    file, _ = gluon_zoo.written("every-kind", 24, tmp_path)
    text = file.read_text().replace('"dtype": "float32"', '"dtype": "float16"')
    file.write_text(text)
    with pytest.raises(UnsupportedError, match=r"cast0.*dtype='float16', refnet has float32"):
        refnet.load(file, weights="seed:0", image=(24, 24))
