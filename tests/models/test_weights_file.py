"""Weights files for a graph: prefixes, keys, shards, structure files, and what is said of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from refnet.cli import main
from refnet.core.errors import InputError, WeightsError
from refnet.core.graph import Graph
from refnet.formats.golden_file import Sources
from refnet.formats.mxnet.reader import write_params, write_symbol
from refnet.formats.mxnet.symbol import parse_symbol
from refnet.models.inputs import located, portable
from refnet.models.loading import load
from refnet.models.weights_file import WeightsSource, absolute_source, source_of
from tests.helpers import attacks
from tests.helpers.attacks import node, symbol, variable
from tests.helpers.bits import floats, same_bits

NAME = "resnest-digits"


def checkpoint(path: Path, states: Mapping[str, Mapping[str, np.ndarray]]) -> Path:
    """A .pth of several state dicts by key, beside other things; the key "" is the file itself."""
    raw: list[bytes] = []
    entries: dict[str, bytes] = {}
    for key, arrays in states.items():
        tensors = {}
        for name, array in arrays.items():
            kind = attacks.STORAGE[str(array.dtype)]
            tensors[name] = attacks.tensor(kind, str(len(raw)), array.size, array.shape)
            raw.append(array.tobytes())
        entries[key] = attacks.state_dict(tensors)[2:-1]
    body = entries[""] if "" in entries else attacks.dict_of({"epoch": attacks.number(3), **entries})
    path.write_bytes(attacks.pth_zip(b"\x80\x02" + body + b".", raw))
    return path


def prefixed(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {prefix + name: array for name, array in arrays.items()}


def same(a: Graph, b: Graph) -> bool:
    return a.weights_hash() == b.weights_hash()


@pytest.fixture(scope="module")
def seeded() -> list[Graph]:
    return [load(NAME, weights=f"seed:{n}") for n in (1, 2)]


@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".ckpt", ".bin", ".pth.tar"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "backbone.", "module.model.", "model._orig_mod."]
)
def test_a_prefix_that_all_names_share_is_taken_off_and_named(prefix, ending, seeded, tmp_path, caplog):
    path = tmp_path / f"net{ending}"
    arrays = prefixed({**seeded[0].weights, "bn1.num_batches_tracked": np.array(3)}, prefix)
    if prefix == "module.":
        arrays["n_averaged"] = np.array(5)  # torch.optim.swa_utils.AveragedModel's
    if ending == ".safetensors":
        save_file(arrays, path)
    else:
        checkpoint(path, {"": arrays})
    assert same(load(NAME, weights=path), seeded[0])
    assert same(load(path, network=NAME), seeded[0])
    assert [r.message for r in caplog.records] == [
        f"{path}: took the prefix {prefix!r} off all names"
    ] * 2 * bool(prefix)


def test_names_that_fit_keep_their_prefix_and_unlike_ones_stay(seeded, tmp_path):
    arrays = dict(seeded[0].weights)
    first = next(iter(arrays))
    for wrong in (
        {**prefixed(arrays, "module."), "head.w": arrays[first]},
        {**prefixed(arrays, "module."), first: arrays[first]},
    ):
        save_file(wrong, tmp_path / "net.safetensors")
        with pytest.raises(WeightsError, match=r"net\.safetensors: resnest-digits: weights do not fit"):
            load(NAME, weights=tmp_path / "net.safetensors")


def test_the_weights_are_taken_and_the_average_is_said(seeded, tmp_path, caplog):
    states = {"state_dict_ema": dict(seeded[1].weights), "state_dict": prefixed(seeded[0].weights, "module.")}
    path = checkpoint(tmp_path / "net.pth", states)
    assert same(load(NAME, weights=path), seeded[0])
    assert [r.getMessage() for r in caplog.records] == [
        f"{path}: took the weights under 'state_dict'; left others under 'state_dict_ema' (--key takes one "
        "of them); took the prefix 'module.' off all names"
    ]
    assert same(load(NAME, weights=f"{path}?key=state_dict_ema"), seeded[1])
    assert same(load(f"{path}?key=state_dict_ema", network=NAME), seeded[1])


def test_the_command_line_takes_a_key_and_says_what_it_took(seeded, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = checkpoint(
        tmp_path / "net.pth", {"model": dict(seeded[0].weights), "ema": dict(seeded[1].weights)}
    )
    logger = logging.getLogger("refnet")
    before = list(logger.handlers)
    found = {}
    named, its_own = [NAME, "--weights", "net.pth"], ["net.pth", "--model", NAME]
    for key, ways in (("", [its_own]), ("model", [named]), ("ema", [named, its_own])):
        for argv in ways:
            chosen = ["--key", key] if key else []
            golden = [
                "golden",
                *argv,
                *chosen,
                "--input",
                "seed:0",
                "-o",
                f"{key}.json",
            ]
            assert main(golden) == 0, capsys.readouterr().err
            out = capsys.readouterr()
            took, left = ("ema", "model") if key == "ema" else ("model", "ema")
            assert f"refnet: net.pth: took the weights under '{took}'; left others under '{left}'" in out.err
            assert out.err.count("took") == 1
            file = json.loads((tmp_path / f"{key}.json").read_text())
            found[key] = file["weights"]
            assert file["weights"] == seeded[took == "ema"].weights_hash()
    assert found[""] == found["model"] != found["ema"]
    assert main(["golden", "--check", "ema.json"]) == 0, capsys.readouterr().err
    assert logger.handlers == before
    assert main(["run", NAME, "--key", "ema"]) == 2
    assert "--key ema is about a weights file: name it with --weights FILE" in capsys.readouterr().err
    assert main(["run", NAME, "--weights", "net.pth", "--key", "best"]) == 2
    assert "no weights under the key 'best': it has under 'model', 'ema'" in capsys.readouterr().err
    assert path.exists()


def test_a_shard_and_an_index(seeded, tmp_path):
    arrays = dict(seeded[0].weights)
    names = sorted(arrays)
    parts = {"m-00001-of-00002.safetensors": names[:50], "m-00002-of-00002.safetensors": names[50:]}
    for shard, own in parts.items():
        save_file({name: arrays[name] for name in own}, tmp_path / shard)
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {n: shard for shard, own in parts.items() for n in own}}))
    assert same(load(NAME, weights=index), seeded[0])
    assert same(load(index, network=NAME), seeded[0])
    with pytest.raises(InputError, match="name the network"):
        load(index)
    with pytest.raises(WeightsError, match=r"one shard of several: give its \.index\.json"):
        load(NAME, weights=tmp_path / "m-00001-of-00002.safetensors")


def test_a_text_names_file_key_and_structure(tmp_path):
    for source in (
        WeightsSource("net.pth"),
        WeightsSource("a?b/net.pth", "model.ema"),
        WeightsSource("net.params", structure="/a b/s?&=.json"),
        WeightsSource("net.pth", "a=b&c", "s.json"),
    ):
        assert source_of(source.text) == source
    assert source_of("net.pth?weights=1") == WeightsSource("net.pth?weights=1")
    (tmp_path / "net?key=a").write_bytes(b"")
    assert source_of(tmp_path / "net?key=a").key is None
    said = Sources("/m/net.pth?key=ema", "/w/a.params?structure=%2Fs%2Fs.json", "seed:0")
    assert portable(said).model == "net.pth?key=ema"
    assert portable(said).weights == "a.params?structure=s.json"
    for name in ("net.pth", "a.params", "s.json"):
        (tmp_path / name).write_bytes(b"")
    found = located(portable(said), tmp_path)
    assert source_of(found.model) == WeightsSource(str(tmp_path / "net.pth"), "ema")
    assert source_of(found.weights or "").structure == str(tmp_path / "s.json")
    assert absolute_source(found.model) == found.model


# Gluon's structural names

EQUAL = {"kernel": (3, 3), "pad": (1, 1), "num_filter": 3, "no_bias": True}


def two_convolutions(first: str, second: str) -> Graph:
    """Two convolutions of equal shape, in the order in which they run."""
    nodes = [
        variable("data"),
        variable(f"{first}_weight"),
        node("Convolution", f"{first}_fwd", [0, 1], **EQUAL),
    ]
    nodes += [variable(f"{second}_weight"), node("Convolution", f"{second}_fwd", [2, 3], **EQUAL)]
    return parse_symbol(symbol(nodes), "net-symbol.json", "net", (3, 8, 8))


@pytest.fixture
def gluon(tmp_path: Path) -> dict[str, np.ndarray]:
    """net-symbol.json and net-0000.params of a block whose `last` is registered first, and runs last."""
    graph = two_convolutions("net0_conv1", "net0_conv0")
    write_symbol(tmp_path / "net-symbol.json", graph)
    arrays = {name: floats((3, 3, 3, 3), name) for name in ("last.weight", "first.weight")}
    (tmp_path / "net-0000.params").write_bytes(attacks.params_file(arrays))
    return arrays


def test_equal_convolutions_registered_in_another_order_than_they_run(gluon, tmp_path, capsys):
    """They were matched by order, and silently swapped."""
    model, params, structure = (
        str(tmp_path / f"net{x}") for x in ("-symbol.json", "-0000.params", "-s.json")
    )
    with pytest.raises(WeightsError, match=r"net-0000\.params: .*'last\.weight'.*\(--structure FILE\)"):
        load(model)
    assert main(["export", model, "--to", "mxnet", "-o", str(tmp_path / "out")]) == 2
    assert "--structure FILE" in capsys.readouterr().err
    right = {"last.weight": "net0_conv0_weight", "first.weight": "net0_conv1_weight"}
    for said in (right, {name: {"name": new, "shape": [3, 3, 3, 3]} for name, new in right.items()}):
        Path(structure).write_text(json.dumps(said))
        options = ["--weights", params, "--structure", structure]
        assert main(["export", model, *options, "--to", "mxnet", "-o", str(tmp_path / "out")]) == 0
        written = load(tmp_path / "out-symbol.json").weights
        assert all(same_bits(written[new], gluon[name]) for name, new in right.items())
        assert all(
            same_bits(load(model, weights=f"{params}?structure={structure}").weights[new], gluon[name])
            for name, new in right.items()
        )
    (tmp_path / "net-structure.json").write_text(json.dumps(right))
    assert same_bits(load(model).weights["net0_conv0_weight"], gluon["last.weight"])
    Path(structure).write_bytes(Path(model).read_bytes())
    assert main(["run", model, "--weights", params, "--structure", structure]) == 2
    assert "a symbol file, which has no structural names" in capsys.readouterr().err
    assert main(["run", NAME, "--weights", str(tmp_path / "x.pth"), "--structure", structure]) == 2


def test_a_structure_for_other_names_is_refused(seeded, tmp_path):
    graph = seeded[0]
    write_params(tmp_path / "a.params", dict(graph.weights), graph.statistics())
    with pytest.raises(InputError, match="its names are no structural names: leave the structure out"):
        load(NAME, weights=f"{tmp_path / 'a.params'}?structure=s.json")
    save_file(dict(graph.weights), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"only \.params have structural names"):
        load(NAME, weights=f"{tmp_path / 'a.safetensors'}?structure=s.json")
    with pytest.raises(InputError, match="have keys"):
        load(NAME, weights=f"{tmp_path / 'a.safetensors'}?key=ema")
