"""Which images, and the label of each: from a folder, a list, or the digits that ship with refnet.

images ── DIR of folders, one per class ──────────────── the folder's name is the label
      ├── DIR, and a file of labels ──────────────────── by name, or by the number at the name's end
      ├── a list of `path label`, or of paths and labels
      └── nothing, for a network of digits ───────────── weights/digits-test.txt
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from refnet.core.errors import FormatError, InputError
from refnet.core.words import counted
from refnet.evaluation.labels import Classes, read_lines
from refnet.models.weights import shipped_folder

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
)
"""What is taken for an image in a folder, in small or capital letters; a list may name any file."""
DIGITS = "digits-test.txt"
WHAT = "a list of images' labels"


@dataclass(frozen=True)
class LabelledImage:
    """id: its name in the results. label: the right output. source: an absolute path, or 64 grey bytes."""

    id: str
    label: int
    source: str | bytes


@dataclass(frozen=True)
class ImageSet:
    """The images, sorted by id. layout: where they come from, in words. notes: what was left out."""

    images: tuple[LabelledImage, ...]
    layout: str
    notes: tuple[str, ...] = ()


def image_set(
    classes: Classes,
    folder: str | os.PathLike[str] | None = None,
    listed: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
) -> ImageSet:
    """The images with their labels.

    folder: of folders that are called like classes, or together with `labels` of images. listed: a file with
    lines `path label`, or with `labels` only paths; relative paths are relative to the list's folder. labels:
    one number per line (the number at the end of an image's name says which), or lines `name label`, or
    Kaggle's CSV. Without folder and list: the 360 digits. Raises InputError for images without a label, for
    two with the same id, for no image at all.
    """
    if folder is not None and listed is not None:
        raise InputError(f"images {os.fspath(folder)} and list {os.fspath(listed)}: give one or the other")
    if listed is not None:
        found = _listed(classes, Path(listed), labels)
    elif folder is None:
        if labels is not None:
            raise InputError(f"labels {os.fspath(labels)}: name the images too, a folder or a list")
        found = digits()
    elif not Path(folder).is_dir():
        raise InputError(f"images {os.fspath(folder)}: is not a folder")
    elif labels is None:
        found = _by_class(classes, Path(folder))
    else:
        files, notes = _files(Path(folder))
        found = _with_labels(
            classes, files, Path(labels), f"{os.fspath(folder)} with {os.fspath(labels)}", notes
        )
    if not found.images:
        raise InputError(f"{found.layout}: there is no image")
    return ImageSet(_once(found), found.layout, found.notes)


def _once(found: ImageSet) -> tuple[LabelledImage, ...]:
    """The images, each once, sorted by id; digits keep their order."""
    seen: set[str] = set()
    for image in found.images:
        if image.id in seen:
            raise InputError(f"{found.layout}: the image {image.id} is listed twice")
        seen.add(image.id)
    if any(isinstance(image.source, bytes) for image in found.images):
        return found.images
    return tuple(sorted(found.images, key=lambda image: image.id))


def digits() -> ImageSet:
    """The 360 test digits that ship with refnet; ids are their places in scikit-learn's `load_digits`.

    >>> found = digits()
    >>> len(found.images), found.images[1].id, found.images[1].label
    (360, '5', 5)
    """
    path = shipped_folder() / DIGITS
    images = []
    for number, line in read_lines(path, "the shipped digits"):
        match = re.fullmatch(r"(\d{1,4}) (\d) ([0-9a-g]{64})", line)
        if match is None:
            raise FormatError(path, None, f"line {number}: {line[:40]!r}", "index, digit, 64 values 0 to g")
        pixels = bytes(15 * int(value, 17) for value in match[3])
        images.append(LabelledImage(match[1], int(match[2]), pixels))
    return ImageSet(tuple(images), f"the {len(images)} test digits that ship with refnet")


def _files(folder: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Id (the path in the folder, with /) -> absolute path, of all images in it; what was left out.

    Folders that are links are followed; one that is there twice, or that cannot be read, is an InputError.
    """
    found: dict[str, str] = {}
    others = 0
    reached: dict[str, str] = {}
    for place, folders, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        real = os.path.realpath(place)
        if real in reached:
            raise InputError(f"images {folder}: {place} is the folder {reached[real]} again, by a link")
        reached[real] = place
        folders.sort()
        for name in names:
            path = Path(place, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                found[path.relative_to(folder).as_posix()] = os.path.abspath(path)
            else:
                others += 1
    note = (f"{counted(others, 'file')} in {folder} left out: not named like an image",) if others else ()
    return found, note


def _unreadable(error: OSError) -> None:
    raise InputError(f"images: the folder {error.filename} cannot be read: {error.strerror or error}")


def _by_class(classes: Classes, folder: Path) -> ImageSet:
    """Folders that are called like classes, as in ImageNet's training set and torchvision's ImageFolder."""
    files, notes = _files(folder)
    flat = next((name for name in files if "/" not in name), None)
    if flat is not None:
        raise InputError(
            f"{folder}: {flat} stands in no class's folder: where are its labels? (--labels FILE)"
        )
    images = [
        LabelledImage(name, classes.label(name.split("/")[0], os.path.join(folder, name)), path)
        for name, path in files.items()
    ]
    return ImageSet(tuple(images), f"{folder}, folders by class", notes)


def _listed(classes: Classes, file: Path, labels: str | os.PathLike[str] | None) -> ImageSet:
    """A list of `path label`; with a file of labels, of paths."""
    lines = read_lines(file, WHAT)
    if labels is not None:
        files = _paths(file, ((number, line) for number, line in lines))
        return _with_labels(classes, files, Path(labels), f"{file} with {os.fspath(labels)}", ())
    texts: dict[int, str] = {}
    split = []
    for number, line in lines:
        path, _, text = line.replace("\t", " ").rpartition(" ")
        if not path.strip():
            raise FormatError(file, None, f"line {number}: {line[:80]!r}", "a path, a space and a label")
        texts[number] = text
        split.append((number, path.strip()))
    files = _paths(file, split)
    images = [
        LabelledImage(name, classes.label(text, f"{file}: line {number}"), path)
        for (number, text), (name, path) in zip(texts.items(), files.items(), strict=True)
    ]
    return ImageSet(tuple(images), f"{file}, a list of paths and labels")


def _paths(file: Path, lines: Iterable[tuple[int, str]]) -> dict[str, str]:
    """Id -> absolute path, of the paths in a list."""
    found: dict[str, str] = {}
    for number, text in lines:
        name = posixpath.normpath(text.replace(os.sep, "/"))
        if name in found:
            raise InputError(f"{file}: line {number}: the image {name} is listed twice")
        found[name] = os.path.abspath(file.parent / text)
    return found


def _with_labels(
    classes: Classes, files: Mapping[str, str], file: Path, layout: str, notes: tuple[str, ...]
) -> ImageSet:
    """Images and a file of labels."""
    lines = read_lines(file, WHAT)
    if lines and all(re.fullmatch(r"\d{1,9}", line) for _, line in lines):
        return _by_number(classes, files, file, lines, layout, notes)
    texts = _named(file, lines)
    images, used = [], set()
    for name, path in files.items():
        base = posixpath.basename(name)
        key = next((k for k in (name, base, posixpath.splitext(base)[0]) if k in texts), None)
        if key is None:
            raise InputError(f"{file}: has no label for the image {name}")
        number, text = texts[key]
        if key in used:
            raise InputError(f"{file}: line {number} is the label of two images, one of them {name}")
        used.add(key)
        images.append(LabelledImage(name, classes.label(text, f"{file}: line {number}"), path))
    return ImageSet(tuple(images), f"{layout} (by name)", (*notes, *_unused(file, len(texts), len(used))))


def _named(file: Path, lines: list[tuple[int, str]]) -> dict[str, tuple[int, str]]:
    """Name -> (line, label), of lines `name label`, or of Kaggle's `name,label x y x y label ...`."""
    kaggle = bool(lines) and lines[0][1] == "ImageId,PredictionString"
    found: dict[str, tuple[int, str]] = {}
    for number, line in lines[kaggle:]:
        if kaggle:
            name, _, boxes = line.partition(",")
            texts = sorted(set(boxes.split()[::5]))
            if len(texts) != 1 or len(boxes.split()) % 5:
                raise FormatError(file, None, f"line {number}: {line[:80]!r}", "boxes of one synset")
            text = texts[0]
        else:
            name, _, text = line.replace("\t", " ").rpartition(" ")
            name = posixpath.normpath(name.strip()) if name.strip() else ""
        if not name:
            raise FormatError(file, None, f"line {number}: {line[:80]!r}", "an image's name and its label")
        if name in found:
            raise InputError(f"{file}: line {number}: {name} has a label already, in line {found[name][0]}")
        found[name] = number, text
    return found


def _by_number(
    classes: Classes,
    files: Mapping[str, str],
    file: Path,
    lines: list[tuple[int, str]],
    layout: str,
    notes: tuple[str, ...],
) -> ImageSet:
    """ILSVRC's ground truth: the N-th line is the label of the image whose name ends with N."""
    numbering = classes.numbering
    if numbering is not None and not numbering.stated:
        raise InputError(
            f"{file} has bare numbers, as ILSVRC's ground truth, which counts from 1 in an order of its own; "
            f"the mapping {numbering.words} does not say its numbers: it needs lines NUMBER SYNSET"
        )
    images = []
    used: dict[int, str] = {}
    for name, path in files.items():
        match = re.search(r"(\d+)$", posixpath.splitext(name)[0])
        number = int(match[1]) if match and len(match[1]) < 100 else 0
        if not 1 <= number <= len(lines):
            raise InputError(f"{file}: the image {name} ends with no number from 1 to {len(lines)}, its line")
        if number in used:
            raise InputError(f"{file}: label {number} is that of two images, {used[number]} and {name}")
        used[number] = name
        line, text = lines[number - 1]
        images.append(LabelledImage(name, classes.label(text, f"{file}: line {line}"), path))
    words = f"{layout} (the N-th label is of the image whose name ends with N)"
    return ImageSet(tuple(images), words, (*notes, *_unused(file, len(lines), len(used))))


def _unused(file: Path, known: int, used: int) -> tuple[str, ...]:
    rest = known - used
    return (f"{file}: {counted(rest, 'label')} without an image",) if rest else ()
