"""Folders of labelled images, made of seeds: odd sizes, grey, palettes, CMYK, alpha, JPEG and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

MODES = ("RGB", "L", "CMYK", "RGBA", "P", "RGB")
"""CMYK is written as JPEG; RGBA and P as PNG; the others in turn."""


def image(index: int, most: int = 96) -> Image.Image:
    """A smooth random picture of 1 to `most` pixels a side."""
    rng = np.random.default_rng(index)
    width, height = (int(n) for n in rng.integers(1, most + 1, 2))
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BILINEAR).convert(MODES[index % len(MODES)])


def by_class(folder: Path, classes: Sequence[str], count: int, damaged: Sequence[int] = ()) -> None:
    """`count` images in folders called like classes, in turn; those in `damaged` are cut in the middle."""
    for index in range(count):
        place = folder / classes[index % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        jpeg = MODES[index % len(MODES)] == "CMYK" or index % 2 == 1
        jpeg &= MODES[index % len(MODES)] not in ("RGBA", "P")
        path = place / f"ILSVRC2012_val_{index + 1:08d}.{'JPEG' if jpeg else 'png'}"
        image(index).save(path, "JPEG" if jpeg else "PNG")
        if index in damaged:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
