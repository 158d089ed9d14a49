"""From an image file to a network's input tensor: named pipelines, each with its source.

    file ── decode ── RGB bytes ── resize, crop ── Pipeline.pixels ── Pipeline.normalise ── (1, c, h, w)

Every step is stated to the bit in docs/preprocessing.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from refnet.core.errors import InputError
from refnet.core.words import did_you_mean
from refnet.models.image_file import Turned, image_name, read_image
from refnet.models.opencv import cubic, linear

if TYPE_CHECKING:
    from PIL.Image import Image

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

MAX_RESIZED = 1 << 24
"""Largest image after resizing, in pixels: with a short side of 256, a long side of 65536."""

Operation = Literal[
    "multiply", "divide", "multiply by the reciprocal", "divide by 255 first", "divide in float64"
]


@dataclass(frozen=True)
class Pipeline:
    """What is done to an image before a network sees it.

    shape: (c, h, w) of the tensor. resize: the short side in pixels before the centre crop (the
    digits pipeline: the side of the square image). filter: how it is resized. mean: one number per
    channel, in the units of 8-bit pixels; of pixels divided by 255 if the operation begins so.
    scale: one number per channel, which the difference is multiplied with or divided by (operation).
    turned: which images are turned upright by their EXIF orientation. order: of the tensor's channels.

    >>> pipeline("octave-scorer").shape
    (3, 224, 224)
    """

    name: str
    source: str
    description: str
    shape: tuple[int, int, int]
    resize: int
    filter: Literal["opencv-3.4 cubic", "opencv cubic", "opencv linear", "pillow bicubic", "box and nearest"]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    operation: Operation
    turned: Turned = "all"
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
        image = read_image(source, self.turned)
        if self.filter == "box and nearest":
            return _digit(image, self.resize, self.shape[1] // self.resize)
        size = _resized(image.size, self.resize, image_name(source))
        if self.filter == "pillow bicubic":
            return _pillow_bicubic(image, size, self.shape[1:])
        height, width = self.shape[1:]
        box = ((size[0] - width) // 2, (size[1] - height) // 2, width, height)
        if self.filter == "opencv linear":
            return linear(np.asarray(image), size, box)
        return cubic(
            np.asarray(image), size, box, order="backward" if self.filter == "opencv cubic" else "forward"
        )

    def normalise(self, pixels: U8) -> F32:
        """The tensor float32 (1, c, h, w) of uint8 pixels (h, w, c) in the order R, G, B.

        The constants are rounded to float32 first, and so is the result of every operation below;
        "divide in float64" rounds once, at the end.
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
        p = pixels.astype(np.float32)
        match self.operation:
            case "multiply":
                x = (p - mean) * scale
            case "divide":
                x = (p - mean) / scale
            case "multiply by the reciprocal":
                x = (p - mean) * (np.float32(1) / scale)
            case "divide by 255 first":
                x = (p / np.float32(255) - mean) / scale
            case "divide in float64":
                x = ((pixels - np.array(self.mean)) / np.array(self.scale)).astype(np.float32)
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
    octave-gluon-record
    octave-gluon-folder
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


_RGB = (3, 224, 224)
_OCTAVE_MEAN = (124.0, 117.0, 104.0)
_OPENCV_CROP = "(no antialiasing; long side rounded down), centre crop 224 (offset rounded down)"
_CUBIC = f"short side to 256 with OpenCV's cubic {_OPENCV_CROP}"
_LINEAR = f"short side to 256 with OpenCV's bilinear {_OPENCV_CROP}"
_BICUBIC = (
    "short side to 256 with Pillow's bicubic (antialiased; long side rounded down), centre crop 224"
    " (offset rounded half to even)"
)

_SCORERS = (
    Pipeline(
        "octave-scorer",
        "facebookresearch/OctConv, utils/symbol/score.py (MXNet's ImageRecordIter)",
        f"{_CUBIC}, as in the OpenCV 3.4.2 of MXNet 1.9.1; minus 124, 117, 104; times 0.0167",
        _RGB, 256, "opencv-3.4 cubic", _OCTAVE_MEAN, (0.0167,) * 3, "multiply", turned="JPEG",
    ),
    Pipeline(
        "octave-accuracy-checker",
        "Open Model Zoo, octave-se-resnet-50-0.125/accuracy-check.yml (the MXNet network)",
        f"{_CUBIC}, as in OpenCV 4 and 5 without IPP; minus 124, 117, 104; divided by 59.88; in float64,"
        " rounded once",
        _RGB, 256, "opencv cubic", _OCTAVE_MEAN, (59.88,) * 3, "divide in float64",
    ),
    Pipeline(
        "octave-conversion",
        "Open Model Zoo, octave-se-resnet-50-0.125/model.yml (the converted model's mean and scale)",
        f"{_CUBIC}, as in OpenCV 4 and 5 without IPP; minus 124, 117, 104; divided by 59.880239521",
        _RGB, 256, "opencv cubic", _OCTAVE_MEAN, (59.880239521,) * 3, "divide",
    ),
    Pipeline(
        "octave-gluon-record",
        "facebookresearch/OctConv, utils/gluon/score.py --use-rec (MXNet's ImageRecordIter)",
        f"{_LINEAR}; minus 123.68, 116.779, 103.939; times the float32 reciprocals of 58.393, 57.12, 57.375",
        _RGB, 256, "opencv linear", (123.68, 116.779, 103.939), (58.393, 57.12, 57.375),
        "multiply by the reciprocal", turned="JPEG",
    ),
    Pipeline(
        "octave-gluon-folder",
        "facebookresearch/OctConv, utils/gluon/score.py without --use-rec (Gluon's transforms)",
        f"{_LINEAR}; divided by 255; minus 0.485, 0.456, 0.406; divided by 0.229, 0.224, 0.225",
        _RGB, 256, "opencv linear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225),
        "divide by 255 first", turned="none",
    ),
    Pipeline(
        "resnest",
        "Open Model Zoo, resnest-50-pytorch/accuracy-check.yml and model.yml",
        f"{_BICUBIC}; minus 123.675, 116.28, 103.53; divided by 58.395, 57.12, 57.375",
        _RGB, 256, "pillow bicubic", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "divide",
        turned="none",
    ),
    Pipeline(
        "digits",
        "refnet's two small networks, trained on scikit-learn's 8 x 8 digits (pixel 15 * v for v = 0..16)",
        "grey, averaged to 8 x 8 if of another size, each pixel repeated 4 x 4; minus 120; divided by 60",
        (1, 32, 32), 8, "box and nearest", (120.0,), (60.0,), "divide",
    ),
)  # fmt: skip


def _raw(name: str, order: Literal["RGB", "BGR"]) -> Pipeline:
    """The pixels alone, as Accuracy Checker gives them to a converted network with mean and scale inside."""
    octave = name == "octave"
    network = "octave-se-resnet-50-0.125" if octave else "resnest-50-pytorch"
    pixels = f"{_CUBIC}, as in OpenCV 4 and 5 without IPP" if octave else _BICUBIC
    return Pipeline(
        f"{name}-raw-{order.lower()}",
        f"Open Model Zoo, {network}/accuracy-check.yml (the converted network)",
        f"{pixels}; minus 0; divided by 1 (mean and scale are in the file); channels {order}",
        _RGB, 256, "opencv cubic" if octave else "pillow bicubic", (0.0,) * 3, (1.0,) * 3, "divide",
        "all" if octave else "none", order,
    )  # fmt: skip


_PIPELINES = (
    *_SCORERS,
    _raw("octave", "BGR"),
    _raw("octave", "RGB"),
    _raw("resnest", "BGR"),
    _raw("resnest", "RGB"),
)
