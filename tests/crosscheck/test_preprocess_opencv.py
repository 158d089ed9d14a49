"""The cubic resize against two real OpenCVs, and a whole pipeline against the official scorer's input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refnet.frameworks.process import Worker
from refnet.models.preprocess import cubic, pipeline
from tests.crosscheck import extras
from tests.crosscheck.conftest import interpreter
from tests.helpers.bits import same_bits
from tests.models.test_preprocess import numbered

pytestmark = pytest.mark.crosscheck

SIZES = [(300, 400), (97, 131), (500, 375), (33, 20), (801, 600), (256, 301), (7, 3), (1, 1), (375, 500)]

PROGRAM = """
import json, sys
import cv2, numpy
cv2.ipp.setUseIPP(False)
given = numpy.load(sys.argv[1])
out = {k: cv2.resize(given[k], tuple(given["size" + k]), interpolation=cv2.INTER_CUBIC)
       for k in given.files if not k.startswith("size")}
numpy.savez(sys.argv[2], **out)
print(json.dumps(cv2.__version__))
"""


@pytest.fixture(scope="module")
def images() -> Iterator[Worker]:
    with Worker(Path(__file__).parent / "image_worker.py", interpreter("mxnet"), threads=1) as worker:
        yield worker


def resized(height: int, width: int) -> tuple[int, int]:
    return (256, 256 * height // width) if height > width else (256 * width // height, 256)


def full_lines(array: np.ndarray) -> np.ndarray:
    """Without the last w * c % 8 values of each row, which OpenCV computes in another way."""
    lines = array.reshape(len(array), -1)
    return lines[:, : lines.shape[1] // 8 * 8]


def test_cubic_is_that_of_opencv(tmp_path: Path, report: list[str]) -> None:
    given = {str(i): numbered(*size) for i, size in enumerate(SIZES)}
    sizes = {f"size{i}": np.array(resized(*size)) for i, size in enumerate(SIZES)}
    np.savez(tmp_path / "given.npz", **given, **sizes)
    version = extras.ask(
        "opencv-python-headless", PROGRAM, str(tmp_path / "given.npz"), str(tmp_path / "out.npz")
    )
    found = np.load(tmp_path / "out.npz")
    for i, size in enumerate(SIZES):
        mine = cubic(given[str(i)], resized(*size), order="backward")
        assert np.array_equal(full_lines(mine), full_lines(found[str(i)])), size
    report.append(f"{len(SIZES)} images bit-equal to OpenCV {version} without IPP")


def test_cubic_is_that_of_mxnets_opencv(images: Worker, report: list[str]) -> None:
    for size in SIZES:
        image = numbered(*size)
        answer = images.ask("resize", {"size": resized(*size)}, {"image": image})
        mine = cubic(image, resized(*size), order="forward")
        assert np.array_equal(full_lines(mine), full_lines(answer.arrays["image"])), size
    report.append(f"{len(SIZES)} images bit-equal to the OpenCV inside MXNet")


def test_octave_scorer_is_the_official_scorers_input(
    images: Worker, tmp_path: Path, report: list[str]
) -> None:
    files = []
    for i, size in enumerate(SIZES):
        files.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(numbered(*size)).save(files[-1])
    found = dict(images.stream("score", {"files": files}))
    assert sorted(found) == [str(i) for i in range(len(files))]
    for i, file in enumerate(files):
        assert same_bits(pipeline("octave-scorer").apply(file), found[str(i)]), SIZES[i]
    report.append(f"{len(files)} tensors bit-equal to MXNet's ImageRecordIter")
