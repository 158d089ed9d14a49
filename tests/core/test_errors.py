"""Messages with names from files: short, whatever the file says."""

from __future__ import annotations

import json

import pytest

from refnet.core.errors import FormatError, InputError, RefnetError
from refnet.core.words import LINE, QUOTED, quoted, shortened
from refnet.models.loading import load


def test_what_is_short_stays():
    text = "net.onnx: the framework's 'conv1' reads 'a', which nobody's node makes; " + "word " * 380
    assert shortened(text) == text
    assert shortened("x" * QUOTED) == "x" * QUOTED


@pytest.mark.parametrize("name", ["x" * 5000, "a b " * 5000, "/a/b.c" * 5000, "\u00e9" * 201])
def test_a_long_name_is_cut(name):
    said = str(InputError(f"net.onnx: no value {name!r} here"))
    assert said.startswith(f"net.onnx: no value '{name[:100]}")
    assert said.endswith(f"{name[-40:]}' here")
    assert f"({len(name) + 2} characters)" in said
    assert len(said) == len("net.onnx: no value  here") + QUOTED
    assert len(quoted(name)) == QUOTED
    assert len(str(FormatError("f", 1, name, name))) < 100 + 2 * max(QUOTED, LINE)


def test_a_long_line_is_cut_and_the_next_is_not():
    said = str(InputError("a b " * 2000 + "\nnext line"))
    assert len(said) == LINE + len("\nnext line")


LONG = "x" * 5000
DATA = {"op": "null", "name": "data", "inputs": []}


@pytest.mark.parametrize(
    "node",
    [
        {"op": LONG, "name": LONG},
        {"op": "Activation", "name": LONG, "attrs": {"act_type": LONG}},
        {"op": "Activation", "name": LONG, "attrs": {LONG: LONG}},
        {"op": "Convolution", "name": LONG, "attrs": {"kernel": LONG, "num_filter": "3"}},
        {"op": "null", "name": LONG},
    ],
)
def test_a_file_with_long_names(tmp_path, node):
    path = tmp_path / "a-symbol.json"
    nodes = [DATA, {"inputs": [[0, 0, 0]], **node}]
    path.write_text(json.dumps({"nodes": nodes, "arg_nodes": [0], "heads": [[1, 0, 0]]}))
    with pytest.raises(RefnetError) as error:
        load(str(path))
    assert "x" * (QUOTED + 1) not in str(error.value)
    assert len(str(error.value)) < 1000
