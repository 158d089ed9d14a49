"""Resizes against two real OpenCVs, and whole pipelines against what the official scorers give a network."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refnet.frameworks.process import Worker
from refnet.models.opencv import cubic, linear
from refnet.models.preprocess import pipeline
from tests.crosscheck import extras
from tests.crosscheck.conftest import interpreter
from tests.helpers.bits import same_bits
from tests.models.test_preprocess import WIDE, numbered

pytestmark = pytest.mark.crosscheck

SIZES = [(300, 400), (97, 131), (500, 375), (33, 20), (801, 600), (256, 301), (7, 3), (1, 1), (375, 500)]

PROGRAM = """
import json, sys
import cv2, numpy
cv2.ipp.setUseIPP(sys.argv[3] == "linear")  # which has the same bits with it; cubic has not
given = numpy.load(sys.argv[1])
method = {"cubic": cv2.INTER_CUBIC, "linear": cv2.INTER_LINEAR}[sys.argv[3]]
out = {k: cv2.resize(given[k], tuple(given["size" + k]), interpolation=method)
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
        "opencv-python-headless", PROGRAM, str(tmp_path / "given.npz"), str(tmp_path / "out.npz"), "cubic"
    )
    found = np.load(tmp_path / "out.npz")
    for i, size in enumerate(SIZES):
        mine = cubic(given[str(i)], resized(*size), order="backward")
        assert np.array_equal(full_lines(mine), full_lines(found[str(i)])), size
    report.append(f"{len(SIZES)} images bit-equal to OpenCV {version} without IPP")


def test_cubic_is_that_of_mxnets_opencv(images: Worker, report: list[str]) -> None:
    for size in SIZES:
        image = numbered(*size)
        answer = images.ask("resize", {"size": resized(*size), "interp": 2}, {"image": image})
        mine = cubic(image, resized(*size), order="forward")
        assert np.array_equal(full_lines(mine), full_lines(answer.arrays["image"])), size
    report.append(f"{len(SIZES)} images bit-equal to the OpenCV inside MXNet")


def shapes() -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """(height, width) and the (width, height) it is resized to: as for a network, and 120 odd ones."""
    chance = random.Random(15)
    sides = [1, 2, 3, *range(4, 200)]
    odd = [
        ((chance.choice(sides), chance.choice(sides)), (chance.choice(sides), chance.choice(sides)))
        for _ in range(80)
    ]
    thin = [((1, chance.choice(sides)), (chance.choice(sides), chance.choice(sides))) for _ in range(20)]
    halves = [((2 * h, 2 * w), (w, h)) for h, w in ((1, 1), (5, 7), (64, 33), (256, 350))]
    narrow = [((w, h), size) for (h, w), size in thin]
    return [(size, resized(*size)) for size in SIZES] + odd + thin + narrow + halves + [((256, 1), WIDE[0])]


def test_linear_is_that_of_opencv(tmp_path: Path, report: list[str]) -> None:
    cases = [(channels, *shape) for channels in (1, 3) for shape in shapes()]
    images = [np.ascontiguousarray(numbered(*size)[:, :, :channels]) for channels, size, _ in cases]
    given = {str(i): image for i, image in enumerate(images)}
    sizes = {f"size{i}": np.array(wanted) for i, (_, _, wanted) in enumerate(cases)}
    np.savez(tmp_path / "given.npz", **given, **sizes)
    files = [str(tmp_path / "given.npz"), str(tmp_path / "out.npz")]
    version = extras.ask("opencv-python-headless", PROGRAM, *files, "linear")
    found = np.load(files[1])
    for i, (case, image) in enumerate(zip(cases, images, strict=True)):
        mine = linear(image, case[2])
        assert np.array_equal(mine, found[str(i)].reshape(mine.shape)), case
    report.append(f"{len(cases)} bilinear resizes bit-equal to OpenCV {version}")


def test_linear_is_that_of_mxnets_opencv(images: Worker, report: list[str]) -> None:
    for size, wanted in shapes():
        image = numbered(*size)
        answer = images.ask("resize", {"size": wanted, "interp": 1}, {"image": image})
        assert np.array_equal(linear(image, wanted), answer.arrays["image"]), (size, wanted)
    report.append(f"{len(shapes())} bilinear resizes bit-equal to the OpenCV inside MXNet")


def scored(images: Worker, name: str, files: list[Path]) -> list[np.ndarray]:
    """The tensors that the scorer of this pipeline makes of the files."""
    request = {"pipeline": name, "files": [str(file) for file in files]}
    found = dict(images.stream("folder" if name == "octave-gluon-folder" else "score", request))
    assert sorted(found, key=int) == [str(i) for i in range(len(files))]
    return [found[str(i)] for i in range(len(files))]


MXNET = ("octave-scorer", "octave-gluon-record", "octave-gluon-folder")


@pytest.mark.parametrize("name", MXNET)
def test_a_pipeline_is_the_official_scorers_input(
    name: str, images: Worker, tmp_path: Path, report: list[str]
) -> None:
    files = []
    values = np.arange(224 * 224 * 3) // 3 % 256  # every value in every channel, unresized
    given = [numbered(*size) for size in (*SIZES, (343, 256), (257, 401))]
    given.append(np.pad(values.reshape(224, 224, 3), ((16, 16), (16, 16), (0, 0))).astype(np.uint8))
    for i, pixels in enumerate(given):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels).save(files[-1])
    files.append(tmp_path / "grey.png")
    Image.fromarray(numbered(301, 277)[:, :, 0]).save(files[-1])
    for file, found in zip(files, scored(images, name, files), strict=True):
        assert same_bits(pipeline(name).apply(file), found), file.name
    report.append(f"{name}: {len(files)} tensors bit-equal to MXNet's")


def photographs(folder: Path) -> dict[str, Path]:
    """JPEG files of one smooth picture with noise, by how they are encoded."""
    coarse = Image.fromarray(numbered(9, 12)).resize((500, 375), Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse).astype(int) + numbered(375, 500) % 16 - 8
    image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    options: dict[str, dict[str, object]] = {
        "4:4:4": {"subsampling": 0},
        "4:2:2": {"subsampling": 1},
        "4:2:0": {"subsampling": 2},
        "progressive": {"progressive": True},
        "turned": {"exif": exif},
    }
    files = {kind: folder / f"{i}.jpg" for i, kind in enumerate([*options, "grey", "CMYK"])}
    for kind, option in options.items():
        image.save(files[kind], quality=90, **option)
    image.convert("L").save(files["grey"], quality=90)
    image.convert("CMYK").save(files["CMYK"], quality=90)
    return files


@pytest.mark.parametrize("name", MXNET)
def test_jpeg_files_decode_alike_but_for_cmyk(
    name: str, images: Worker, tmp_path: Path, report: list[str]
) -> None:
    """MXNet 1.9.1 and Pillow both have libjpeg-turbo; they make RGB of CMYK by different formulas."""
    files = photographs(tmp_path)
    tensors = zip(files.items(), scored(images, name, list(files.values())), strict=True)
    different = {kind: differing(pipeline(name).apply(file), found) for (kind, file), found in tensors}
    assert {kind for kind, count in different.items() if count} == {"CMYK"}
    report.append(f"{name}: JPEG bit-equal, of CMYK {different['CMYK']} of {3 * 224 * 224} values differ")


def differing(a: np.ndarray, b: np.ndarray) -> int:
    return int((a.view(np.uint32) != b.view(np.uint32)).sum())
