"""The pictures of the HTML report: a node's value and where it differs, as small PNG data URIs.

    array (h, w) ── fold: at most 96 x 96 ── places on a scale ── PNG with a palette ── data URI

A picture of differences keeps the largest of the pixels that it folds together, so that one wrong pixel of
a large image cannot vanish; a picture of values keeps their mean.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from refnet.core.op import F32, F64
from refnet.report.html_text import figure, thousands

SIDE = 96
"""Pixels of a picture, at most, along each side."""

STEPS = 250
"""Colours of a scale; the palette has 256, of which these follow:"""
NONE, OVER, NAN = 0, 251, 252

Anchors = tuple[tuple[int, int, int], ...]

VIRIDIS = ((0x44, 0x01, 0x54), (0x3B, 0x52, 0x8B), (0x21, 0x91, 0x8C), (0x5E, 0xC9, 0x62), (0xFD, 0xE7, 0x25))
"""Five points of the viridis scale (Smith, van der Walt and Firing, CC0), which is even for every eye."""
GREYS = ((0, 0, 0), (255, 255, 255))

RED, MAGENTA = (0xE0, 0x31, 0x31), (0xE0, 0x31, 0xC8)


@dataclass(frozen=True)
class Picture:
    """A picture and what its colours mean.

    title: what it shows. over_axes: how it came from an array of four dimensions.
    uri: the PNG. width, height: of the PNG in pixels. lowest, highest: the values of the scale's two ends.
    fold: rows and columns that one pixel stands for (1, 1 where nothing was folded).
    over: pixels beyond the bound. nans: NaN pixels (values: not finite). colours: all of that in words.
    """

    title: str
    over_axes: str
    uri: Markup
    width: int
    height: int
    lowest: float
    highest: float
    fold: tuple[int, int]
    over: int
    nans: int
    colours: str

    @property
    def scale(self) -> int:
        """Small pictures are enlarged by whole factors, so that pixels stay square and sharp."""
        return max(1, 168 // max(self.width, self.height))


def differences(share: F32) -> Picture:
    """Where a value differs: the share of the bound per pixel, 0 (no difference) being left transparent.

    share: (h, w). The scale runs from 0 to the largest share up to 1. Above 1, and infinite where an op with
    one right result has other bits: red. NaN, where there is no finite bound: magenta.

    >>> differences(np.float32([[0, 0.25], [0.5, np.inf]])).highest
    0.5
    """
    nothing_promised, beyond = 2.0, 3.0  # of the pixels folded together, the gravest is kept
    grave = np.where(np.isnan(share), nothing_promised, np.where(share > 1, beyond, share))
    folded, folds = fold(grave, np.maximum)
    inside = (folded > 0) & (folded <= 1)
    highest = float(folded[inside].max(initial=0.0))
    places: npt.NDArray[np.uint8] = np.full(folded.shape, NONE, np.uint8)
    places[inside] = 1 + np.round((STEPS - 1) * folded[inside] / (highest or 1.0)).astype(np.uint8)
    places[folded == beyond] = OVER
    places[folded == nothing_promised] = NAN
    over, nans = int((places == OVER).sum()), int((places == NAN).sum())
    colours = f"dark just above 0 to yellow {figure(highest)} of the bound; " if highest else ""
    colours += "blank where the bits are equal"
    colours += f"; red: proved wrong ({thousands(over)})" if over else ""
    colours += f"; magenta: nothing is promised ({thousands(nans)})" if nans else ""
    return Picture(
        title="where it differs",
        over_axes="largest over batch and channels",
        uri=png(places, palette(VIRIDIS), transparent=True),
        width=places.shape[1],
        height=places.shape[0],
        lowest=0.0,
        highest=highest,
        fold=folds,
        over=over,
        nans=nans,
        colours=colours,
    )


def values(mean: F32) -> Picture:
    """The value itself: (h, w), its smallest finite number black, its largest white, others magenta.

    >>> picture = values(np.float32([[0, 1, 4]]))
    >>> picture.lowest, picture.highest, picture.width, picture.height
    (0.0, 4.0, 3, 1)
    """
    with np.errstate(all="ignore"):
        folded, folds = fold(mean, np.add)
    finite = np.isfinite(folded)
    lowest = float(folded[finite].min(initial=np.inf)) if finite.any() else 0.0
    highest = float(folded[finite].max(initial=-np.inf)) if finite.any() else 0.0
    places: npt.NDArray[np.uint8] = np.full(folded.shape, NAN, np.uint8)
    scaled = (folded[finite] - lowest) / ((highest - lowest) or 1.0)
    places[finite] = 1 + np.round((STEPS - 1) * scaled).astype(np.uint8)
    nans = int((places == NAN).sum())
    colours = f"black {figure(lowest)} to white {figure(highest)}"
    colours += f"; magenta: not finite ({thousands(nans)})" if nans else ""
    return Picture(
        title="the framework's value",
        over_axes="mean over batch and channels",
        uri=png(places, palette(GREYS)),
        width=places.shape[1],
        height=places.shape[0],
        lowest=lowest,
        highest=highest,
        fold=folds,
        over=0,
        nans=nans,
        colours=colours,
    )


def fold(array: npt.NDArray[Any], together: np.ufunc, side: int = SIDE) -> tuple[F64, tuple[int, int]]:
    """At most side x side pixels, and how many rows and columns make one; with `np.add` the mean of them."""
    height, width = array.shape
    down, across = -(-height // side), -(-width // side)
    tops, lefts = np.arange(0, height, down), np.arange(0, width, across)
    folded: F64 = together.reduceat(together.reduceat(array.astype(np.float64), tops, axis=0), lefts, axis=1)
    if together is np.add:
        folded = folded / (np.diff(tops, append=height)[:, None] * np.diff(lefts, append=width))
    return folded, (down, across)


def palette(anchors: Anchors) -> bytes:
    """256 colours: a scale of STEPS through the anchors, and the two for what lies off the scale."""
    steps, even = np.linspace(0, 1, STEPS), np.linspace(0, 1, len(anchors))
    scale = np.stack([np.interp(steps, even, channel) for channel in np.array(anchors).T], axis=1)
    colours = np.zeros((256, 3), np.uint8)
    colours[1 : 1 + STEPS] = np.round(scale)
    colours[OVER], colours[NAN] = RED, MAGENTA
    return colours.tobytes()


def png(places: npt.NDArray[np.uint8], colours: bytes, transparent: bool = False) -> Markup:
    """A PNG as data URI: places in a palette of 256 colours. transparent: its first is seen through."""
    from PIL import Image

    image = Image.frombytes("P", places.shape[::-1], places.tobytes())
    image.putpalette(colours)
    stream = io.BytesIO()
    if transparent:
        image.save(stream, "PNG", optimize=True, transparency=NONE)
    else:
        image.save(stream, "PNG", optimize=True)
    return Markup("data:image/png;base64,{}").format(base64.b64encode(stream.getvalue()).decode())
