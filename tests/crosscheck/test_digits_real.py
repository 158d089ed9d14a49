"""The two small networks in the frameworks that trained them: the same answers as refnet, image by image."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

import refnet
from tests.crosscheck.conftest import interpreter
from tests.models.test_digits import NETWORKS, ROOT, WEIGHTS, digits, digits_data, recorded

pytestmark = pytest.mark.crosscheck

MXNET, TORCH = NETWORKS


def ask(framework: str, weights: Path, folder: Path) -> tuple[np.ndarray, str]:
    """What the framework's own training script says of all images: its values (1797, 10), its score."""
    digits_data.write_npz(folder / "digits.npz", digits())
    command: list[Path | str] = [
        interpreter(framework),
        ROOT / f"weights/training/digits_{framework}.py",
        "evaluate",
    ]
    run = subprocess.run(
        [*command, folder / "digits.npz", weights, folder / "values.npy"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return np.load(folder / "values.npy"), run.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "framework", "weights", "output"),
    [(MXNET, "mxnet", WEIGHTS / MXNET, "prob"), (TORCH, "torch", WEIGHTS / f"{TORCH}.pth", "logits")],
)
def test_same_answers_as_the_framework(
    name: str, framework: str, weights: Path, output: str, tmp_path: Path, report: list[str]
) -> None:
    theirs, score = ask(framework, weights, tmp_path)
    ours = refnet.run(refnet.load(name), {"data": digits().data})
    assert theirs.shape == (1797, 10)
    assert theirs.dtype == np.float32
    assert (ours[output].argmax(1) == theirs.argmax(1)).all()
    assert (ours["prob"].argmax(1) == theirs.argmax(1)).all()
    assert digits_data.score(digits(), ours["prob"]) == score
    row = recorded()[name]
    wrong = " ".join(f"{index}:{answer}" for index, answer in row.wrong.items())
    assert score == f"train {row.train} of 1437, test {row.test} of 360, wrong {wrong}"
    report.append(f"{name}: {score}; refnet the same on all 1797 images")
