"""The two small networks: their files, their data, and refnet's answers to all test images.

weights/training/README.md records what MXNet and PyTorch answered with the shipped files; here refnet must
give exactly these answers (tests/crosscheck/test_digits_real.py asks the frameworks again).
"""

from __future__ import annotations

import doctest
import hashlib
import importlib.util
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.formats.mxnet.reader import read_params, read_symbol
from refnet.formats.torch.reader import read_state_dict
from refnet.models.catalog import build, entry
from refnet.models.preprocess import pipelines
from tests.helpers.bits import same_bits

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "weights"
NETWORKS = ("octave-se-resnet-digits", "resnest-digits")


def script(name: str) -> ModuleType:
    """A file of weights/training/ as a module; it is no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "weights" / "training" / f"{name}.py")
        assert spec
        assert spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


digits_data = script("digits_data")


@cache
def digits() -> Any:
    """The data set, from scikit-learn."""
    return digits_data.load()


@dataclass(frozen=True)
class Recorded:
    """A row of the README's table of results: what a framework answered."""

    framework: str
    train: int
    test: int
    accuracy: float  # percent of the test images
    wrong: dict[int, int]  # index -> answer, of the test images that are answered wrongly


def rows(pattern: str) -> list[tuple[str, ...]]:
    """The rows of weights/training/README.md's tables whose cells match."""
    return re.findall(
        rf"^\| {pattern} \|$", (ROOT / "weights/training/README.md").read_text("utf-8"), re.MULTILINE
    )


def recorded() -> dict[str, Recorded]:
    """Network -> what its framework answered."""
    pattern = r"`(\S+)` \| (.+?) \| (\d+) of 1437 \| (\d+) of 360 \| (\d+\.\d\d) % \| ((?:\d+:\d ?)+)"
    return {
        name: Recorded(
            framework,
            int(train),
            int(test),
            float(accuracy),
            {int(index): int(answer) for index, answer in re.findall(r"(\d+):(\d)", wrong)},
        )
        for name, framework, train, test, accuracy, wrong in rows(pattern)
    }


@cache
def answers(name: str) -> Any:
    """refnet's answers (the largest `prob`) to all images, training and test, (1797,)."""
    return refnet.run(refnet.load(name), {"data": digits().data})["prob"].argmax(1)


def test_files_are_those_recorded() -> None:
    found = {
        (path.name, str(path.stat().st_size), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in WEIGHTS.iterdir()
        if "-digits" in path.name
    }
    assert found == set(rows(r"`(\S+)` \| (\d+) \| `([0-9a-f]{64})`"))
    assert len(found) == 3
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 4_000_000


def test_results_recorded_are_consistent() -> None:
    assert tuple(recorded()) == NETWORKS
    for row in recorded().values():
        assert row.test == 360 - len(row.wrong)
        assert row.accuracy == round(row.test / 360 * 100, 2) >= 97
        for index, answer in row.wrong.items():
            assert digits().test[index]
            assert digits().label[index] != answer


def test_data_is_as_described() -> None:
    found = digits()
    assert found.pixels.shape == (1797, 8, 8)
    assert set(np.unique(found.pixels)) == {15 * v for v in range(17)}
    assert set(np.unique(found.label)) == set(range(10))
    assert (found.test.sum(), (~found.test).sum()) == (360, 1437)
    assert same_bits(found.data, digits_data.tensors(found.pixels))
    v = found.pixels[7, 2, 3] // 15
    exact = np.float32(float(v) / 4 - 2)  # (15 v - 120) / 60, a multiple of a quarter
    assert same_bits(found.data[7, 0, 8:12, 12:16], np.full((4, 4), exact))


def test_examples_of_the_data_script() -> None:
    failed, attempted = doctest.testmod(digits_data)
    assert failed == 0
    assert attempted >= 10


def test_data_written_and_read_back(tmp_path: Path) -> None:
    digits_data.write_npz(tmp_path / "digits.npz", digits())
    digits_data.write_png(tmp_path / "png", digits())
    back = digits_data.read_npz(tmp_path / "digits.npz")
    assert same_bits(back.data, digits().data)
    assert (back.pixels == digits().pixels).all()
    assert (back.label == digits().label).all()
    shipped = {path.name for path in (WEIGHTS / "digits").iterdir()}
    assert {path.name for path in (tmp_path / "png").iterdir()} == shipped
    assert {path.name for path in tmp_path.iterdir()} == {"digits.npz", "png"}


def test_augmentation_moves_and_fills_with_black() -> None:
    data = digits().data[:3]
    moved = digits_data.shifted(data, np.array([[0, 0], [2, -3], [-1, 1]]), 3)
    assert same_bits(moved[0], data[0])
    assert same_bits(moved[1, 0, 2:, :-3], data[1, 0, :-2, 3:])
    assert same_bits(moved[2, 0, :-1, 1:], data[2, 0, 1:, :-1])
    assert (moved[1, 0, :2] == -2).all()
    assert (moved[1, 0, :, -3:] == -2).all()


def test_symbol_saved_by_mxnet_is_the_builders_graph() -> None:
    name = NETWORKS[0]
    ours, saved = build(entry(name)), read_symbol(WEIGHTS / f"{name}-symbol.json", image=(1, 32, 32))
    assert saved.nodes == ours.nodes
    assert (saved.inputs, saved.outputs) == (ours.inputs, ours.outputs)


def test_loaded_weights_are_those_in_the_files() -> None:
    octave, resnest = (refnet.load(name).weights for name in NETWORKS)
    params = read_params(WEIGHTS / f"{NETWORKS[0]}-0000.params")
    state = read_state_dict(WEIGHTS / f"{NETWORKS[1]}.pth")
    counters = {name for name in state if name.endswith(".num_batches_tracked")}
    assert set(octave) == set(params)
    assert set(resnest) == set(state) - counters
    assert all(same_bits(octave[name], params[name]) for name in octave)
    assert all(same_bits(resnest[name], state[name]) for name in resnest)


@pytest.mark.parametrize("name", NETWORKS)
def test_answers_are_the_frameworks(name: str) -> None:
    row, found = recorded()[name], digits()
    right = answers(name) == found.label
    assert right[~found.test].sum() == row.train
    assert right[found.test].sum() == row.test
    wrong = np.flatnonzero(found.test & ~right)
    assert {int(i): int(answers(name)[i]) for i in wrong} == row.wrong


def test_samples_are_ten_test_images_of_all_classes() -> None:
    chosen = digits_data.samples(digits())
    assert {path.name for path in (WEIGHTS / "digits").iterdir()} == set(chosen)
    assert sorted(digits().label[list(chosen.values())]) == list(range(10))
    assert all(digits().test[index] for index in chosen.values())


@pytest.mark.parametrize("path", sorted((WEIGHTS / "digits").iterdir()), ids=lambda path: path.stem)
def test_sample_through_the_pipeline_and_the_networks(path: Path) -> None:
    from PIL import Image

    index, label = (int(part) for part in path.stem.split("-label-"))
    assert digits().label[index] == label
    with Image.open(path) as image:
        assert (image.mode, image.size) == ("L", (8, 8))
        assert (np.asarray(image) == digits().pixels[index]).all()
    for name in NETWORKS:
        x = pipelines()[entry(name).pipeline].apply(path)
        assert same_bits(x, digits().data[index : index + 1])
        answer = refnet.run(refnet.load(name), {"data": x})["prob"].argmax()
        assert answer == recorded()[name].wrong.get(index, label)
