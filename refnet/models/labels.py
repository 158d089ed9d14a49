"""The classes' names: a table of facts for ImageNet, ten digits for the small networks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from refnet.core.errors import FormatError, InputError


@dataclass(frozen=True)
class Label:
    """One class. index: its place in the output, from 0. synset: WordNet 3.0 id, or "".

    Names are not unique in ImageNet (two classes are called "crane", two "maillot"); synsets are.

    >>> print(Label(0, "n01440764", "tench"), "/", Label(7, "", "7"))
    n01440764 tench / 7
    """

    index: int
    synset: str
    name: str

    def __str__(self) -> str:
        return f"{self.synset} {self.name}".lstrip()


@cache
def labels(dataset: str) -> tuple[Label, ...]:
    """The labels of a dataset, "imagenet" (1000) or "digits" (10), in the order of the outputs.

    Source: the ILSVRC 2012 classes in the order of their synset ids, each with the first lemma of its
    WordNet 3.0 synset. Raises InputError for another dataset.

    >>> str(labels("imagenet")[0]), labels("digits")[9].name
    ('n01440764 tench', '9')
    """
    if dataset == "digits":
        return tuple(Label(i, "", str(i)) for i in range(10))
    if dataset == "imagenet":
        path = files("refnet.models") / "imagenet.txt"
        return parse(path.read_text(encoding="utf-8"), str(path))
    raise InputError(f"dataset {dataset!r} has no labels; the datasets are imagenet, digits")


def parse(text: str, file: str) -> tuple[Label, ...]:
    """The labels of a table: lines of synset id, a space and a name; lines with # are comments.

    file: what an error names. Raises FormatError for a line that is not so.

    >>> parse("# two\\nn01440764 tench\\nn01443537 goldfish\\n", "a.txt")[1]
    Label(index=1, synset='n01443537', name='goldfish')
    """
    found: list[Label] = []
    offset = 0
    for line in text.splitlines(keepends=True):
        synset, _, name = line.strip().partition(" ")
        if synset and not synset.startswith("#"):
            if len(synset) != 9 or synset[0] != "n" or not synset[1:].isdecimal() or not name:
                raise FormatError(file, offset, repr(line.strip()[:40]), "a synset id, a space and a name")
            found.append(Label(len(found), synset, name))
        offset += len(line.encode())
    return tuple(found)
