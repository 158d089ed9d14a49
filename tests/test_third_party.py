"""docs/third-party.md: the totals that the text states are those of the table's rows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "third-party.md").read_text(encoding="utf-8")
COLUMNS = ("nodes", "same bits", "within the bound", "not shown", "defects", "unjudged")


def rows(first: str) -> list[list[str]]:
    """The cells of each row of the table whose heading begins so."""
    table = PAGE[PAGE.index(first) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


@pytest.mark.parametrize(("way", "start"), [("legacy", 2), ("torch", 8)])
def test_the_networks_add_up(way, start):
    runs = [
        [int(cell.replace(",", "")) for cell in row[start : start + 6]]
        for row in rows("| network | side | legacy: nodes")
        if row[start] not in ("-", "refused")
    ]
    for nodes, *parts in runs:
        assert nodes == sum(parts)
    total = dict(zip(COLUMNS, map(sum, zip(*runs, strict=True)), strict=True))
    (text,) = re.findall(rf"^- \*{way}\*: (.*?)(?=^- |^$)", PAGE, re.MULTILINE | re.DOTALL)
    said = " ".join(text.split())
    assert (
        f"{len(runs)} networks, {total['nodes']:,} nodes: {total['same bits']:,} with the same bits" in said
    )
    assert f"{total['within the bound']:,} within the bound" in said
    assert f"{total['defects']} defects, {total['unjudged']} unjudged" in said
    assert f"{total['not shown']:,} not shown" in said


def test_the_bugs_are_counted():
    bugs = rows("| bug | in practice | network")
    assert f"{len(bugs)} bugs in {len({row[2] for row in bugs})} networks" in PAGE
