"""An image file as RGB pixels, whatever its format, and the limits of hostile ones."""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from refnet.core.errors import FormatError, InputError, RefnetError, UnsupportedError

if TYPE_CHECKING:
    from PIL.Image import Image

Turned = Literal["all", "JPEG", "none"]
"""Which images a reader turns upright by their EXIF orientation: whatever has one, JPEG files only, none."""

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""What is decoded. None of these decoders starts a program (Pillow's EPS decoder would)."""

MAX_PIXELS = 89_478_485
"""Largest image, in pixels: Pillow's own limit, above which it warns of a decompression bomb."""

MAX_SIDE = 1 << 16
"""Largest side, in pixels. One of 80 million takes a gigabyte after 10 KB of file; no photograph has one."""

EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")


def image_name(source: str | os.PathLike[str] | Image) -> str:
    """What messages call it: the file, or "image"."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return str(getattr(source, "filename", "") or "image")


def read_image(source: str | os.PathLike[str] | Image, turned: Turned) -> Image:
    """The first frame as mode RGB. turned: the formats in which the EXIF orientation is applied.

    Raises InputError (no such file, a folder, too large), FormatError (not an image, damaged) and
    UnsupportedError (float or 32-bit samples, Lab).

    >>> from PIL import Image
    >>> read_image(Image.new("L", (3, 2), 7), "all").getpixel((0, 0))
    (7, 7, 7)
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, Image.Image):
        return _rgb(source, turned, image_name(source), None)
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
        return _rgb(image, turned, str(path), file.tell)


def _rgb(image: Image, turned: Turned, name: str, tell: object) -> Image:
    """Decode the first frame, turn it, convert to RGB (alpha is dropped)."""
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
            jpeg = image.format in ("JPEG", "MPO")  # MPO: a JPEG file with further pictures behind the first
            if turned == "all" or (turned == "JPEG" and jpeg):
                image = ImageOps.exif_transpose(image)
            if wide:
                image = Images.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            return image.convert("RGB")
    except RefnetError:
        raise
    except Exception as error:  # decoders raise many kinds on damaged files
        offset = tell() if callable(tell) else None
        raise FormatError(name, offset, f"a damaged image ({error})") from None
