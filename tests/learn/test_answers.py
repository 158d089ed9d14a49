"""The answers of chapter 6 name figures: each is what the exercise's figures say, and none is left out."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.learn import page as learn
from refnet.models.preprocess import pipeline
from refnet.models.weights import shipped_folder
from tests.helpers.porting_bugs import HIDDEN
from tests.learn import exercises, facts

Fact = dict[str, Any]


def row(one: Fact, name: str = "") -> Fact:
    """The row of that name; without one, the row that the answer is about."""
    (found,) = [r for r in one["rows"] if r["name"] == (name or one["told"])]
    return found


def norms(one: Fact) -> list[int]:
    return sorted(r["ulps"] for r in one["rows"] if r["op"] == "BatchNorm")


SAID: dict[int, dict[str, Callable[[Fact], bool]]] = {
    1: {
        "differs from plain in thousands of elements": lambda e: row(e, "conv1_bn")["differ"] >= 2000,
        "less than half of its bound": lambda e: row(e, "conv1_bn")["share"] < 0.5,
    },
    2: {"half a million radii away": lambda e: 450_000 < row(e)["share"] < 550_000},
    3: {
        "the row with 156 ulps": lambda e: row(e)["ulps"] == 156,
        "the row uses a third": lambda e: round(3 * row(e)["share"], 1) == 1.0,
        "Most elements differ from": lambda e: all(2 * r["inherited"] > r["elements"] for r in e["rows"]),
    },
    4: {
        "the others are right": lambda e: row(e)["differ"] == e["proof"]["outside"] < row(e)["elements"],
        "four real elements of nine, so the value is 9/4": lambda e: (
            e["proof"]["at"][2:] == [0, 0]
            and round(float(e["proof"]["found"]["text"]) / float(e["proof"]["exact"]["text"]), 4) == 9 / 4
        ),
    },
    5: {
        "has another last bit: one ulp": lambda e: (row(e)["differ"], row(e)["ulps"]) == (1, 1),
        "Two batch norms have hundreds and thousands of ulps": lambda e: (
            len(norms(e)) == 2 and 200 <= norms(e)[0] < 1000 and 2000 <= norms(e)[1] < 10_000
        ),
    },
    6: {
        "The epsilon is 10⁻⁵": lambda e: "1e-5 for 1e-4" in e["bug"],
        "this network has 10⁻⁴": lambda e: refnet.load(e["network"]).by_name[e["told"]].op.eps == 1e-4,
        "begins at the fourth decimal": lambda e: differ_first(e) == 4,
        "only a few ulps wide": lambda e: e["proof"]["radius_ulps"] < 5,
        "hundreds of radii outside": lambda e: 200 <= row(e)["share"] < 1000,
    },
    7: {"about sixteen million": lambda e: round(row(e)["share"] / 1e6) == 16},
    8: {
        "In the picture you see the blocks of 2": lambda e: (
            refnet.load(e["network"]).by_name[e["told"]].op.scale == 2
        )
    },
    9: {
        "Thousands of ulps in a batch norm": lambda e: norms(e)[-1] >= 2000,
        "uses less than half": lambda e: row(e)["share"] < 0.5,
    },
    10: {
        "The sum of 108 products": lambda e: e["proof"]["terms"] == 108,
        "tens of thousands of them and uses a third of its bound": lambda e: (
            row(e, "L2_B01_conv2_bn-l")["ulps"] >= 20_000
            and 0.3 < row(e, "L2_B01_conv2_bn-l")["share"] < 0.37
        ),
        "look at the second batch norm": lambda e: (
            [r["name"] for r in e["rows"] if r["op"] == "BatchNorm"][1] == "L2_B01_conv2_bn-l"
        ),
        "float16, which keeps 11 of 24 bits": lambda e: np.finfo(np.float16).nmant == 10,
        "With 2,304 terms instead of 108": lambda e: (
            [one.kind for one in exercises.CATALOGUE if one.name == e["bug"].replace("108", "2304")]
            == [HIDDEN]
        ),
    },
    11: {
        "about half of the elements are right": lambda e: 0.45 < row(e)["differ"] / row(e)["elements"] < 0.55
    },
    12: {
        "The sum of 108 products": lambda e: e["proof"]["terms"] == 108,
        "less than 4 % of its bound": lambda e: row(e)["share"] < 0.04,
    },
}
"""Exercise -> what its answer says -> whether the figures say so."""


def differ_first(one: Fact) -> int:
    """The decimal at which captured and exact value first differ."""
    found, exact = (one["proof"][key]["text"].split(".") for key in ("found", "exact"))
    assert found[0] == exact[0]
    return next(i for i, (a, b) in enumerate(zip(found[1], exact[1], strict=False), 1) if a != b)


@pytest.fixture(scope="module")
def chapter() -> str:
    (found,) = re.findall(r'<section id="bugs".*?</section>', learn.page(), re.DOTALL)
    return html.unescape(found)


@pytest.mark.parametrize("number", range(1, 13))
def test_an_answers_figures_are_those_of_its_exercise(number, chapter):
    one = json.loads(exercises.FILE.read_text())[number - 1]
    answer = re.findall(r'<details class="answer">.*?<p><b>.*?</b> (.*?)</p>', chapter, re.DOTALL)[number - 1]
    for said, holds in SAID[number].items():
        assert said in answer, said
        assert holds(one), said
        answer = answer.replace(said, "")
    words = r"(?<!float)(?<!float\d)\d+|\w*(?:half|third|hundred|thousand|million|most of)\w*"
    rest = re.findall(words, answer)
    assert set(rest) <= {"0", "2"}  # a number that nobody checks


def test_where_the_other_parts_attention_changes_nothing_both_parts_are_zero():
    """As the answer of exercise 7 says."""
    (one,) = [x for x in exercises.EXERCISES if x.bug == "attention of the other part"]
    bug = exercises.found_in(one)
    graph = refnet.load(exercises.NETWORKS[bug.network])
    (file,) = (shipped_folder() / "digits").glob(f"*-label-{one.digit}.png")
    values = exercises.captured(graph, pipeline("digits").apply(file), bug)
    node = graph.by_name[bug.nodes[0]]
    right = refnet.Plain().evaluate(node, *(values[name] for name in node.data))
    parts = values["layer1.0.conv2.relu"].reshape(1, 2, *right.shape[1:])
    same = values[node.name].view("u4") == right.view("u4")
    assert same.any()
    assert (parts[:, 0][same] == 0).all()
    assert (parts[:, 1][same] == 0).all()


def test_the_questions_figures_are_those_of_the_exercises(chapter):
    """Exercises 10 and 12 have the sum of 108 products, exercise 6 the batch norm."""
    found = json.loads(exercises.FILE.read_text())
    assert (
        "its bound is a few ulps. The bound of a sum of 108 products is more than a hundred ulps" in chapter
    )
    assert found[5]["proof"]["radius_ulps"] < 5
    assert all(found[i]["proof"]["terms"] == 108 and found[i]["proof"]["radius_ulps"] > 100 for i in (9, 11))


def test_chapter_4_compares_low_maps_with_averaged_high_ones():
    """Its figures are those of facts.json, which test_learn.py computes again; its words hold for them."""
    (chapter_4,) = re.findall(r'<section id="octave".*?</section>', learn.page(), re.DOTALL)
    text = " ".join(html.unescape(chapter_4).split())
    found = json.loads(facts.FILE.read_text())["octave"]["shares"]
    own = {label: share for label, _, share in found}
    apart = own["low"] - own["high, averaged"]
    said = f"The two differ by {abs(100 * apart):.1f} points, while noise has {100 * own['noise']:.1f} %."
    assert said in text
    assert abs(apart) < 0.1 * (own["low"] - own["noise"])  # little, beside what both have more than noise
