"""The tables of class names."""

from __future__ import annotations

import pytest

from refnet.core.errors import FormatError, InputError
from refnet.models.labels import Label, labels, parse


def test_imagenet_has_a_thousand_classes_in_synset_order() -> None:
    found = labels("imagenet")
    assert [label.index for label in found] == list(range(1000))
    synsets = [label.synset for label in found]
    assert synsets == sorted(set(synsets))
    assert all(label.name == label.name.strip() != "" for label in found)


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (0, "n01440764 tench"),
        (1, "n01443537 goldfish"),
        (151, "n02085620 Chihuahua"),
        (281, "n02123045 tabby"),
        (282, "n02123159 tiger cat"),
        (999, "n15075141 toilet tissue"),
    ],
)
def test_well_known_classes(index: int, text: str) -> None:
    assert str(labels("imagenet")[index]) == text


def test_only_two_names_are_used_twice() -> None:
    names = [label.name for label in labels("imagenet")]
    assert sorted({n for n in names if names.count(n) > 1}) == ["crane", "maillot"]


def test_digits() -> None:
    assert labels("digits") == tuple(Label(i, "", str(i)) for i in range(10))
    assert str(labels("digits")[3]) == "3"


def test_unknown_dataset() -> None:
    with pytest.raises(InputError, match="dataset 'cifar' has no labels; the datasets are imagenet, digits"):
        labels("cifar")


@pytest.mark.parametrize(
    "line", ["n01440764", "tench", "n0144076 tench", "x01440764 tench", "n0144076x tench"]
)
def test_other_lines_are_refused_with_their_offset(line: str) -> None:
    with pytest.raises(FormatError, match=r"a\.txt: at byte 19: found '.*', expected a synset id"):
        parse(f"# a\nn01440764 tench\n{line}\n".replace("# a\n", "#a\n"), "a.txt")
