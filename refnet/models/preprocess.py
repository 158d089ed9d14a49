"""From an image file to a network's input tensor: named pipelines, each with its source.

    file ── decode ── RGB bytes ── resize, crop ── Pipeline.pixels ── Pipeline.normalise ── (1, c, h, w)

Every step is stated to the bit in docs/preprocessing.md.
"""

from __future__ import annotations

import os
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from refnet.core.errors import FormatError, InputError, RefnetError, UnsupportedError
from refnet.core.words import did_you_mean

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FORMATS", "MAX_PIXELS", "MAX_RESIZED", "Pipeline", "cubic", "pipeline", "pipelines"]

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""What is decoded. None of these decoders starts a program (Pillow's EPS decoder would)."""

MAX_PIXELS = 89_478_485
"""Largest image, in pixels: Pillow's own limit, above which it warns of a decompression bomb."""

MAX_SIDE = 1 << 16
"""Largest side, in pixels. One of 80 million takes a gigabyte after 10 KB of file; no photograph has one."""

MAX_RESIZED = 1 << 24
"""Largest image after resizing, in pixels: with a short side of 256, a long side of 65536."""

EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True)
class Pipeline:
    """What is done to an image before a network sees it.

    shape: (c, h, w) of the tensor. resize: the short side in pixels before the centre crop (the
    digits pipeline: the side of the square image). filter: how it is resized. mean: one number per
    channel, in the units of 8-bit pixels. scale: one number per channel, which the difference is
    multiplied with or divided by (operation). order: of the tensor's channels.

    >>> pipeline("octave-scorer").shape
    (3, 224, 224)
    """

    name: str
    source: str
    description: str
    shape: tuple[int, int, int]
    resize: int
    filter: Literal["opencv-3.4 cubic", "opencv cubic", "pillow bicubic", "box and nearest"]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    operation: Literal["multiply", "divide"]
    order: Literal["RGB", "BGR"] = "RGB"

    def apply(self, source: str | os.PathLike[str] | Image) -> F32:
        """The tensor (1, c, h, w) of an image file or of a Pillow image. Errors: as `pixels`.

        >>> from PIL import Image
        >>> pipeline("digits").apply(Image.new("L", (8, 8), 240))[0, 0, :2, 0]
        array([2., 2.], dtype=float32)
        """
        return self.normalise(self.pixels(source))

    def pixels(self, source: str | os.PathLike[str] | Image) -> U8:
        """The resized and cropped image, uint8 (h, w, c), channels in the order R, G, B.

        Raises InputError (no such file, a folder, too large, too elongated), FormatError (not an
        image, damaged) and UnsupportedError (float or 32-bit samples, Lab).

        >>> from PIL import Image
        >>> pipeline("resnest").pixels(Image.new("RGB", (640, 480))).shape
        (224, 224, 3)
        """
        image = _read(source)
        if self.filter == "box and nearest":
            return _digit(image, self.resize, self.shape[1] // self.resize)
        size = _resized(image.size, self.resize, _name(source))
        if self.filter == "pillow bicubic":
            return _pillow_bicubic(image, size, self.shape[1:])
        height, width = self.shape[1:]
        box = ((size[0] - width) // 2, (size[1] - height) // 2, width, height)
        return cubic(
            np.asarray(image), size, box, order="backward" if self.filter == "opencv cubic" else "forward"
        )

    def normalise(self, pixels: U8) -> F32:
        """The tensor float32 (1, c, h, w) of uint8 pixels (h, w, c) in the order R, G, B.

        x = (float32(p) - float32(mean)) * float32(scale), or / float32(scale): the constants are
        rounded to float32 first, the subtraction is rounded, the product or quotient is rounded.
        Raises InputError if the pixels are not uint8 (h, w, c).

        >>> white = np.full((1, 1, 3), 255, np.uint8)
        >>> pipeline("octave-scorer").normalise(white).ravel()
        array([2.1877, 2.3046, 2.5217], dtype=float32)
        """
        channels = self.shape[0]
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != channels or not pixels.size:
            raise InputError(
                f"pipeline {self.name}: pixels must be uint8 (h, w, {channels}),"
                f" got {pixels.dtype} {pixels.shape}"
            )
        mean, scale = np.array(self.mean, np.float32), np.array(self.scale, np.float32)
        x = pixels.astype(np.float32) - mean
        x = x * scale if self.operation == "multiply" else x / scale
        if self.order == "BGR":
            x = x[:, :, ::-1]
        return np.ascontiguousarray(x.transpose(2, 0, 1)[np.newaxis])


def pipelines() -> dict[str, Pipeline]:
    """All pipelines by name.

    >>> for name in pipelines():
    ...     print(name)
    octave-scorer
    octave-accuracy-checker
    octave-conversion
    resnest
    digits
    octave-raw-bgr
    octave-raw-rgb
    resnest-raw-bgr
    resnest-raw-rgb
    """
    return {p.name: p for p in _PIPELINES}


def pipeline(name: str) -> Pipeline:
    """One pipeline. Raises InputError, listing the known names, if there is none of that name.

    >>> pipeline("resnest").mean
    (123.675, 116.28, 103.53)
    """
    known = pipelines()
    if name not in known:
        hint = did_you_mean(name, known)
        raise InputError(f"pipeline {name!r} is not known; the pipelines are {', '.join(known)}{hint}")
    return known[name]


def cubic(
    pixels: U8,
    size: tuple[int, int],
    box: tuple[int, int, int, int] | None = None,
    order: Literal["forward", "backward"] = "backward",
) -> U8:
    """OpenCV's cubic resize of 8-bit pixels on x86, without IPP: no antialiasing, a = -0.75.

    pixels: uint8 (h, w, c). size: (width, height) of the result. box: (x, y, width, height) of the
    part of the result that is wanted. order: in which order the four rows are added (below).

    Pixel centres lie at half-integers, borders repeat, the kernel's four weights are computed in
    float32 and rounded to 11 fractional bits. Rows: exact integers. Columns: the integers become
    float32, the weights b are scaled by 2**-22 in float32, and every product and sum is rounded:
    - forward, OpenCV 3.4 (the one in MXNet's packages): ((s0*b0 + s1*b1) + s2*b2) + s3*b3
    - backward, OpenCV 4 and 5: s0*b0 + (s1*b1 + (s2*b2 + s3*b3))
    Then half-to-even to an integer, clipped to 0..255. (In the last w*c % 8 values of a full row
    OpenCV uses integers instead; a centre crop never shows them.) Compared bit by bit with both in
    tests/crosscheck/test_preprocess_opencv.py.

    >>> cubic(np.array([[[0], [100]]], np.uint8), (4, 1)).ravel()
    array([  0,  23,  77, 111], dtype=uint8)
    """
    x, y, width, height = box or (0, 0, *size)
    columns, wx = _taps(pixels.shape[1], size[0], x, width)
    rows, wy = _taps(pixels.shape[0], size[1], y, height)
    needed, place = np.unique(rows, return_inverse=True)
    place = place.reshape(rows.shape)
    source = pixels[needed]
    across = np.zeros((len(needed), width, pixels.shape[2]), np.int32)
    for k in range(4):
        across += source[:, columns[:, k]].astype(np.int32) * wx[:, k, np.newaxis]
    lines = across.astype(np.float32)
    b = wy.astype(np.float32) * np.float32(2**-22)
    total = np.zeros((height, width, pixels.shape[2]), np.float32)
    for k in (0, 1, 2, 3) if order == "forward" else (3, 2, 1, 0):
        total = lines[place[:, k]] * b[:, k, np.newaxis, np.newaxis] + total
    return np.clip(np.rint(total), 0, 255).astype(np.uint8)


def _taps(
    source: int, resized: int, first: int, count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Of `count` outputs from `first`: the four positions each reads, and its weights times 2048."""
    f = np.float32
    a, one = f(-0.75), f(1)
    step = 1.0 / (resized / source)
    position = ((np.arange(first, first + count) + 0.5) * step - 0.5).astype(f)
    left = np.floor(position)
    t = position - left
    u = one - t
    w0 = ((a * (t + one) - f(5) * a) * (t + one) + f(8) * a) * (t + one) - f(4) * a
    w1 = ((a + f(2)) * t - (a + f(3))) * t * t + one
    w2 = ((a + f(2)) * u - (a + f(3))) * u * u + one
    w3 = one - w0 - w1 - w2
    weights = np.rint(np.stack([w0, w1, w2, w3], axis=1) * f(2048)).astype(np.int32)
    positions = left.astype(np.int64)[:, np.newaxis] + np.arange(-1, 3)
    return np.clip(positions, 0, source - 1), weights


def _resized(size: tuple[int, int], short: int, name: str) -> tuple[int, int]:
    """(width, height) with the short side `short`; the long side is rounded down."""
    width, height = size
    result = (short, short * height // width) if height > width else (short * width // height, short)
    if result[0] * result[1] > MAX_RESIZED:
        raise InputError(
            f"{name}: {width} x {height} pixels is too elongated: resized to {result[0]} x {result[1]}"
            f" it has more than {MAX_RESIZED} pixels"
        )
    return result


def _pillow_bicubic(image: Image, size: tuple[int, int], crop: tuple[int, int]) -> U8:
    """Pillow's resize, then a centre crop whose offset is rounded half to even (Python's round)."""
    from PIL.Image import Resampling

    top, left = round((size[1] - crop[0]) / 2), round((size[0] - crop[1]) / 2)
    full = np.asarray(image.resize(size, Resampling.BICUBIC))
    return np.ascontiguousarray(full[top : top + crop[0], left : left + crop[1]])


def _digit(image: Image, side: int, times: int) -> U8:
    """Grey, averaged to side x side unless it is that already, each pixel repeated; (h, w, 1)."""
    from PIL.Image import Resampling

    grey = image.convert("L")
    if grey.size != (side, side):
        grey = grey.resize((side, side), Resampling.BOX)
    return np.asarray(grey).repeat(times, axis=0).repeat(times, axis=1)[:, :, np.newaxis]


def _name(source: str | os.PathLike[str] | Image) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return str(getattr(source, "filename", "") or "image")


def _read(source: str | os.PathLike[str] | Image) -> Image:
    """The image as mode RGB, upright."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, Image.Image):
        return _upright_rgb(source, _name(source), None)
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(f"an image must be a path or a Pillow image, got {type(source).__name__}")
    path = Path(source)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise InputError(f"{path}: is {'a folder' if stat.S_ISDIR(mode) else 'not a file'}, not an image")
        if path.stat().st_size == 0:
            raise FormatError(path, 0, "an empty file", "an image")
        file = path.open("rb")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    with file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            raise FormatError(path, 0, "no known image", ", ".join(FORMATS)) from None
        except Image.DecompressionBombError as error:
            raise InputError(f"{path}: too large: {error}") from None
        except Exception as error:  # decoders raise many kinds on damaged files
            raise FormatError(path, file.tell(), f"a damaged image ({error})") from None
        return _upright_rgb(image, str(path), file.tell)


def _upright_rgb(image: Image, name: str, tell: object) -> Image:
    """Decode the first frame, apply the EXIF orientation, convert to RGB (alpha is dropped)."""
    from PIL import Image as Images
    from PIL import ImageOps

    width, height = image.size
    if width < 1 or height < 1:
        raise InputError(f"{name}: has no pixels ({width} x {height})")
    if max(width, height) > MAX_SIDE:
        raise InputError(f"{name}: {width} x {height} has a side of more than {MAX_SIDE} pixels")
    if width * height > MAX_PIXELS:
        raise InputError(f"{name}: {width} x {height} is more than {MAX_PIXELS} pixels")
    # Pillow before 11 and its PGM reader give 16-bit samples as mode I.
    wide = image.mode in SIXTEEN_BIT or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if not wide and image.mode not in EIGHT_BIT:
        raise UnsupportedError(
            f"{name}: pixels of mode {image.mode} are not supported; expected 8-bit samples or 16-bit grey"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            upright = ImageOps.exif_transpose(image)
            if wide:
                upright = Images.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            return upright.convert("RGB")
    except RefnetError:
        raise
    except Exception as error:  # decoders raise many kinds on damaged files
        offset = tell() if callable(tell) else None
        raise FormatError(name, offset, f"a damaged image ({error})") from None


_RGB = (3, 224, 224)
_OCTAVE_MEAN = (124.0, 117.0, 104.0)
_OCTAVE_PIXELS = (
    "short side to 256 with OpenCV's cubic (no antialiasing; long side rounded down), centre crop 224"
    " (offset rounded down)"
)

_CONVERTED: tuple[tuple[str, str, str, Literal["opencv cubic", "pillow bicubic"]], ...] = (
    (
        "octave",
        "Open Model Zoo, octave-se-resnet-50-0.125 as converted",
        f"{_OCTAVE_PIXELS}, as in OpenCV 4 and 5 without IPP",
        "opencv cubic",
    ),
    (
        "resnest",
        "Open Model Zoo, resnest-50-pytorch as converted",
        "short side to 256 with Pillow's bicubic (antialiased; long side rounded down), centre crop 224"
        " (offset rounded half to even)",
        "pillow bicubic",
    ),
)
_ORDERS: tuple[Literal["RGB", "BGR"], ...] = ("BGR", "RGB")

_PIPELINES = (
    Pipeline(
        "octave-scorer",
        "facebookresearch/OctConv, utils/symbol/score.py (MXNet's ImageRecordIter)",
        f"{_OCTAVE_PIXELS}, as in the OpenCV 3.4.2 of MXNet 1.9.1; minus 124, 117, 104; times 0.0167",
        _RGB, 256, "opencv-3.4 cubic", _OCTAVE_MEAN, (0.0167,) * 3, "multiply",
    ),
    Pipeline(
        "octave-accuracy-checker",
        "Open Model Zoo, octave-se-resnet-50-0.125/accuracy-check.yml",
        f"{_OCTAVE_PIXELS}, as in OpenCV 4 and 5 without IPP; minus 124, 117, 104; divided by 59.88",
        _RGB, 256, "opencv cubic", _OCTAVE_MEAN, (59.88,) * 3, "divide",
    ),
    Pipeline(
        "octave-conversion",
        "Open Model Zoo, octave-se-resnet-50-0.125/model.yml (the converted model's mean and scale)",
        f"{_OCTAVE_PIXELS}, as in OpenCV 4 and 5 without IPP; minus 124, 117, 104; divided by 59.880239521",
        _RGB, 256, "opencv cubic", _OCTAVE_MEAN, (59.880239521,) * 3, "divide",
    ),
    Pipeline(
        "resnest",
        "Open Model Zoo, resnest-50-pytorch/accuracy-check.yml and model.yml",
        "short side to 256 with Pillow's bicubic (antialiased; long side rounded down), centre crop 224"
        " (offset rounded half to even); minus 123.675, 116.28, 103.53; divided by 58.395, 57.12, 57.375",
        _RGB, 256, "pillow bicubic", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "divide",
    ),
    Pipeline(
        "digits",
        "refnet's two small networks, trained on scikit-learn's 8 x 8 digits (pixel 15 * v for v = 0..16)",
        "grey, averaged to 8 x 8 if of another size, each pixel repeated 4 x 4; minus 120; divided by 60",
        (1, 32, 32), 8, "box and nearest", (120.0,), (60.0,), "divide",
    ),
    *(
        Pipeline(
            f"{family}-raw-{order.lower()}",
            source,
            f"{pixels}; minus 0; divided by 1 (mean and scale are in the file); channels {order}",
            _RGB, 256, filter_, (0.0,) * 3, (1.0,) * 3, "divide", order,
        )
        for family, source, pixels, filter_ in _CONVERTED
        for order in _ORDERS
    ),
)  # fmt: skip
