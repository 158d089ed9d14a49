"""Bugs of the input: preprocessing that is not the one that the capture names; for test_porting_bugs.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from refnet.models.opencv import cubic
from refnet.models.preprocess import Pipeline, pipeline
from tests.helpers.bits import floats

F = np.float32
Array = np.ndarray


@dataclass(frozen=True)
class InputBug:
    """make: the tensor (1, 3, 224, 224) that a port with the bug makes of an image, instead of `right`'s."""

    name: str
    practice: str
    make: Callable[[Pipeline, Image.Image], Array]


def photograph() -> Image.Image:
    """320 x 280 pixels of colours that vary smoothly, with some noise."""
    coarse = ((floats((5, 6, 3), "colours") + 1) * 127).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((320, 280), Resampling.BICUBIC)).astype(int)
    noise = (floats((280, 320, 3), "noise") * 9).astype(int)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def tensor(x: Array) -> Array:
    """Pixels (h, w, c), normalised, as (1, c, h, w)."""
    return np.ascontiguousarray(x.astype(F).transpose(2, 0, 1)[np.newaxis])


def constants(p: Pipeline) -> tuple[Array, Array]:
    return np.array(p.mean, F), np.array(p.scale, F)


def bgr(p: Pipeline, image: Image.Image) -> Array:
    return p.normalise(np.ascontiguousarray(p.pixels(image)[:, :, ::-1]))


def order(p: Pipeline, image: Image.Image) -> Array:
    """Divided first, then the mean of unscaled pixels subtracted."""
    mean, scale = constants(p)
    return tensor(p.pixels(image).astype(F) / scale - mean)


def not_scaled(p: Pipeline, image: Image.Image) -> Array:
    return tensor(p.pixels(image).astype(F) - constants(p)[0])


def not_divided(p: Pipeline, image: Image.Image) -> Array:
    """Pixels of 0 to 255, the mean and scale of pixels of 0 to 1."""
    mean, scale = constants(p)
    return tensor((p.pixels(image).astype(F) - mean / F(255)) / (scale / F(255)))


def resized(p: Pipeline, image: Image.Image, size: int, filter_: Resampling, shift: int = 0) -> Array:
    """The short side to `size`, then the centre, `shift` pixels further."""
    width, height = (size * side // min(image.size) for side in image.size)
    full = np.asarray(image.resize((width, height), filter_))
    top, left = round((height - 224) / 2) + shift, round((width - 224) / 2) + shift
    return p.normalise(np.ascontiguousarray(full[top : top + 224, left : left + 224]))


def opencv(p: Pipeline, image: Image.Image) -> Array:
    width, height = (256 * side // min(image.size) for side in image.size)
    box = (round((width - 224) / 2), round((height - 224) / 2), 224, 224)
    return p.normalise(cubic(np.asarray(image), (width, height), box))


INPUT_BUGS: tuple[InputBug, ...] = (
    InputBug("BGR for RGB", "OpenCV's order of channels", bgr),
    InputBug("mean and scale in the other order", "x / scale - mean", order),
    InputBug("not scaled", "the mean subtracted only", not_scaled),
    InputBug("not divided by 255", "mean and scale of 0 to 1, pixels of 0 to 255", not_divided),
    InputBug("mean of another network", "124, 117, 104 of the octave networks",
             lambda p, i: replace(p, mean=pipeline("octave-scorer").mean).apply(i)),
    InputBug("scale as a rounded factor", "times float32(1 / 58.395) for divided by it",
             lambda p, i: tensor((p.pixels(i).astype(F) - constants(p)[0]) * (F(1) / constants(p)[1]))),
    InputBug("resized without antialiasing", "OpenCV's cubic for Pillow's", opencv),
    InputBug("resized bilinearly", "the resize's default",
             lambda p, i: resized(p, i, 256, Resampling.BILINEAR)),
    InputBug("resized straight to 224", "no centre crop",
             lambda p, i: resized(p, i, 224, Resampling.BICUBIC)),
    InputBug("crop off by one", "an offset rounded the other way",
             lambda p, i: resized(p, i, 256, Resampling.BICUBIC, 1)),
)  # fmt: skip
