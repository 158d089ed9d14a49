"""Gluon's official .params, which have structural names and no graph: read by the builders' graphs alone.

The structural names are made here by the rules of the Gluon definitions; a hash of what the official
structure files say is committed, so that this needs no official file.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from refnet.core.errors import InputError, WeightsError
from refnet.core.graph import Graph
from refnet.formats.mxnet.reader import is_structural, structural_names, write_params
from refnet.models.catalog import build, entry
from refnet.models.loading import load
from refnet.models.synthetic import weights
from tests.helpers.bits import same_bits
from tests.helpers.official import STRUCTURES, SYMBOLS

OFFICIAL = {
    "mobilenet_v1_075_alpha-0.375": "octave-mobilenet-v1-0.75-0.375",
    "mobilenet_v2_1125_alpha-0.5": "octave-mobilenet-v2-1.125-0.5",
    "resnet152_v1f_alpha-0.125": "octave-resnet-152-v1f-0.125",
    "se-resnet152_v1e_alpha-0.125": "octave-se-resnet-152-v1e-0.125",
}
GLUON = (*OFFICIAL.values(), "octave-mobilenet-v1-1.0-0.5", "octave-mobilenet-v2-1.0-0.375")
STEM = {"1": ("0", "1"), "2": ("3", "4"), "3": ("6", "7")}
"""Number of a stem's convolution -> places of it and of its batch norm in their Sequential."""

RULES = (
    (r"(stem_)?conv([123])", lambda m: f"conv1.{STEM[m[2]][0]}"),
    (r"(stem_)?bn([123])", lambda m: f"conv1.{STEM[m[2]][1]}"),
    (r"stem2_(\w+)", r"conv2.\1"),
    (r"tail-conv", "tail.0"),
    (r"tail-bn", "tail.1"),
    (r"classifier", "classifer"),  # so misspelt by its authors
    (r"(L\d_B\d+)_(conv\d)-(\w\w\w)", r"\1.\2.conv_\3"),
    (r"(L\d_B\d+)_(bn\da?)-(\w)", r"\1.\2.bn_\3"),
    (r"(L\d_B\d+)_se-conv1", r"\1.se_block.conv1"),
    (r"(L\d_B\d+)_se-conv2-(\w)", r"\1.se_block.conv2_\2"),
)
ROLES = r"_(weight|bias|gamma|beta|running_mean|running_var)"


def structural(weight: str) -> str:
    """The structural name of a weight of a symbol."""
    _, _, name = weight.partition("_")
    for pattern, form in RULES:
        if found := re.fullmatch(pattern + ROLES, name):
            stem = re.sub(pattern, form, name.removesuffix(f"_{found[found.lastindex or 0]}"))
            return f"{stem}.{found[found.lastindex or 0]}"
    raise AssertionError(weight)


def names_hash(names: dict[str, str]) -> str:
    """sha256 of structural names and the symbol's names, sorted."""
    return hashlib.sha256("".join(sorted(f"{a} {b}\n" for a, b in names.items())).encode()).hexdigest()


def numbers(name: str) -> list[str]:
    """What sorts L1_B2 before L1_B10."""
    return [part.zfill(3) for part in re.split(r"(\d+)", name)]


def structure(graph: Graph) -> dict[str, str]:
    return {structural(name): name for name in graph.weight_types}


@pytest.mark.parametrize("symbol", OFFICIAL)
def test_names_made_here_are_those_of_the_official_structure_files(symbol: str) -> None:
    made = names_hash(structure(build(entry(OFFICIAL[symbol]))))
    assert made == json.loads(STRUCTURES.read_text())[symbol]["names"]
    path = SYMBOLS / f"{symbol}-structure.json"
    if path.exists():
        theirs = {name: said["name"] for name, said in json.loads(path.read_text()).items()}
        assert made == names_hash(theirs)
        shapes = {said["name"]: tuple(said["shape"]) for said in json.loads(path.read_text()).values()}
        types = build(entry(OFFICIAL[symbol])).weight_types
        assert shapes == {name: kind.shape for name, kind in types.items()}


@pytest.mark.parametrize("symbol", OFFICIAL)
def test_names_are_derived_from_shapes_in_the_official_order(symbol: str) -> None:
    """The order of the official structure file; where that is not here, the order of the symbol."""
    graph = build(entry(OFFICIAL[symbol]))
    names, path = structure(graph), SYMBOLS / f"{symbol}-structure.json"
    order = list(json.loads(path.read_text())) if path.exists() else sorted(names, key=numbers)
    shapes = {new: graph.weight_types[names[new]].shape for new in order}
    assert structural_names(shapes, graph) == names
    assert is_structural(shapes, graph)
    assert not is_structural({name: kind.shape for name, kind in graph.weight_types.items()}, graph)
    first, dense = order[0], next(name for name, shape in shapes.items() if shape[0] == 1000)
    with pytest.raises(WeightsError):
        structural_names(shapes | {first: shapes[dense]}, graph)


@pytest.mark.parametrize("name", GLUON)
def test_structural_names_are_derived_from_the_graph_alone(name: str) -> None:
    """Exactly, where numbered blocks come in the order of their numbers, as Gluon saves them."""
    graph = build(entry(name))
    names = structure(graph)
    shapes = {new: graph.weight_types[names[new]].shape for new in sorted(names, key=numbers)}
    assert structural_names(shapes, graph) == names


def test_an_official_params_file_needs_nothing_else(tmp_path: Path) -> None:
    """Neither symbol nor --model: its name says the network."""
    found = entry("octave-mobilenet-v1-0.75-0.375")
    arrays = weights(build(found, (64, 64)), 1)
    names = structure(build(found))
    path = tmp_path / found.files[0].name
    write_params(path, {new: arrays[old] for new, old in names.items()})
    read = load(path)
    assert read.nodes == build(found).nodes
    assert all(same_bits(read.weights[name], array) for name, array in arrays.items())
    other = path.rename(tmp_path / "net.params")
    with pytest.raises(InputError, match="name the network that they belong to"):
        load(other)
    assert load(other, network=found.name).weights_hash() == read.weights_hash()
