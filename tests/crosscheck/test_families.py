"""A slice of the tables of the families: a small network of each of OctConv's two tables, live."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crosscheck import families, identical
from tests.crosscheck.families import NETWORKS, judged, settings, wrong

pytestmark = pytest.mark.crosscheck

IMAGE = (64, 64)
SLICE = ("octave-resnet-26-0.5", "octave-mobilenet-v2-1.125-0.5")


def test_all_rows_of_both_tables_are_there() -> None:
    assert len(NETWORKS) == 39
    assert set(identical.MEMBERS.values()) < set(NETWORKS)
    assert len(settings(NETWORKS, IMAGE)) == 39 + len(identical.MEMBERS)


def test_a_network_of_each_table(report: list[str]) -> None:
    found = [judged(setting) for setting in settings(SLICE, IMAGE)]
    for one in found:
        assert wrong(one) is None
        assert one["counts"]["rounding"] > 0  # not refnet with itself
    report.append(families.summary(found))
    assert wrong({**found[0], "defects": ["conv1"]}) is not None
    assert wrong({**found[0], "counts": {**found[0]["counts"], "missing": 1}}) is not None


@pytest.mark.parametrize("row", ["mobilenet-v2", "mobilenet-v2-default"])
def test_the_replay_of_a_family(row: str, tmp_path: Path, report: list[str]) -> None:
    found = list(identical.run((row,), ("digit 0", "NaN"), IMAGE, tmp_path, set()))
    for one in found:
        assert (one["differ"], one["not shown"]) == ({}, [])
        assert one["values"] > 100
    report.append(identical.summary(found))
