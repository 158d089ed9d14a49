"""Layouts of images and labels: each as users have it, and nothing guessed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from refnet.core.errors import FormatError, InputError
from refnet.evaluation.images import image_set
from refnet.evaluation.labels import classes, read_numbering
from refnet.models.catalog import entry

NAMES = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in (1, 2, 3)]


@pytest.fixture
def flat(tmp_path) -> Path:
    folder = tmp_path / "flat"
    folder.mkdir()
    for name in NAMES:
        (folder / name).touch()
    return folder


def file(folder: Path, text: str, name: str = "labels.txt") -> Path:
    (folder.parent / name).write_text(text)
    return folder.parent / name


def imagenet(mapping: object = None):
    return classes(entry("resnest-50-pytorch"), 1000, None if mapping is None else str(mapping))


def labels_of(found) -> list[int]:
    return [image.label for image in found.images]


def test_ground_truth_needs_a_mapping_and_takes_the_number_of_the_name(flat):
    truth = file(flat, "490\n361\n171\n")
    meta = file(flat, "490 n01440764 tench\n361 n01443537\n171 n01484850\n", "meta.txt")
    with pytest.raises(InputError, match=r"line [123]: [0-9]+ is a number, and numbers mean different"):
        image_set(imagenet(), flat, labels=truth)
    found = image_set(imagenet(meta), flat, labels=truth)
    assert labels_of(found) == [0, 1, 2]
    assert "the N-th label" in found.layout
    (flat / NAMES[0]).unlink()
    found = image_set(imagenet(meta), flat, labels=truth)
    assert labels_of(found) == [1, 2]
    assert "1 label without an image" in found.notes[0]


def test_synsets_in_order_do_not_say_what_bare_numbers_mean(flat):
    truth, words = file(flat, "1\n2\n3\n"), file(flat, "n01440764 tench\nn01443537 goldfish\n", "w.txt")
    with pytest.raises(InputError, match="counts from 1 in an order of its own"):
        image_set(imagenet(words), flat, labels=truth)


def test_caffes_list_with_its_synsets(flat):
    val = file(flat, "".join(f"flat/{name} {2 - i}\n" for i, name in enumerate(NAMES)))
    words = file(flat, "n01440764 tench\nn01443537 goldfish\nn01484850 shark\n", "synset_words.txt")
    assert labels_of(image_set(imagenet(words), listed=val)) == [2, 1, 0]
    assert labels_of(image_set(imagenet("outputs"), listed=val)) == [2, 1, 0]
    with pytest.raises(InputError, match="is a number, and numbers mean different classes"):
        image_set(imagenet(), listed=val)


def test_kaggles_csv(flat):
    lines = [f"{name[:-5]},n0144353{7} 1 2 3 4 n01443537 5 6 7 8 " for name in NAMES]
    found = image_set(imagenet(), flat, labels=file(flat, "\n".join(["ImageId,PredictionString", *lines])))
    assert labels_of(found) == [1, 1, 1]
    bad = lines[0].replace("n01443537 5", "n01440764 5")
    with pytest.raises(FormatError, match="boxes of one synset"):
        image_set(imagenet(), flat, labels=file(flat, "ImageId,PredictionString\n" + bad))


def test_folders_by_synset(tmp_path):
    (tmp_path / "n01443537" / "deep").mkdir(parents=True)
    (tmp_path / "n01443537" / "deep" / "a.JPG").touch()
    (tmp_path / "n01443537" / "notes.md").touch()
    found = image_set(imagenet(), tmp_path)
    assert [(image.id, image.label) for image in found.images] == [("n01443537/deep/a.JPG", 1)]
    assert found.notes[0].startswith("1 file in ")
    (tmp_path / "n99999999").mkdir()
    (tmp_path / "n99999999" / "b.png").touch()
    with pytest.raises(InputError, match="n99999999 is the synset of no class"):
        image_set(imagenet(), tmp_path)
    with pytest.raises(InputError, match="classes are unknown: name the network"):
        image_set(classes(None, 1000, None), tmp_path)


def test_linked_folders_are_followed_once(tmp_path):
    """A class's folder may be a link; images that are reached twice are not counted twice."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").touch()
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "n01440764").symlink_to(tmp_path / "elsewhere")
    assert [image.id for image in image_set(imagenet(), tmp_path / "val").images] == ["n01440764/a.png"]
    (tmp_path / "val" / "n01443537").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"n01443537 is the folder .*n01440764 again, by a link"):
        image_set(imagenet(), tmp_path / "val")
    (tmp_path / "val" / "n01443537").unlink()
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"circle is the folder .*n01440764 again, by a link"):
        image_set(imagenet(), tmp_path / "val")


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "n01440764").mkdir()
    (tmp_path / "n01440764" / "a.png").touch()
    (tmp_path / "n01443537").mkdir()
    real = os.scandir

    def refused(path):
        if os.fspath(path).endswith("n01443537"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(InputError, match=r"the folder .*n01443537 cannot be read: Permission denied"):
        image_set(imagenet(), tmp_path)


def test_a_long_number_at_the_names_end(tmp_path):
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "image_000000000002.png").touch()
    found = image_set(imagenet("outputs"), tmp_path / "flat", labels=file(tmp_path / "flat", "5\n7\n"))
    assert labels_of(found) == [7]


def test_a_list_with_paths_and_a_file_of_labels(flat):
    paths = file(flat, "".join(f"flat/{name}\n" for name in NAMES), "list.txt")
    named = file(flat, "".join(f"{name}\tn01443537\n" for name in NAMES))
    assert labels_of(image_set(imagenet(), listed=paths, labels=named)) == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png n01440764\n./a.png n01440764\n", "line 2: the image a.png is listed twice"),
        ("a.png n01440764\n\nb.png fish\n", "line 3: 'fish' is not a label"),
        ("a.png\n", "expected a path, a space and a label"),
        ("", "there is no image"),
        ("a.png 1000\n", "1000 is no output: the network has 1000, from 0"),
    ],
)
def test_faults_of_a_list_are_named(tmp_path, text, message):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises((InputError, FormatError), match=message):
        image_set(imagenet("outputs"), listed=path)


def test_labels_that_are_missing_or_twice(flat):
    with pytest.raises(InputError, match=f"has no label for the image {NAMES[1]}"):
        image_set(imagenet(), flat, labels=file(flat, f"{NAMES[0]} n01440764\n"))
    twice = f"{NAMES[0]} n01440764\n" * 2
    with pytest.raises(InputError, match=r"line 2: .* has a label already, in line 1"):
        image_set(imagenet(), flat, labels=file(flat, twice))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 n01440764\n1 n01443537\n", "1 twice"),
        ("1 n01440764\n2 n01440764\n", "n01440764 twice"),
        ("1 n01440764\nn01443537\n", "line 2: 'n01443537'"),
        ("", "an empty file"),
    ],
)
def test_faults_of_a_mapping_are_named(tmp_path, text, message):
    path = tmp_path / "meta.txt"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_numbering(str(path))


def test_a_matlab_file_is_answered_with_how_to_write_it_as_text():
    with pytest.raises(InputError, match="MATLAB files are not read; write it as text first: python -c"):
        read_numbering("meta.mat")
