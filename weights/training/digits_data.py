"""Makes the digits data set of the two small networks: tensors (.npz) for training, sample images (.png).

    python weights/training/digits_data.py --npz digits.npz --png weights/digits
    python weights/training/digits_data.py --test weights/digits-test.txt

Needs scikit-learn (for `load_digits`) and Pillow; the training scripts need only the .npz and NumPy, and
import from here.

The data: scikit-learn's `load_digits` in its own order: 1797 grey 8x8 images with values 0..16, the test
part of UCI's "Optical Recognition of Handwritten Digits"
(https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits).
The images whose index is a multiple of 5 are the test set (360), all others the training set (1437).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

VALUES = "0123456789abcdefg"
"""How a value 0 to 16 is written in the file of the test set."""

HEAD = """\
# The 360 test images of refnet's two small networks: 8 x 8 pixels, 17 shades of grey.
# Each line: the index in scikit-learn's load_digits (a multiple of 5), the digit, and 64 values 0 to 16, row
# by row, as 0123456789abcdefg. Made by weights/training/digits_data.py; the values are unchanged.
#
# Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits" (its test part), UCI Machine
# Learning Repository, 1998, https://doi.org/10.24432/C50P49. Licence: Creative Commons Attribution 4.0
# International (CC BY 4.0), https://creativecommons.org/licenses/by/4.0/legalcode.
"""
"""What stands above the test set."""

BLACK = np.float32(-2)
"""What a pixel of value 0 becomes: (0 - 120) / 60."""


@dataclass(frozen=True)
class Digits:
    """Images, their tensors and labels, in scikit-learn's order.

    pixels: (n, 8, 8) uint8, 15 times scikit-learn's value. label: (n,) int64, 0..9.
    data: (n, 1, 32, 32) float32, what the pipeline "digits" makes of the pixels.
    """

    pixels: npt.NDArray[np.uint8]
    label: npt.NDArray[np.int64]
    data: npt.NDArray[np.float32]

    @property
    def test(self) -> npt.NDArray[np.bool_]:
        """(n,) bool: which images are the test set.

        >>> d = Digits(np.zeros((7, 8, 8), np.uint8), np.zeros(7, np.int64), np.zeros((7, 1, 32, 32), "f4"))
        >>> np.flatnonzero(d.test)
        array([0, 5])
        """
        return np.equal(np.arange(len(self.label)) % 5, 0)


def tensors(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(n, 8, 8) uint8 -> (n, 1, 32, 32) float32: every pixel 4 x 4 times, x = (p - 120) / 60.

    p - 120 is exact in float32, the division is rounded once.

    >>> x = tensors(np.full((1, 8, 8), 240, np.uint8))
    >>> x.shape, x.dtype, float(x.max())
    ((1, 1, 32, 32), dtype('float32'), 2.0)
    """
    upscaled = pixels.repeat(4, axis=1).repeat(4, axis=2)[:, None]  # (n, 1, 32, 32)
    return (upscaled.astype(np.float32) - np.float32(120)) / np.float32(60)


def load() -> Digits:
    """The data set from scikit-learn. Raises ImportError if scikit-learn is not installed."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped,unused-ignore]

    found: Any = load_digits()
    pixels = (found.images * 15).astype(np.uint8)  # 0..16 -> 0..240
    return Digits(pixels, found.target.astype(np.int64), tensors(pixels))


def samples(digits: Digits) -> dict[str, int]:
    """The sample images: file name -> index; of each class the last test image.

    >>> pixels, label = np.zeros((11, 8, 8), np.uint8), np.array([3, 0, 0, 0, 0, 1, 0, 0, 0, 0, 3])
    >>> samples(Digits(pixels, label, tensors(pixels)))
    {'5-label-1.png': 5, '10-label-3.png': 10}
    """
    test = np.flatnonzero(digits.test)
    _, last = np.unique(digits.label[test][::-1], return_index=True)
    return {f"{i}-label-{digits.label[i]}.png": int(i) for i in test[::-1][np.sort(last)][::-1]}


def shifted(
    data: npt.NDArray[np.float32], shifts: npt.NDArray[np.int64], reach: int
) -> npt.NDArray[np.float32]:
    """Each image moved by its own (dy, dx), filled with black: the augmentation of both trainings.

    data: (n, 1, h, w). shifts: (n, 2), each within -reach..reach pixels.

    >>> x = np.zeros((1, 1, 2, 2), np.float32)
    >>> shifted(x, np.array([[0, 1]]), 1)[0, 0]
    array([[-2.,  0.],
           [-2.,  0.]], dtype=float32)
    """
    h, w = data.shape[2:]
    padded = np.pad(data, ((0, 0), (0, 0), (reach, reach), (reach, reach)), constant_values=BLACK)
    moved = np.empty_like(data)
    for i, (dy, dx) in enumerate(shifts):
        moved[i] = padded[i, :, reach - dy : reach - dy + h, reach - dx : reach - dx + w]
    return moved


def score(digits: Digits, found: npt.NDArray[np.float32]) -> str:
    """How many answers are right, and which test images are answered wrongly (`index:answer`).

    found: (n, classes) logits or probabilities; the answer is the first of the largest.

    >>> pixels, found = np.zeros((6, 8, 8), np.uint8), np.eye(10, dtype=np.float32)[[0, 1, 2, 3, 4, 5]]
    >>> score(Digits(pixels, np.array([0, 1, 2, 3, 3, 3]), tensors(pixels)), found)
    'train 3 of 4, test 1 of 2, wrong 5:5'
    """
    answer, test = found.argmax(1), digits.test
    right = answer == digits.label
    wrong = " ".join(f"{i}:{answer[i]}" for i in np.flatnonzero(test & ~right))
    counts = f"train {right[~test].sum()} of {(~test).sum()}, test {right[test].sum()} of {test.sum()}"
    return f"{counts}, wrong {wrong or 'none'}"


def write_npy(path: Path, array: npt.NDArray[np.float32]) -> None:
    """Write one array."""
    _atomic(path, lambda file: np.save(file, array, allow_pickle=False))


def write_npz(path: Path, digits: Digits) -> None:
    """Write the data set for an environment without scikit-learn."""
    arrays: dict[str, Any] = {"pixels": digits.pixels, "label": digits.label, "data": digits.data}
    _atomic(path, lambda file: np.savez_compressed(file, **arrays))


def read_npz(path: Path) -> Digits:
    """Read what `write_npz` wrote; pickled objects are refused."""
    with np.load(path, allow_pickle=False) as arrays:
        return Digits(arrays["pixels"], arrays["label"], arrays["data"])


def write_png(folder: Path, digits: Digits) -> None:
    """Write the sample images into the folder as 8-bit grey PNG, 8 x 8 pixels each."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for name, index in samples(digits).items():
        image = Image.fromarray(digits.pixels[index])
        _atomic(folder / name, partial(image.save, format="png", optimize=True))


def as_text(digits: Digits) -> str:
    """The test set as text: HEAD, and a line per image.

    >>> d = Digits(np.full((2, 8, 8), 240, np.uint8), np.array([7, 1]), np.zeros((2, 1, 32, 32), "f4"))
    >>> as_text(d).splitlines()[-1][:20]
    '0 7 gggggggggggggggg'
    """
    lines = []
    for index in np.flatnonzero(digits.test):
        values = "".join(VALUES[p // 15] for p in digits.pixels[index].ravel())
        lines.append(f"{index} {digits.label[index]} {values}\n")
    return HEAD + "".join(lines)


def write_test(path: Path, digits: Digits) -> None:
    """Write the test set as one text file, with its source and licence."""
    _atomic(path, lambda file: file.write(as_text(digits).encode()))


def _atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as file:
        write(file)
    os.replace(unfinished, path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the digits data set from scikit-learn.")
    parser.add_argument("--npz", type=Path, help="write tensors and labels into this file")
    parser.add_argument("--png", type=Path, help="write the sample images into this folder")
    parser.add_argument("--test", type=Path, help="write the test set into this text file")
    options = parser.parse_args()
    digits = load()
    if options.npz:
        write_npz(options.npz, digits)
    if options.png:
        write_png(options.png, digits)
    if options.test:
        write_test(options.test, digits)
    print(f"{len(digits.label)} images, {int(digits.test.sum())} of them for testing")


if __name__ == "__main__":
    main()
