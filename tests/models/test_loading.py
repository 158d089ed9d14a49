"""Every kind of model and of weights, what is found without being named, and what is refused."""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import refnet
from refnet.core.errors import FormatError, GraphError, InputError, RefnetError, WeightsError
from refnet.core.graph import Graph, Node, TensorType
from refnet.formats.mxnet.reader import graph_to_symbol, write_params
from refnet.models.catalog import OfficialFile, build, entries, entry
from refnet.models.export import export
from refnet.models.fetch import fetch
from refnet.models.loading import load, network_of, structure
from refnet.models.octresnet import octave_resnet
from refnet.models.synthetic import weights
from refnet.ops import Dense, Flatten
from tests.helpers.bits import same_bits

OCTAVE, RESNEST = "octave-se-resnet-digits", "resnest-digits"


def same(a: Graph, b: Graph) -> bool:
    """Same structure and the same bits in every weight."""
    return a.nodes == b.nodes and a.inputs == b.inputs and a.weights_hash() == b.weights_hash()


@pytest.fixture(scope="module")
def octave() -> Graph:
    return load(OCTAVE, weights="seed:7")


@pytest.fixture
def exported(octave: Graph, tmp_path: Path) -> Path:
    return export(octave, tmp_path / "net")[0]


@pytest.fixture
def nothing_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "fetched"
    folder.mkdir()
    monkeypatch.setenv("REFNET_WEIGHTS", str(folder))
    return folder


def archive(path: Path, graph: Graph) -> Path:
    """An archive as the official ones are: a folder with checkpoint-0-symbol.json and its .params."""
    folder = path.with_suffix("")
    folder.mkdir()
    export(graph, folder / "checkpoint-0")
    with tarfile.open(path, "w") as tar:
        tar.add(folder, folder.name)
    shutil.rmtree(folder)
    return path


# What is loaded.


def test_seed_is_the_synthetic_weights(octave: Graph) -> None:
    graph = build(entry(OCTAVE))
    assert same(octave, graph.with_weights(weights(graph, 7)))
    assert not same(octave, load(OCTAVE, weights="seed:8"))


@pytest.mark.parametrize("name", [OCTAVE, RESNEST])
def test_the_digits_networks_come_with_their_weights(name: str) -> None:
    graph = load(name)
    assert graph.nodes == build(entry(name)).nodes
    assert set(graph.weights) == set(graph.weight_types)


def test_a_symbol_file_finds_its_params(octave: Graph, exported: Path) -> None:
    assert same(load(exported, network=OCTAVE), octave)
    assert load(str(exported), network=OCTAVE).name == "net"


def test_a_symbol_file_prefers_its_own_params(octave: Graph, exported: Path) -> None:
    (exported.parent / "a.params").write_bytes(b"another network's")
    assert same(load(exported, network=OCTAVE), octave)


def test_a_symbol_file_takes_the_only_params_in_its_folder(octave: Graph, exported: Path) -> None:
    (exported.parent / "net-0000.params").rename(exported.parent / "net-0090.params")
    assert same(load(exported, network=OCTAVE), octave)


def test_a_symbol_file_with_named_params(octave: Graph, exported: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    params = (exported.parent / "net-0000.params").rename(other / "w.params")
    assert same(load(exported, weights=params, network=OCTAVE), octave)
    assert same(load(exported, weights="seed:7", network=OCTAVE), octave)


def test_channels_of_an_unknown_symbol_file_come_from_its_weights(octave: Graph, exported: Path) -> None:
    """One channel, not three; and 224 pixels, for nothing says otherwise."""
    graph = load(exported)
    assert graph.inputs["data"].shape == (1, 1, 224, 224)
    assert graph.weights_hash() == octave.weights_hash()
    assert load(exported, image=(32, 32)).inputs == octave.inputs


def test_a_file_named_like_a_network_is_that_network(octave: Graph, tmp_path: Path) -> None:
    symbol, _ = export(octave, tmp_path / OCTAVE)
    assert same(load(symbol), octave)
    assert structure(symbol).types() == octave.types()


def test_an_archive(octave: Graph, tmp_path: Path) -> None:
    path = archive(tmp_path / "any.tar", octave)
    assert same(load(path, network=OCTAVE), octave)
    assert same(load(OCTAVE, weights=path), octave)
    assert same(load(path, network=OCTAVE, weights="seed:8"), load(OCTAVE, weights="seed:8"))
    assert structure(path, network=OCTAVE).weights == {}


@pytest.mark.parametrize("ending", [".safetensors", ".params"])
def test_a_state_dict(ending: str, tmp_path: Path) -> None:
    graph = load(RESNEST, weights="seed:1")
    path = tmp_path / f"state{ending}"
    arrays = dict(graph.weights)
    if ending == ".params":
        write_params(path, arrays, graph.statistics())
    else:
        save_file(arrays | {"bn1.num_batches_tracked": np.array(3)}, path)
    assert same(load(path, network=RESNEST), graph)
    assert same(load(RESNEST, weights=path), graph)
    assert same(load(RESNEST, weights=str(path)), graph)
    assert structure(path, network=RESNEST).nodes == graph.nodes


def test_a_state_dict_that_torch_saved() -> None:
    path = Path(__file__).parents[2] / "weights" / "resnest-digits.pth"
    assert same(load(path, network=RESNEST), load(RESNEST))


def test_a_fetched_archive_is_found(
    octave: Graph, nothing_fetched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network that does not ship with the project; the graph is the one inside the archive."""
    path = archive(nothing_fetched / "official.tar", octave)
    found = replace(
        entry(OCTAVE), shipped=None, files=(OfficialFile("official.tar", bytes=path.stat().st_size),)
    )
    monkeypatch.setattr(sys.modules["refnet.models.loading"], "entry", lambda _: found)
    assert same(load(OCTAVE), octave)
    assert load(OCTAVE).name == OCTAVE


def test_another_image_size() -> None:
    graph = load(RESNEST, image=(64, 48))
    assert graph.inputs["data"].shape == (1, 1, 64, 48)
    assert structure("resnest-50-pytorch", image=(256, 256)).inputs["data"].shape == (1, 3, 256, 256)


def test_the_package_offers_the_function_whatever_was_imported_before() -> None:
    import importlib

    importlib.import_module("refnet.models.loading")
    assert refnet.load is load
    assert refnet.load is load  # the second time too


def test_an_export_reads_back(octave: Graph, exported: Path, tmp_path: Path) -> None:
    again = load(exported, network=OCTAVE)
    assert again.nodes == octave.nodes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net-0000.params", "net-symbol.json"]


# What is refused.

REFUSED: list[tuple[type[RefnetError], str, Callable[[Path], object]]] = [
    (
        InputError,
        "no network is named 'resnest-60-pytorch'.*no such file",
        lambda _: load("resnest-60-pytorch"),
    ),
    (InputError, "no network is named ''", lambda _: load("")),
    (InputError, "name or a path", lambda _: load(3)),  # type: ignore[arg-type]
    (InputError, "no network is named", lambda _: load("\0")),
    (InputError, "leave it out", lambda _: load(OCTAVE, network=RESNEST)),
    (InputError, "got 'seed:'", lambda _: load(OCTAVE, weights="seed:")),
    (InputError, "got 'seed:-1'", lambda _: load(OCTAVE, weights="seed:-1")),
    (InputError, "got 'seed:1.5'", lambda _: load(OCTAVE, weights="seed:1.5")),
    (InputError, "got 'seed:1\\\\n'", lambda _: load(OCTAVE, weights="seed:1\n")),
    (InputError, "got 'seed:", lambda _: load(OCTAVE, weights="seed:\u0661")),
    (InputError, "2\\*\\*64", lambda _: load(OCTAVE, weights=f"seed:{1 << 64}")),
    (InputError, "2\\*\\*64", lambda _: load(OCTAVE, weights="seed:" + "9" * 5000)),
    (InputError, "weights must be .params", lambda _: load(OCTAVE, weights="x.h5")),
    (InputError, "image must be", lambda _: load(OCTAVE, image=(0, 32))),
    (InputError, "image must be", lambda _: load(OCTAVE, image=(1 << 20, 1 << 20))),
    (InputError, "image must be", lambda _: structure(OCTAVE, image=(32,))),  # type: ignore[arg-type]
    *[
        (
            InputError,
            rf"^image must be .*, got {re.escape(repr(image))}$",
            lambda _, x=image: load(OCTAVE, image=x),
        )
        for image in (5, "ab", (None, 1), (32, 32.0), ("32", "32"), b"ab", {32: 32}, (), object)
    ],
    *[
        (
            InputError,
            rf"^weights must be .*, got {re.escape(repr(value))}$",
            lambda _, x=value: load(OCTAVE, weights=x),
        )
        for value in (3, b"x", ("seed:0",), object)
    ],
    *[
        (
            InputError,
            f"^network must be .*, got {value!r}$",
            lambda p, x=value, f=call: f(p / "x.pth", network=x),
        )
        for value in (4, b"x")
        for call in (load, structure)
    ],
    (InputError, "^model must be a name or a path, got b'x'$", lambda _: load(b"x")),  # type: ignore[arg-type]
    (
        InputError,
        "no network is named 'y+[.]{3}.302 characters.[.]{3}y+'.*no such file",
        lambda _: load("y" * 300),
    ),
    (FormatError, "y-symbol.json: found no such file", lambda _: load("y" * 300 + "-symbol.json")),
    (FormatError, "no such file", lambda _: load("\0-symbol.json")),
    (FormatError, "no such file", lambda _: load(OCTAVE, weights="y" * 300 + ".params")),
    (FormatError, "no such file", lambda _: load(OCTAVE, weights="\0.params")),
    (GraphError, "OCTAVE|octave", lambda _: load(OCTAVE, weights="seed:0", image=(36, 36))),
    (InputError, "name the network", lambda p: load(p / "x.pth")),
    (InputError, "name the network", lambda p: structure(p / "x.safetensors")),
    (InputError, "weights file itself", lambda p: load(p / "x.pth", weights="seed:0", network=RESNEST)),
    (FormatError, "x-symbol.json", lambda p: load(p / "x-symbol.json")),
    (FormatError, "x-symbol.json", lambda p: load(p / "x-symbol.json", weights="seed:0")),
    (FormatError, "x.pth", lambda p: load(p / "x.pth", network=RESNEST)),
    (FormatError, "x.safetensors", lambda p: load(RESNEST, weights=p / "x.safetensors")),
    (FormatError, "x.params", lambda p: load(OCTAVE, weights=p / "x.params")),
    (FormatError, "x.tar", lambda p: load(p / "x.tar")),
    (InputError, "x.txt is no", lambda p: load(p / "x.txt")),
]


@pytest.mark.parametrize(("error", "message", "call"), REFUSED, ids=[message for _, message, _ in REFUSED])
def test_refused(
    error: type[RefnetError], message: str, call: Callable[[Path], object], tmp_path: Path
) -> None:
    (tmp_path / "x.txt").write_text("no model")
    with pytest.raises(error, match=message):
        call(tmp_path)


@pytest.mark.parametrize("name", ["octave-se-resnet-50-0.125", "resnest-50-pytorch"])
def test_missing_weights_say_how_to_get_them(name: str, nothing_fetched: Path) -> None:
    with pytest.raises(InputError, match=f"refnet fetch {name}.*seed:0"):
        load(name)


def test_a_file_without_a_checksum_is_not_offered_but_its_address_is(nothing_fetched: Path) -> None:
    address = (
        r"download https://.*/a02_resnet-26_alpha-0\.125\.tar, whose checksum is not published; .*seed:0"
    )
    with pytest.raises(InputError, match=address):
        load("octave-resnet-26-0.125")
    with pytest.raises(InputError, match="no official file is published; weights takes a file"):
        load("resnet-26-baseline")
    with pytest.raises(InputError, match=r"cannot be fetched safely: download https.*alpha-0\.125\.tar into"):
        fetch(entry("octave-resnet-26-0.125"), nothing_fetched)


def test_several_params_are_ambiguous(exported: Path) -> None:
    params = exported.parent / "net-0000.params"
    shutil.copy(params, exported.parent / "a.params")
    params.rename(exported.parent / "b.params")
    with pytest.raises(InputError, match=r"several .*a\.params, b\.params"):
        load(exported, network=OCTAVE)


def test_no_params_beside_a_symbol_file(exported: Path) -> None:
    (exported.parent / "net-0000.params").unlink()
    with pytest.raises(InputError, match=r"no net-0000\.params beside it"):
        load(exported, network=OCTAVE)


def test_weights_that_do_not_fit_name_the_file(exported: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"net-0000\.params: resnest-digits.*\n.*missing: conv1\.0\.weight"
    ):
        load(RESNEST, weights=exported.parent / "net-0000.params")


def test_an_archive_of_another_network_is_refused(tmp_path: Path) -> None:
    options = dict(entry(OCTAVE).options) | {"se": False}
    plain = octave_resnet(**options, image=(1, 32, 32))
    path = archive(tmp_path / "any.tar", plain.with_weights(weights(plain, 0)))
    with pytest.raises(WeightsError, match=f"is not the archive of {OCTAVE}.*\n.*missing: L2_B01_se"):
        load(OCTAVE, weights=path)


def test_a_symbol_file_of_another_network_is_refused(octave: Graph, exported: Path, tmp_path: Path) -> None:
    message = r"net-symbol\.json is not the symbol file of resnest-digits:\n  missing: conv1\.0\.weight"
    for call in (
        lambda: structure(exported, network=RESNEST),
        lambda: load(exported, network=RESNEST),
        lambda: load(exported, network=RESNEST, weights="seed:0"),
    ):
        with pytest.raises(WeightsError, match=message):
            call()
    options = dict(entry(OCTAVE).options) | {"se": False}
    plain = octave_resnet(**options, image=(1, 32, 32))
    symbol, _ = export(plain.with_weights(weights(plain, 0)), tmp_path / OCTAVE)
    with pytest.raises(WeightsError, match=f"is not the symbol file of {OCTAVE}:\n  missing: L2_B01_se"):
        load(symbol)
    wide = octave_resnet(**dict(entry(OCTAVE).options) | {"classes": 11}, image=(1, 32, 32))
    symbol, _ = export(wide.with_weights(weights(wide, 0)), tmp_path / "wide")
    with pytest.raises(WeightsError, match=r"wrong: .*weight is float32\[11, \d+\], not float32\[10, "):
        load(symbol, network=OCTAVE)


def test_networks_are_known_by_name_and_by_file_name() -> None:
    assert network_of(OCTAVE) is network_of(Path("a") / f"{OCTAVE}-symbol.json") is entry(OCTAVE)
    assert network_of(f"{OCTAVE}.tar") is network_of(f"{OCTAVE}.json") is entry(OCTAVE)
    official = entry("resnest-50-pytorch").files[0].name
    assert network_of(f"there/{official}") is entry("resnest-50-pytorch")
    assert network_of("a06_resnet-101_alpha-0.250.tar") is entry("octave-resnet-101-0.25")
    member = "x/a06_resnet-101_alpha-0.250/checkpoint-0-symbol.json"
    assert network_of(member) is entry("octave-resnet-101-0.25")
    assert network_of("y/a06_resnet-101_alpha-0.250-symbol.json") is entry("octave-resnet-101-0.25")
    assert network_of("checkpoint-0-symbol.json") is network_of("a06_resnet-101_alpha-0.250") is None
    assert network_of("net-symbol.json", RESNEST) is network_of(OCTAVE, RESNEST) is entry(RESNEST)
    assert network_of("net-symbol.json") is network_of("") is None
    with pytest.raises(InputError, match="no network is named 'net'"):
        network_of(OCTAVE, "net")
    with pytest.raises(InputError, match="is a file: give it as the MODEL"):
        network_of(OCTAVE, __file__)


def test_a_seeds_weights_do_not_depend_on_the_image_size(tmp_path: Path) -> None:
    """A function of the model and N alone: its values are those at the model's own size."""
    own = load(OCTAVE, weights="seed:7")
    files = [*export(own, tmp_path / "net")[:1], *export(own, tmp_path / "net", "onnx")]
    for name, network in [(OCTAVE, None), *((file, OCTAVE) for file in files)]:
        small = load(name, weights="seed:7", network=network, image=(64, 32))
        assert small.inputs["data"].shape == (1, 1, 64, 32)
        assert small.weights_hash() == load(name, weights="seed:7", network=network).weights_hash()
        if name is not files[-1]:  # a .onnx file's weights are in another order
            assert small.weights_hash() == own.weights_hash()


def test_weights_whose_shapes_the_image_decides_are_made_at_that_size(tmp_path: Path) -> None:
    """A dense layer over a whole map: at 224 pixels, the size of files in no catalog, it is another model."""
    nodes = (Node("flat", Flatten(), ("data",)), Node("fc", Dense(3), ("flat", "fc_weight", "fc_bias")))
    graph = Graph("net", {"data": TensorType((1, 3, 4, 4))}, nodes, {"y": "fc"})
    (tmp_path / "net-symbol.json").write_text(graph_to_symbol(graph))
    small = load(tmp_path / "net-symbol.json", weights="seed:1", image=(4, 4))
    assert small.weights["fc_weight"].shape == (3, 48)
    assert same_bits(small.weights["fc_weight"], weights(graph, 1)["fc_weight"])


def test_numpys_whole_numbers_make_an_image() -> None:
    found = structure(RESNEST, image=tuple(np.array([64, 48])))
    assert str(found) == str(structure(RESNEST, image=(64, 48)))


@pytest.mark.parametrize("folder", ["y" * 300, "~nobody-has-this-name/y"])
def test_a_folder_of_weights_that_cannot_be(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFNET_WEIGHTS", folder)
    with pytest.raises(InputError, match=r"no weights on this machine|REFNET_WEIGHTS is '~nobody"):
        load("resnest-50-pytorch")


def test_export_needs_a_file_name(octave: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for prefix in ("", ".", "..", f"{tmp_path}/", Path("")):
        with pytest.raises(InputError, match="prefix must end in a file name"):
            export(octave, prefix)
    assert list(tmp_path.iterdir()) == []


def test_only_step_counters_may_be_surplus(tmp_path: Path) -> None:
    graph = load(RESNEST, weights="seed:1")
    for name, array in (("bn1.extra", np.array(3)), ("num_batches_tracked", np.ones(1, np.float32))):
        save_file(dict(graph.weights) | {name: array}, tmp_path / "w.safetensors")
        with pytest.raises(WeightsError, match=f"surplus: {name}"):
            load(RESNEST, weights=tmp_path / "w.safetensors")


def test_export_refuses_before_it_writes(octave: Graph, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="to must be one of mxnet, onnx, got 'caffe'"):
        export(octave, tmp_path / "net", "caffe")
    with pytest.raises(WeightsError, match="has no weights to write"):
        export(build(entry(OCTAVE)), tmp_path / "net")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="missing/net-0000"):
        export(octave, tmp_path / "missing" / "net")


def test_structures_of_all_networks_need_no_file(nothing_fetched: Path) -> None:
    for name, found in entries().items():
        assert structure(name).nodes == build(found).nodes


def test_a_weights_file_that_is_named_for_its_structure_is_read(tmp_path: Path) -> None:
    """The graph is the catalog's; but a file that is not there, or holds something else, was named, too."""
    page = tmp_path / "net.pth"
    page.write_bytes(b"<!DOCTYPE html><html></html>")
    for file, said in ((page, "page"), (tmp_path / "none.pth", "no such file")):
        with pytest.raises(RefnetError, match=said):
            structure(file, network="resnest-digits")
