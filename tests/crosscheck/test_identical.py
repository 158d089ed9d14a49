"""A slice of the table of identical bits: odd numbers, a batch, MXNet's own symbol file, and the control."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import refnet
from refnet.arithmetic.fusion_groups import hidden
from refnet.arithmetic.replay import Replay
from refnet.core.orders import Part, Program, Recipe
from refnet.formats.book import read, write
from refnet.ops import BatchNorm
from tests.crosscheck import identical
from tests.crosscheck.identical import OCTAVE, run, summary

pytestmark = pytest.mark.crosscheck

ROW, IMAGE = "mxnet-1x2", (64, 64)
SLICE = ("digit 0", "subnormal", "infinities", "NaN")


def test_values_are_identical_with_odd_numbers_too(tmp_path: Path, report: list[str]) -> None:
    found = list(run((ROW,), SLICE, IMAGE, tmp_path, set()))
    assert [one["input"] for one in found] == list(SLICE)
    for one in found:
        assert one["differ"] == {}
        assert one["values"] == one["nodes"] > 800
    assert found[-1]["not finite"] > 0
    report.append(summary(found))

    # The control: one recipe of another formula, and its node is named.
    path = tmp_path / f"{ROW}-64x64.json"
    book = read(path)
    key = next(key for key, one in book.recipes.items() if key.startswith(BatchNorm.__name__))
    do = book.recipes[key].parts[-1].do
    assert not isinstance(do, Program)
    other = "scaled" if do.formula != "scaled" else "centred"
    changed = Recipe((Part(replace(do, formula=other)),))
    path.unlink()
    write(path, replace(book, recipes={**book.recipes, key: changed}))
    (again,) = run((ROW,), SLICE[:1], IMAGE, tmp_path, set())
    assert again["differ"]


def test_done_runs_are_not_repeated(tmp_path: Path) -> None:
    done = {json.dumps([ROW, one, list(IMAGE)]) for one in SLICE}
    assert list(run((ROW,), SLICE, IMAGE, tmp_path, done)) == []


def test_the_default_executor_that_joins_nodes(tmp_path: Path, report: list[str]) -> None:
    """Every value that it shows, and the plain symbol's output."""
    image = f"{IMAGE[0]}x{IMAGE[1]}"
    found = list(run(("mxnet-default-shown",), SLICE, IMAGE, tmp_path, set()))
    book = tmp_path / f"mxnet-default-shown-{image}.json"
    joined = read(book).joined
    assert joined is not None
    for one in found:
        assert (one["differ"], one["not shown"]) == ({}, [])
        assert one["values"] == one["nodes"] - len(set(hidden(joined)) & set(executed(book))) > 600
    shutil.copy(book, tmp_path / f"mxnet-default-{image}.json")
    outputs = list(run(("mxnet-default",), SLICE, IMAGE, tmp_path, set()))
    assert [(one["values"], one["differ"]) for one in outputs] == [(1, {})] * len(SLICE)
    report.append(summary([*found, *outputs]))


def executed(book: Path) -> list[str]:
    """The nodes of the graph that the book is of."""
    graph = refnet.load(OCTAVE, weights="seed:0", image=IMAGE)
    return [node.name for node in Replay(read(book)).fused_graph(graph).nodes]


def test_a_symbol_file_of_mxnets_own(tmp_path: Path) -> None:
    """relu keeps NaN there, AdaptiveAvgPooling divides twice, batch norms behind depthwise convolutions."""
    found = list(run(("mobilenet",), SLICE, IMAGE, tmp_path, set()))
    assert [one["differ"] for one in found] == [{}] * len(SLICE)
    assert identical.main([str(tmp_path / "none.jsonl"), "--summary"]) == 0
