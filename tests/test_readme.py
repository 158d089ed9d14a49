"""The README's verdicts are refnet's: those of the shipped captures, and of the port with a wrong gamma."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

import refnet
from refnet.models.preprocess import pipeline
from refnet.models.weights import shipped_captures, shipped_folder

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_table_of_the_shipped_captures():
    total = 0
    for folder, book in shipped_captures():
        counts = refnet.verify(folder, book=book).counts
        row = re.search(rf"^{folder.name} +(\d+) +(\d+) +(\d+) +[\d.]+ s$", README, re.MULTILINE)
        assert row
        judged = sum(n for verdict, n in counts.items() if verdict != "missing")
        assert [int(one) for one in row.groups()] == [judged, counts["equal"], counts["replayed"]]
        assert judged == counts["equal"] + counts["replayed"]
        total += judged
    assert f"all {total} captured values are equal or replayed" in README


def test_the_port_whose_gamma_is_a_thousandth_too_large():
    graph = refnet.load("resnest-digits")
    x = {"data": pipeline("digits").apply(shipped_folder() / "digits" / "1770-label-3.png")}
    gamma = "layer1.0.bn1.weight"
    wrong = graph.with_weights({**graph.weights, gamma: graph.weights[gamma] * np.float32(1.001)})
    values, right = ({node.name: value for node, value in refnet.steps(one, x)} for one in (wrong, graph))
    found = refnet.verify(values, graph, inputs=x)
    (defect,) = [one for one in found.nodes if one.verdict == "defect"]
    said = f"{defect.outside} of {defect.elements} elements lie outside the bound"
    share = re.escape(f"{defect.worst.share:.2e}")
    assert re.search(rf"^{defect.name} +BatchNorm +defect +{share} +{said}$", README, re.MULTILINE)
    assert f"here {round(defect.worst.share, -1):,.0f} times what rounding can do" in README
    counts = found.counts
    verdicts = f"{counts['equal']} equal, {counts['replayed']} replayed, {counts['defect']} defect"
    assert f"{len(found.nodes)} values: {verdicts}, first {found.first_defect} (" in README
    inherited = len(refnet.diff(values, right).different) - 1
    assert f"not the {inherited} nodes that inherit its error" in README
