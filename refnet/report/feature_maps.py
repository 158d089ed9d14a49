"""A value as pictures in a notebook: its channels side by side, on one scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from refnet.core.errors import InputError
from refnet.core.notebook import shown
from refnet.core.op import F32, F64
from refnet.report.html_pictures import NAN, STEPS, VIRIDIS, fold, palette, png
from refnet.report.html_text import figure, thousands

MOST, SIDE = 32, 48
"""Channels that are drawn, and pixels along each side of one; what lies beyond is counted in words."""

SIGNED = ((0x1F, 0x4E, 0xA8), (0xF4, 0xF4, 0xF2), (0xC2, 0x41, 0x0C))
"""From the lowest through 0 to the highest, where a value has both signs."""


class Map(NamedTuple):
    """One channel: its number, and its picture, so many pixels wide and high. fold: how many rows and
    columns of the value one pixel is the mean of.
    """

    channel: int
    uri: Markup
    width: int
    height: int
    fold: tuple[int, int]


@dataclass(frozen=True)
class FeatureMaps:
    """The feature maps of a value, which show themselves in a notebook; all on one scale.

    value: float32 (n, c, h, w), (c, h, w) or (h, w). name: what stands above them. image: which of the
    batch. first: the first channel to draw; 32 are drawn at most. Raises InputError for another shape or
    type, and for an image or a channel that is not there.

    >>> import numpy as np
    >>> FeatureMaps(np.zeros((1, 12, 16, 16), np.float32), "conv1")
    <FeatureMaps 'conv1': 12 channels of 16 x 16>
    """

    value: F32
    name: str = ""
    image: int = 0
    first: int = 0

    def __post_init__(self) -> None:
        array = self.value
        if not isinstance(array, np.ndarray) or array.dtype != np.float32:
            kind = getattr(array, "dtype", type(array).__name__)
            raise InputError(f"feature maps are a float32 array, not {kind}")
        if array.ndim not in (2, 3, 4) or not array.size:
            raise InputError(f"feature maps are (n, c, h, w), (c, h, w) or (h, w), not {list(array.shape)}")
        if not isinstance(self.name, str):
            raise InputError(f"name must be a text, got {type(self.name).__name__}")
        images = array.shape[0] if array.ndim == 4 else 1
        for what, number, count in (("image", self.image, images), ("first", self.first, self.channels)):
            if not isinstance(number, int | np.integer) or not 0 <= number < count:
                raise InputError(f"{what} must be a whole number from 0 to {count - 1}, got {number!r}")

    def __repr__(self) -> str:
        height, width = self.value.shape[-2:]
        return f"<FeatureMaps {self.name[:60]!r}: {self.channels} channels of {height} x {width}>"

    _repr_html_ = shown

    @property
    def channels(self) -> int:
        """How many there are."""
        return self.value.shape[-3] if self.value.ndim > 2 else 1

    @property
    def planes(self) -> F32:
        """(c, h, w): the image's maps."""
        array: F32 = self.value[self.image] if self.value.ndim == 4 else self.value
        return array if array.ndim == 3 else array[None]

    @property
    def ends(self) -> tuple[float, float]:
        """The values of the scale's two ends: of all channels of the image, so that pictures can be compared.

        Where both signs occur the ends are as far from 0; where none is negative the lower end is 0.
        """
        finite = self.planes[np.isfinite(self.planes)]
        lowest, highest = float(finite.min(initial=0.0)), float(finite.max(initial=0.0))
        most = max(-lowest, highest)
        return (0.0, highest) if lowest >= 0 else (-most, most)

    @property
    def colours(self) -> str:
        """What the colours say, in words."""
        lowest, highest = self.ends
        scale = f"dark {figure(lowest)} to yellow {figure(highest)}"
        if lowest < 0:
            scale = f"blue {figure(lowest)}, white 0, orange {figure(highest)}"
        odd = int((~np.isfinite(self.planes)).sum())
        return scale + (f"; magenta: not finite ({thousands(odd)})" if odd else "")

    def maps(self) -> list[Map]:
        """The pictures of at most 32 channels."""
        lowest, highest = self.ends
        colours = palette(SIGNED if lowest < 0 else VIRIDIS)
        found = []
        for channel in range(self.first, min(self.channels, self.first + MOST)):
            with np.errstate(all="ignore"):
                folded, folds = fold(self.planes[channel], np.add, SIDE)
            places = _places(folded, lowest, highest)
            found.append(Map(channel, png(places, colours), places.shape[1], places.shape[0], folds))
        return found


def _places(folded: F64, lowest: float, highest: float) -> npt.NDArray[np.uint8]:
    """Each number's place in the palette."""
    places: npt.NDArray[np.uint8] = np.full(folded.shape, NAN, np.uint8)
    finite = np.isfinite(folded)
    scaled = (folded[finite] - lowest) / ((highest - lowest) or 1.0)
    places[finite] = 1 + np.round((STEPS - 1) * np.clip(scaled, 0, 1)).astype(np.uint8)
    return places
