"""All 1000 class names against the tables in the public package timm."""

from __future__ import annotations

import pytest

from refnet.models.labels import labels
from tests.crosscheck import extras

pytestmark = pytest.mark.crosscheck

PROGRAM = """
import importlib.metadata, importlib.util, json, pathlib  # timm is not imported: it would need torch
folder = pathlib.Path(importlib.util.find_spec("timm").origin).parent / "data" / "_info"
read = lambda name: (folder / name).read_text(encoding="utf-8").splitlines()
print(json.dumps({
    "version": importlib.metadata.version("timm"),
    "synsets": read("imagenet_synsets.txt"),
    "lemmas": dict(line.split("\\t", 1) for line in read("imagenet_synset_to_lemma.txt")),
}))
"""


def test_every_class_is_that_of_timm(report: list[str]) -> None:
    timm = extras.ask("timm", PROGRAM)
    expected = [(synset, timm["lemmas"][synset].split(",")[0].strip()) for synset in timm["synsets"]]
    assert len(expected) == 1000
    assert [(label.synset, label.name) for label in labels("imagenet")] == expected
    report.append(f"1000 of 1000 classes as in timm {timm['version']}")
