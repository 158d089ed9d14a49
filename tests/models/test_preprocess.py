"""Image files to input tensors: every sentence of docs/preprocessing.md, and hostile files."""

from __future__ import annotations

import hashlib
import io
import math
import os
import random
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from refnet.core.errors import FormatError, InputError, RefnetError, UnsupportedError
from refnet.models.image_file import FORMATS, MAX_PIXELS, MAX_SIDE
from refnet.models.opencv import cubic, linear
from refnet.models.preprocess import MAX_RESIZED, pipeline, pipelines
from tests.helpers.bits import same_bits

OCTAVE = ("octave-scorer", "octave-accuracy-checker", "octave-conversion")


def numbered(height: int, width: int) -> np.ndarray:
    """An image (h, w, 3) of well-mixed bytes, by a formula."""
    i = np.arange(height * width * 3, dtype=np.uint64)
    mixed = (i * i * np.uint64(2654435761) + i * np.uint64(40503)) >> np.uint64(13)
    return mixed.astype(np.uint8).reshape(height, width, 3)


def digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()[:16]


def ramp(channels: int) -> np.ndarray:
    """All 256 pixel values in every channel: (256, 1, c)."""
    return np.arange(256, dtype=np.uint8).repeat(channels).reshape(256, 1, channels)


def differing(a: np.ndarray, b: np.ndarray) -> list[int]:
    return (a.view(np.uint32) != b.view(np.uint32)).sum(axis=(0, 2, 3)).tolist()


# Normalisation


def test_the_three_octave_scalings_differ_in_bits() -> None:
    scorer, checker, conversion = (pipeline(name).normalise(ramp(3)) for name in OCTAVE)
    assert differing(scorer, checker) == [255, 255, 255]
    assert differing(scorer, conversion) == [28, 29, 28]
    assert differing(checker, conversion) == [255, 255, 255]


def test_what_the_other_form_of_gluons_arithmetic_would_give() -> None:
    record, folder = (pipeline(f"octave-gluon-{form}") for form in ("record", "folder"))
    divided = replace(record, operation="divide").normalise(ramp(3))
    assert differing(record.normalise(ramp(3)), divided) == [50, 92, 73]
    mean, scale = np.array(folder.mean, np.float32), np.array(folder.scale, np.float32)
    times = ((ramp(3) * np.float32(1 / 255) - mean) / scale).transpose(2, 0, 1)[np.newaxis].copy()
    assert (ramp(1) / np.float32(255) != ramp(1) * np.float32(1 / 255)).sum() == 126
    assert differing(folder.normalise(ramp(3)), times) == [110, 105, 107]


def test_what_other_constant_types_would_give() -> None:
    scorer, checker, _ = (pipeline(name).normalise(ramp(3)) for name in OCTAVE)
    x = ramp(3).transpose(2, 0, 1)[np.newaxis].astype(np.float64) - np.array([124, 117, 104])[:, None, None]
    assert same_bits(checker, (x / 59.88).astype(np.float32))
    each_rounded = replace(pipeline("octave-accuracy-checker"), operation="divide").normalise(ramp(3))
    assert differing(checker, each_rounded) == [48, 50, 49]
    reciprocal = x.astype(np.float32) * np.float32(1 / 59.880239521)
    assert same_bits(reciprocal, scorer)
    assert np.float32(1 / 59.880239521) == np.float32(0.0167)


def f32(x: Fraction) -> Fraction:
    """Rounded to float32: through float64, which is innocuous for one operation on float32 numbers."""
    return Fraction(float(np.float32(float(x))))


ARITHMETIC: dict[str, Callable[[int, Fraction, Fraction], float]] = {
    "multiply": lambda p, m, s: float(f32(p - f32(m)) * f32(s)),
    "divide": lambda p, m, s: float(f32(p - f32(m)) / f32(s)),
    "multiply by the reciprocal": lambda p, m, s: float(f32(p - f32(m)) * f32(1 / f32(s))),
    "divide by 255 first": lambda p, m, s: float(f32(f32(Fraction(p, 255)) - f32(m)) / f32(s)),
    "divide in float64": lambda p, m, s: (p - float(m)) / float(s),
}
"""Each arithmetic on one pixel by rational numbers, rounded as documented; the caller rounds the result."""


@pytest.mark.parametrize("name", pipelines())
def test_normalise_is_its_arithmetic_on_one_number(name: str) -> None:
    one = pipeline(name)
    found = one.normalise(ramp(one.shape[0]))
    assert found.shape == (1, one.shape[0], 256, 1)
    assert found.flags.c_contiguous
    for c in range(one.shape[0]):
        channel = 2 - c if one.order == "BGR" else c
        for p in range(256):
            x = ARITHMETIC[one.operation](p, Fraction(one.mean[channel]), Fraction(one.scale[channel]))
            assert found[0, c, p, 0].view(np.uint32) == np.float32(x).view(np.uint32), p


def test_constants_are_the_published_ones() -> None:
    facts = {p.name: (set(p.mean), set(p.scale), p.operation) for p in pipelines().values()}
    octave = {124.0, 117.0, 104.0}
    assert facts["octave-scorer"] == (octave, {0.0167}, "multiply")
    assert facts["octave-accuracy-checker"] == (octave, {59.88}, "divide in float64")
    assert facts["octave-conversion"] == (octave, {59.880239521}, "divide")
    record, folder = (pipeline(f"octave-gluon-{form}") for form in ("record", "folder"))
    assert (record.mean, record.scale) == ((123.68, 116.779, 103.939), (58.393, 57.12, 57.375))
    assert (folder.mean, folder.scale) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert pipeline("resnest").mean == (123.675, 116.28, 103.53)
    assert pipeline("resnest").scale == (58.395, 57.12, 57.375)
    assert facts["digits"] == ({120.0}, {60.0}, "divide")
    for one in pipelines().values():
        assert one.source
        assert one.description
        for number in (*one.mean, *one.scale):
            assert f"{number:.15g}" in one.description


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 2, 1), np.uint8),
        np.zeros((2, 2), np.uint8),
        np.zeros((2, 2, 3)),
        np.zeros((0, 2, 3), "u1"),
    ],
)
def test_normalise_refuses_other_arrays(pixels: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"resnest: pixels must be uint8 \(h, w, 3\)"):
        pipeline("resnest").normalise(pixels)


def test_unknown_pipeline_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"'octave' is not known.*octave-scorer.*digits"):
        pipeline("octave")


# Geometry


OPENCV = {
    # (height, width): sha256 of the 224 x 224 pixels by OpenCV 3.4.2 (in MXNet 1.9.1), by 5.0.0 without IPP
    (300, 400): ("e2a78239bf93fbee", "e2a78239bf93fbee"),
    (97, 131): ("48e455c20a0a8e96", "5bddca9e4be936d5"),
    (500, 375): ("f15a7e1536dd62cd", "f15a7e1536dd62cd"),
    (33, 20): ("48a58d8dd2d874a0", "79a16e4338d6a02f"),
    (801, 600): ("74e2aaa46c529775", "a41cda427410abc9"),
    (3, 2): ("7072cba76ede9ee0", "860303c3de0d4e9a"),
}


@pytest.mark.parametrize("size", OPENCV)
def test_octave_pixels_are_those_of_opencv(size: tuple[int, int]) -> None:
    image = Image.fromarray(numbered(*size))
    forward, backward = OPENCV[size]
    assert digest(pipeline("octave-scorer").pixels(image)) == forward
    assert digest(pipeline("octave-accuracy-checker").pixels(image)) == backward
    assert digest(pipeline("octave-conversion").pixels(image)) == backward


def test_cubic_values_of_opencv() -> None:
    small = np.array(
        [[0, 37, 148, 77, 80], [91, 181, 89, 71, 127], [182, 69, 30, 65, 174], [17, 213, 227, 59, 221]], "u1"
    )
    opencv = [
        [7, 26, 66, 126, 130, 79, 77, 87],
        [164, 152, 119, 56, 31, 63, 118, 158],
        [28, 105, 197, 218, 150, 60, 137, 229],
    ]
    assert cubic(small[:, :, np.newaxis], (8, 3))[:, :, 0].tolist() == opencv


BILINEAR = {
    # (height, width): sha256 of the 224 x 224 pixels by the OpenCV 3.4.2 in MXNet 1.9.1, and by 5.0.0
    (300, 400): "a28569447e99b243",
    (97, 131): "5836c2f9f7878fe3",
    (500, 375): "2fa7a52077ce6b91",
    (33, 20): "3cdd008c22d864d9",
    (801, 600): "2f5fb5b9527977f6",
    (3, 2): "5567583c2eaf532d",
    (512, 700): "2ca25d3a90eb44c2",
}


@pytest.mark.parametrize("size", BILINEAR)
def test_gluon_pixels_are_those_of_opencv(size: tuple[int, int]) -> None:
    image = Image.fromarray(numbered(*size))
    for form in ("record", "folder"):
        assert digest(pipeline(f"octave-gluon-{form}").pixels(image)) == BILINEAR[size]


WIDE = (8195, 1000), 6828
"""A size, and a column of an image of that size which lies just behind the middle of one pixel."""


def linear_by_definition(
    image: np.ndarray, size: tuple[int, int], columns: range | None = None
) -> list[list[list[int]]]:
    """`linear`, one value at a time, with Python's integers behind the weights. columns: default all."""

    def tap(i: int, source: int, resized: int) -> tuple[int, np.float32]:
        position = np.float32((i + 0.5) * (1.0 / (resized / source)) - 0.5)
        return math.floor(position), position - np.float32(math.floor(position))

    def two(t: np.float32) -> tuple[int, int]:
        return round(float((np.float32(1) - t) * np.float32(2048))), round(float(t * np.float32(2048)))

    def value(i: int, j: int, c: int) -> int:
        (y, ty), (x, tx) = tap(i, height, size[1]), tap(j, width, size[0])
        a = (2048, 0) if x < 0 or x >= width - 1 else two(tx)
        total = 2
        for k, b in enumerate(two(ty)):
            row = image[min(max(y + k, 0), height - 1)]
            across = sum(int(row[min(max(x + n, 0), width - 1), c]) * a[n] for n in (0, 1))
            total += (across >> 4) * b >> 16
        return total >> 2

    height, width, channels = image.shape
    across = range(size[0]) if columns is None else columns
    return [[[value(i, j, c) for c in range(channels)] for j in across] for i in range(size[1])]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 5), (24, 11)])
@pytest.mark.parametrize("resized", [(1, 1), (1, 8), (8, 1), (5, 7), (13, 16), (23, 9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_linear_is_its_definition(size: tuple[int, int], resized: tuple[int, int], channels: int) -> None:
    image = np.ascontiguousarray(numbered(*size)[:, :, :channels])
    assert linear(image, resized).tolist() == linear_by_definition(image, resized)


def test_linear_reads_one_pixel_beside_the_image() -> None:
    """The rounded weights of this column add up to 2047, so reading the edge twice gives other bits."""
    image, size, column = numbered(256, 1), *WIDE
    found = linear(image, size, (column, 0, 1, size[1]))
    assert found.tolist() == linear_by_definition(image, size, range(column, column + 1))


def test_linear_averages_an_image_of_twice_the_size() -> None:
    """OpenCV has a special case for it: the rule for all sizes must give its bits."""
    image = numbered(10, 14)
    by_hand = image.reshape(5, 2, 7, 2, 3).astype(int).sum(axis=(1, 3))
    assert np.array_equal(linear(image, (7, 5)), (by_hand + 2) >> 2)


@pytest.mark.parametrize("resize", [cubic, linear])
def test_a_box_is_a_part_of_the_whole(resize: Callable[..., np.ndarray]) -> None:
    image = numbered(40, 50)
    for size in ((70, 60), (25, 20)):
        whole = resize(image, size)
        assert np.array_equal(resize(image, size, (3, 5, 11, 13)), whole[5:18, 3:14])
    assert np.array_equal(resize(image, (50, 40)), image)


@pytest.mark.parametrize(
    ("size", "resized", "octave", "resnest"),
    [
        ((400, 300), (341, 256), (58, 16), (58, 16)),  # 58.5 is 58 both ways
        ((402, 300), (343, 256), (59, 16), (60, 16)),  # 59.5: down, and half to even
        ((300, 402), (256, 343), (16, 59), (16, 60)),
        ((256, 256), (256, 256), (16, 16), (16, 16)),
        ((299, 301), (256, 257), (16, 16), (16, 16)),  # 257.71 is rounded down; 16.5 half to even
    ],
)
def test_long_side_and_crop_offsets(
    size: tuple[int, int], resized: tuple[int, int], octave: tuple[int, int], resnest: tuple[int, int]
) -> None:
    array = numbered(size[1], size[0])
    x, y = octave
    whole = cubic(array, resized)
    found = pipeline("octave-conversion").pixels(Image.fromarray(array))
    assert np.array_equal(found, whole[y : y + 224, x : x + 224])
    x, y = resnest
    bicubic = np.asarray(Image.fromarray(array).resize(resized, Image.Resampling.BICUBIC))
    found = pipeline("resnest").pixels(Image.fromarray(array))
    assert np.array_equal(found, bicubic[y : y + 224, x : x + 224])


def test_pillow_antialiases_and_opencv_does_not() -> None:
    stripes = np.zeros((1024, 1024, 3), np.uint8)
    stripes[:, ::2] = 255
    image = Image.fromarray(stripes)
    assert np.ptp(pipeline("resnest").pixels(image)) < 3
    assert set(np.unique(pipeline("octave-scorer").pixels(image))) == {128}
    stripes[:, ::4] = 255
    stripes[:, 1::4] = stripes[:, 2::4] = stripes[:, 3::4] = 0
    image = Image.fromarray(stripes)
    assert pipeline("resnest").pixels(image).max() < 80  # a quarter of the pixels are white
    assert pipeline("octave-scorer").pixels(image).max() == 0  # the kernel lies between them


@pytest.mark.parametrize("name", pipelines())
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 7), (8, 8), (255, 257)])
def test_tiny_images(name: str, size: tuple[int, int]) -> None:
    one = pipeline(name)
    x = one.apply(Image.new("RGB", size, (10, 10, 10)))
    assert x.shape == (1, *one.shape)
    assert x.dtype == np.float32
    assert same_bits(
        x, np.broadcast_to(one.normalise(np.full((1, 1, one.shape[0]), 10, "u1")), x.shape).copy()
    )


def test_elongated_images() -> None:
    assert MAX_RESIZED == 256 * 65536
    for name in (*OCTAVE, "resnest"):
        for size in ((1, 257), (600, 2), (1, 60000)):
            with pytest.raises(InputError, match=rf"image: {size[0]} x {size[1]} pixels is too elongated"):
                pipeline(name).apply(Image.new("RGB", size))
    assert pipeline("octave-scorer").pixels(Image.new("RGB", (1, 256))).shape == (224, 224, 3)
    assert pipeline("digits").pixels(Image.new("L", (1, 60000))).shape == (32, 32, 1)


# Digits


def test_digits_are_exact_quarters() -> None:
    grey = (np.arange(64) % 17 * 15).astype(np.uint8).reshape(8, 8)
    x = pipeline("digits").apply(Image.fromarray(grey))
    expected = ((np.arange(64) % 17 - 8) / 4).astype(np.float32).reshape(8, 8)
    assert same_bits(x, np.kron(expected, np.ones((4, 4), np.float32))[np.newaxis, np.newaxis])


def test_digits_of_another_size_are_averaged() -> None:
    grey = np.zeros((16, 24), np.uint8)
    grey[:2, :3] = [[0, 30, 60], [90, 120, 60]]
    x = pipeline("digits").pixels(Image.fromarray(grey))
    assert np.array_equal(x[:4, :4, 0], np.full((4, 4), 60, np.uint8))
    assert not x[4:].any()


# Kinds of images


def colour(path: Path | Image.Image) -> list[int]:
    """The one colour of an image, through two filters."""
    found = [pipeline(name).pixels(path) for name in ("resnest", "octave-scorer")]
    assert np.array_equal(*found)
    assert (found[0] == found[0][0, 0]).all()
    return found[0][0, 0].tolist()


def saved(tmp_path: Path, image: Image.Image, name: str, **options: object) -> Path:
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_kinds_of_images(tmp_path: Path) -> None:
    def kind(mode: str, value: object, name: str, **options: object) -> list[int]:
        image = Image.new(mode, (9, 7), value)  # type: ignore[arg-type]
        return colour(saved(tmp_path, image, name, **options))

    assert kind("L", 77, "grey.png") == [77, 77, 77]
    assert kind("LA", (77, 0), "grey-alpha.png") == [77, 77, 77]
    assert kind("1", 1, "bit.png") == [255, 255, 255]
    assert kind("1", 0, "bit.tiff") == [0, 0, 0]
    assert kind("RGB", (1, 2, 3), "colour.png") == [1, 2, 3]
    assert kind("RGB", (1, 2, 3), "colour.bmp") == [1, 2, 3]
    assert kind("RGB", (1, 2, 3), "colour.ppm") == [1, 2, 3]
    assert kind("RGBA", (1, 2, 3, 0), "clear.png") == [1, 2, 3]
    assert kind("RGBA", (1, 2, 3, 128), "half.tiff") == [1, 2, 3]
    assert kind("CMYK", (255, 0, 0, 0), "cmyk.tiff") == [0, 255, 255]
    assert kind("CMYK", (0, 0, 0, 255), "cmyk.jpg", quality=100) == [0, 0, 0]
    assert kind("I;16", 0x1FF, "deep.png") == [1, 1, 1]
    assert kind("I;16", 0xFFFF, "deep.tiff") == [255, 255, 255]


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (5, 5), 1)
    image.putpalette([9, 9, 9, 10, 20, 30])
    assert colour(saved(tmp_path, image, "p.png", transparency=1)) == [10, 20, 30]
    assert colour(saved(tmp_path, image, "q.png", transparency=b"\xff\x40")) == [10, 20, 30]
    assert colour(saved(tmp_path, image, "p.gif", transparency=1)) == [10, 20, 30]


def test_sixteen_bits_are_shifted_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 1, 255, 256, 511, 512, 65280, 65535]] * 8, np.uint16)
    expected = (values >> 8).astype(np.uint8)
    png, tiff = (saved(tmp_path, Image.fromarray(values), name) for name in ("a.png", "a.tiff"))
    big = tmp_path / "big.tiff"
    Image.frombytes("I;16B", (8, 8), values.astype(">u2").tobytes()).save(big)
    pgm = tmp_path / "a.pgm"
    pgm.write_bytes(b"P5 8 8 65535\n" + values.astype(">u2").tobytes())
    for path in (png, tiff, big, pgm):
        assert np.array_equal(pipeline("digits").pixels(path)[::4, ::4, 0], expected), path


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int = 8, kind: int = 2, data: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_sixteen_bit_colour_keeps_the_high_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 0x01FF, 0x80FF, 0xFFFF)))
    assert colour(path) == [1, 128, 255]


def test_colour_to_grey_for_digits() -> None:
    for r, g, b in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (12, 200, 99), (255, 255, 255)):
        grey = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16
        assert pipeline("digits").pixels(Image.new("RGB", (8, 8), (r, g, b)))[0, 0, 0] == grey


@pytest.mark.parametrize(("mode", "value"), [("F", 0.5), ("I", 70000), ("LAB", (1, 2, 3))])
def test_float_and_wide_samples_are_refused(tmp_path: Path, mode: str, value: object) -> None:
    path = saved(tmp_path, Image.new(mode, (4, 4), value), "a.tiff")  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match=rf"a\.tiff: pixels of mode {mode} "):
        pipeline("digits").apply(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    if suffix == "webp" and not features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    upright = np.arange(64, dtype=np.uint8).reshape(8, 8).repeat(3).reshape(8, 8, 3)
    undo = {  # how the stored image is made from the upright one
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo(upright)))
    options = {"exif": exif} | ({"lossless": True} if suffix == "webp" else {})
    path = saved(tmp_path, stored, f"a.{suffix}", **options)
    assert np.array_equal(pipeline("digits").pixels(path)[::4, ::4, 0], upright[:, :, 0])


@pytest.mark.parametrize("name", pipelines())
@pytest.mark.parametrize("suffix", ["jpg", "mpo", "png"])
def test_which_images_are_turned_upright(name: str, suffix: str, tmp_path: Path) -> None:
    """As each scorer's reader does: MXNet's iterator JPEG only, those of Gluon and Pillow none."""
    stored = np.zeros((16, 48, 3), np.uint8)
    stored[:, 24:] = 255
    exif = Image.Exif()
    exif[274] = 6  # turn clockwise to view: the right half comes to the bottom
    images = [Image.fromarray(stored) for _ in range(2)]
    more = {"save_all": True, "append_images": images[1:]} if suffix == "mpo" else {}
    path = saved(tmp_path, images[0], f"a.{suffix}", exif=exif, **more)
    found = pipeline(name).pixels(path)
    down = (found[:12] < 5).all() and (found[-12:] > 250).all()
    across = (found[:, :12] < 5).all() and (found[:, -12:] > 250).all()
    never = name in ("octave-gluon-folder", "resnest", "resnest-raw-bgr", "resnest-raw-rgb")
    jpeg = name in ("octave-scorer", "octave-gluon-record")
    assert (down, across) == ((False, True) if never or (jpeg and suffix == "png") else (True, False))


def test_first_frame_of_animations(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), c) for c in ((200, 0, 0), (0, 200, 0))]
    for name in ("a.gif", "a.tiff", "a.png") + (("a.webp",) if features.check("webp") else ()):
        options: dict[str, object] = {"lossless": True} if name == "a.webp" else {}
        path = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:], **options)
        assert colour(path) == [200, 0, 0], name


def test_colour_profiles_are_ignored(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("RGB", (8, 8), (1, 2, 3)), "a.png", icc_profile=b"no profile at all")
    assert colour(path) == [1, 2, 3]


def test_pillow_image_or_path(tmp_path: Path) -> None:
    image = Image.fromarray(numbered(30, 40))
    path = saved(tmp_path, image, "a.png")
    for one in pipelines().values():
        assert same_bits(one.apply(image), one.apply(path))
        assert same_bits(one.apply(image), one.apply(str(path)))
    assert np.array_equal(np.asarray(image), numbered(30, 40))


# Files that are not usable


def test_not_a_readable_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path / "none.png", "No such file"),
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "is not a file"),
        ("a\0b", "null"),
    ):
        with pytest.raises(InputError, match=words):
            pipeline("digits").apply(path)
    with pytest.raises(InputError, match="a path or a Pillow image, got bytes"):
        pipeline("digits").apply(b"a.png")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"has no pixels \(0 x 3\)"):
        pipeline("digits").apply(Image.new("L", (0, 3)))


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\0" * 5000, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\x93NUMPY"],
)
def test_not_an_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(
        FormatError, match=r"a\.png: at byte 0: found (an empty file|no known image), expected"
    ):
        pipeline("digits").apply(path)


@pytest.mark.parametrize("size", [(10000, 10000), (100000, 100000), (89_478_486, 1)])
def test_decompression_bombs(tmp_path: Path, size: tuple[int, int]) -> None:
    assert size[0] * size[1] > MAX_PIXELS
    path = tmp_path / "a.png"
    path.write_bytes(png(*size))
    for one in pipelines().values():
        with pytest.raises(InputError, match=r"a\.png: "):
            one.apply(path)


@pytest.mark.parametrize("size", [(MAX_SIDE + 1, 1), (1, MAX_SIDE + 1), (80_000_000, 1)])
def test_a_side_that_no_image_has_is_refused_before_it_is_decoded(
    tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert size[0] * size[1] < MAX_PIXELS
    path = tmp_path / "a.png"
    path.write_bytes(png(*size))
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    for one in pipelines().values():
        with pytest.raises(InputError, match=rf"a side of more than {MAX_SIDE} pixels"):
            one.apply(path)


def encoded(kind: str) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(numbered(24, 20))
    exif = Image.Exif()
    exif[274] = 1
    image.save(out, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "TIFF", "WEBP") else {}))
    return out.getvalue()


AVAILABLE = [f for f in FORMATS if f != "WEBP" or features.check("webp")]


@pytest.mark.parametrize("kind", AVAILABLE)
def test_truncated_files(tmp_path: Path, kind: str) -> None:
    content = encoded(kind)
    path = tmp_path / "a"
    path.write_bytes(content)
    whole = pipeline("digits").pixels(path)
    refused = 0
    cuts = sorted({*range(0, len(content), 37), *range(max(0, len(content) - 30), len(content))})
    for cut in cuts:
        path.write_bytes(content[:cut])
        try:
            assert np.array_equal(pipeline("digits").pixels(path), whole), cut
        except FormatError as error:
            refused += 1
            offset = error.offset
            assert offset is not None, cut
            assert 0 <= offset <= cut
    assert refused >= len(cuts) - 30
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError):
        pipeline("digits").apply(path)


@pytest.mark.parametrize("kind", AVAILABLE)
def test_corrupted_files(tmp_path: Path, kind: str) -> None:
    content = encoded(kind)
    path = tmp_path / "a"
    chance = random.Random(7)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged) if chance.random() < 0.5 else 64)] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            assert pipeline("digits").apply(path).shape == (1, 1, 32, 32)
        except RefnetError as error:
            refused += 1
            message = str(error)
            assert message.startswith(f"{path}: ")
    assert refused > 20


def test_damaged_exif(tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x02\x00\xff\xff\xff\xff\xff\xff\xff\xff" * 3
    path = saved(tmp_path, Image.new("RGB", (8, 8), (1, 2, 3)), "a.png", exif=exif)
    try:
        assert pipeline("resnest").pixels(path)[0, 0].tolist() == [1, 2, 3]
    except FormatError as error:
        assert error.file == str(path)  # noqa: PT017


def test_no_settings_of_others_are_changed(tmp_path: Path) -> None:
    before = (Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    path = saved(tmp_path, Image.new("RGB", (8, 8)), "a.png")
    pipeline("resnest").apply(path)
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before
    assert ImageOps.exif_transpose(Image.open(path)).size == (8, 8)
