"""Transposed convolutions, other ranks than two, interpolation and rearrangement, in PyTorch live."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.cli import main
from tests.crosscheck.conftest import interpreter
from tests.helpers.bits import floats

pytestmark = pytest.mark.crosscheck

ROOT = Path(__file__).parents[2]
SHAPES = {"Line": (1, 3, 37), "Volume": (1, 2, 6, 8, 7)}
KINDS = {
    "Unet": {"ConvTranspose", "Conv"},
    "Bilinear": {"ResizeLinear", "ConvTranspose"},
    "Aligned": {"ResizeLinear"},
    "Bicubic": {"ResizeCubic"},
    "Odd": {"ResizeLinear", "ResizeCubic"},
    "Shuffled": {"DepthToSpace"},
    "Line": {"ConvNd", "ConvTranspose", "MaxPoolNd", "AvgPoolNd", "Gather"},
    "Volume": {"ConvNd", "ConvTranspose", "MaxPoolNd", "AvgPoolNd", "ResizeLinear"},
    "Places": {"StridedSlice", "Gather", "Expand", "Tile", "Pad"},
}
"""Module -> ops that its graph must have."""


def capture(folder: Path, name: str, tmp_path: Path) -> None:
    data = floats(SHAPES.get(name, (1, 3, 16, 12)), name)
    np.save(tmp_path / "x.npy", data)
    words = ["capture", "torch", f"tests.crosscheck.spatial_modules:{name}", "--path", str(ROOT)]
    words += ["--input", f"x={tmp_path / 'x.npy'}", "--python", str(interpreter("torch"))]
    assert main([*words, "-o", str(folder)]) == 0


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_module_of_torch_is_judged_at_every_value(name, tmp_path, capsys, report):
    capture(tmp_path / "c", name, tmp_path)
    found = refnet.verify(tmp_path / "c")
    assert (found.counts["defect"], found.counts["unjudged"], found.unmatched) == (0, 0, ())
    assert KINDS[name] <= {one.kind for one in found.nodes}
    report.append(f"{name}: {dict(found.counts)}")
    capsys.readouterr()
