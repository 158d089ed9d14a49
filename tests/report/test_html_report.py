"""The HTML report: nothing in it is anybody's code but its own, and it says what the record says."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jinja2 import UndefinedError

import refnet
from refnet.core.errors import InputError
from refnet.report import html
from refnet.report.html import stages
from refnet.report.html_text import LONGEST, VERDICTS, float32
from refnet.report.terminal import clean
from refnet.verification.verify import Values, verify_values
from tests.helpers.made_verification import Judged, Made, verification

EVIL = (
    "</style></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`&lt;\u202e\x1b\x00\n\ud800é漢"
)
CALM = "x/y/CALM"
"""A text with the separators that `stages` looks for, as EVIL has them, and nothing hostile in it."""
VOID = {"meta", "img", "input", "br", "rect"}


class Page(HTMLParser):
    """The elements of a page with their texts; fails on tags that are not closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[dict[str, Any]] = []
        self.all: list[dict[str, Any]] = []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), tag
        element = {"tag": tag, "attrs": dict(attrs), "text": "", "path": tuple(self.open)}
        self.all.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def find(self, tag: str, **attrs: str) -> list[dict[str, Any]]:
        return [e for e in self.all if e["tag"] == tag and attrs.items() <= e["attrs"].items()]

    def inside(self, outer: dict[str, Any], tag: str, **attrs: str) -> list[dict[str, Any]]:
        return [e for e in self.find(tag, **attrs) if any(one is outer for one in e["path"])]


@pytest.fixture(scope="module")
def made() -> Made:
    """The digits network with every verdict."""
    graph = refnet.load("resnest-digits")
    names = [node.name for node in graph.nodes]
    verdicts = dict(zip(names[20:], ("defect", "unjudged", "missing", "replayed", "defect"), strict=False))
    return verification(graph, verdicts=verdicts)


@pytest.fixture(scope="module")
def page(made) -> Page:
    return Page(html.page(made, capture="a capture"))


def spoiled(value: Any, key: str = "") -> Any:
    """The same record with hostile text appended to every string in it but the verdicts."""
    if isinstance(value, dict):
        inner = {k: spoiled(one, k) for k, one in value.items()}
        if key in ("reference", "flags"):  # keys that are printed too
            inner = {k + EVIL: one for k, one in inner.items()}
        return inner
    if isinstance(value, list):
        return [spoiled(one, key) for one in value]
    return value + EVIL if isinstance(value, str) and key != "verdict" else value


def test_hostile_text_adds_no_element_and_no_attribute(made, page):
    hostile = html.page(Made(spoiled(made.content), made.nodes), model="m" + EVIL, capture="c" + EVIL)
    found = Page(hostile)
    allowed = {(e["tag"], frozenset(e["attrs"])) for e in page.all}
    assert {(e["tag"], frozenset(e["attrs"])) for e in found.all} <= allowed
    for tag in ("script", "style", "img", "pre", "details", "svg"):
        assert len(found.find(tag)) == len(page.find(tag))
    for tag in ("script", "style"):
        assert found.find(tag)[0]["text"] == page.find(tag)[0]["text"]
    rows = [e for e in found.find("li") if "data-verdict" in e["attrs"]]
    for row, node in zip(rows, made.content["nodes"], strict=True):
        assert found.inside(row, "span", **{"class": "name"})[0]["text"] == node["name"] + clean(EVIL)
        assert row["attrs"]["data-kind"] == node["kind"] + clean(EVIL)
    shown = found.find("body")[0]["text"]
    assert "\u202e" not in shown
    assert "\x1b" not in shown
    assert hostile.encode()


def changed(value: Any, path: tuple[str | int, ...], text: Any) -> Any:
    """A copy of a record in which one place has another value; a path's last part `KEY` renames a key."""
    step, rest = path[0], path[1:]
    if isinstance(value, dict):
        if rest == ("KEY",):
            return {text if key == step else key: one for key, one in value.items()}
        return value | {step: changed(value[step], rest, text) if rest else text}
    return [(changed(one, rest, text) if rest else text) if i == step else one for i, one in enumerate(value)]


NODE, OUTPUT = ("nodes", 5), ("outputs", 0)
TEXTS = [
    ("graph", "name"),
    ("graph", "hash"),
    ("reference", "framework"),
    ("reference", "framework", "KEY"),
    ("reference", "flags", "A", "KEY"),
    ("reference", "flags", "A"),
    ("reference", "more", 0),
    ("reference", "more", 1, "deep"),
    ("reference", "more", 1, "deep", "KEY"),
    ("book", "reference"),
    ("book", "reference", "KEY"),
    ("summary", "line"),
    ("written_by",),
    ("seconds",),
    ("notes", 0),
    ("suggestion",),
    ("surplus", 0),
    (*OUTPUT, "name"),
    (*OUTPUT, "value"),
    (*OUTPUT, "largest"),
    *((*NODE, key) for key in ("name", "op", "kind", "reason")),
    *((*NODE, key, 0) for key in ("inputs", "over", "shape")),
    *((*NODE, "worst", who, key) for who in ("found", "plain", "golden") for key in ("hex", "value")),
    (*NODE, "worst", "share"),
    (*NODE, "worst", "bound", "center"),
    (*NODE, "worst", "bound", "radius"),
    (*NODE, "share", "median"),
    (*NODE, "inherited", "largest"),
]
"""Where a record may hold a text that somebody else chose, or a word in the place of a number."""


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: ".".join(map(str, path)))
def test_each_text_of_a_capture_is_shown_as_text(made, path):
    """One hostile text at a time: it is on the page, escaped, and adds no element and no attribute."""
    content = made.content | {"nodes": made.content["nodes"][:8], "book": {"reference": "a book"}}
    content |= {
        "notes": ["a note"],
        "reference": {"framework": "f", "flags": {"A": "B"}, "more": ["x", {"deep": "y"}]},
    }
    index = next(i for i, node in enumerate(content["nodes"]) if node["worst"])
    content = changed(
        content, ("nodes", index), content["nodes"][index] | {"over": ["data"], "reason": "why"}
    )
    path = tuple(index if part == 5 else part for part in path)
    sources = [
        html.page(Made(changed(content, path, text), made.nodes[:8]), model="m") for text in (CALM, EVIL)
    ]
    calm, found = map(Page, sources)
    assert elements(found) == elements(calm)
    for tag in ("script", "style"):
        assert [e["text"] for e in found.find(tag)] == [e["text"] for e in calm.find(tag)]
    assert times_shown(found, clean(EVIL)) == times_shown(calm, CALM) > 0
    assert "<img src=x" not in sources[1]


def elements(page: Page) -> list[tuple[str, list[str]]]:
    """Tags and names of attributes, in order."""
    return [(e["tag"], sorted(e["attrs"])) for e in page.all]


def times_shown(page: Page, text: str) -> int:
    """How often a text is on the page, commands left out: there it is quoted for the shell."""
    return page.find("html")[0]["text"].count(text) - sum(e["text"].count(text) for e in page.find("pre"))


@pytest.mark.parametrize("who", ["model", "capture"])
def test_the_names_that_a_user_gave_are_shown_as_text(made, who):
    calm, hostile = (Page(html.page(made, **{who: name})) for name in (CALM, EVIL))
    assert elements(hostile) == elements(calm)
    commands = [shlex.split(e["text"]) for e in hostile.find("pre")]
    assert commands
    assert all(clean(EVIL) in words for words in commands)


def test_a_text_that_is_too_long_is_cut_and_says_so(made):
    content = changed(made.content, ("graph", "name"), "x" * (LONGEST + 1))
    shown = Page(html.page(Made(content, made.nodes))).find("h1")[0]["text"]
    assert shown == f"{'x' * LONGEST}... ({LONGEST + 1} characters)"


def test_no_template_marks_anything_as_safe():
    """Whatever a template prints is escaped, unless `html_charts` or `shell_word` made markup of it."""
    templates = list((Path(html.__file__).parent / "templates").glob("*.html"))
    assert {path.name for path in templates} >= {"page.html", "head.html", "network.html", "macros.html"}
    for path in templates:
        words = set(re.findall(r"\w+", " ".join(re.findall(r"{[{%].*?[%}]}", path.read_text(), re.DOTALL))))
        assert not words & {"safe", "autoescape", "Markup"}, path


def test_a_template_cannot_misspell_a_name():
    with pytest.raises(UndefinedError):
        html._templates().from_string("{{ VERDICT }}").render()


def test_no_attribute_runs_or_loads_anything(page):
    for element in page.all:
        for name, value in element["attrs"].items():
            assert not name.startswith("on"), element
            assert name not in ("style", "srcset", "action", "formaction", "xlink:href"), element
            if name == "href":
                assert value.startswith("#"), element
            if name == "src":
                assert value.startswith("data:image/png;base64,"), element
    assert {"link", "iframe", "object", "embed", "base"}.isdisjoint(e["tag"] for e in page.all)


def test_the_policy_allows_this_style_and_this_script_alone(page):
    policy = page.find("meta", **{"http-equiv": "Content-Security-Policy"})[0]["attrs"]["content"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag in ("style", "script"):
        (element,) = page.find(tag)
        digest = base64.b64encode(hashlib.sha256(element["text"].encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
        assert not re.search(r"https?:|url\(|@import|fetch|XMLHttp|eval|innerHTML|</", element["text"])


def test_every_link_leads_somewhere_and_every_id_is_there_once(page):
    ids = [e["attrs"]["id"] for e in page.all if "id" in e["attrs"]]
    assert len(ids) == len(set(ids))
    targets = {e["attrs"]["href"][1:] for e in page.find("a")}
    targets |= {e["attrs"]["aria-labelledby"] for e in page.all if "aria-labelledby" in e["attrs"]}
    assert targets <= set(ids)


def test_every_node_says_what_its_record_says(made, page):
    rows = [e for e in page.find("li") if "data-verdict" in e["attrs"]]
    assert len(rows) == len(made.content["nodes"])
    for row, node in zip(rows, made.content["nodes"], strict=True):
        assert row["attrs"]["data-verdict"] == node["verdict"]
        assert row["attrs"]["data-kind"] == node["kind"]
        (summary,) = page.inside(row, "summary")
        assert page.inside(summary, "span", **{"class": "name"})[0]["text"] == node["name"]
        assert page.inside(summary, "span", **{"class": "verdict"})[0]["text"] == node["verdict"]
        mark = page.inside(summary, "span", **{"aria-hidden": "true"})[0]
        assert mark["text"] == VERDICTS[node["verdict"]][0]
        assert node["op"] in row["text"]
        assert all(name in row["text"] for name in node["inputs"])
        if node["reason"]:
            assert node["reason"] in row["text"]
        if node["worst"]:
            cells = [cell["text"] for cell in page.inside(row, "td")]
            assert cells == [
                one
                for who in ("found", "plain", "golden")
                for one in (node["worst"][who]["hex"], float32(node["worst"][who]["value"]))
            ]
            words = shlex.split(page.inside(row, "pre")[0]["text"])
            at = ",".join(map(str, node["worst"]["at"]))
            assert words[:6] == ["refnet", "explain", "resnest-digits", node["name"], "--at", at]
            assert words[6:] == ["--capture", "a capture"]
            assert f"{node['worst']['share']:.3g} of the bound" in row["text"]
        else:
            assert not page.inside(row, "pre")


def test_marks_tell_verdicts_apart_without_colour():
    assert len({sign for sign, _ in VERDICTS.values()}) == len(VERDICTS)


def test_the_first_defect_and_the_first_difference_lead_to_their_nodes(made, page):
    names = [node["name"] for node in made.content["nodes"]]
    cards = [e for e in page.find("article") if any(one["tag"] == "section" for one in e["path"])]
    for key, title in (("first_defect", "First defect"), ("first_difference", "First difference")):
        (card,) = [card for card in cards if card["text"].startswith(title)]
        (link,) = page.inside(card, "a")
        assert link["attrs"]["href"] == f"#n{names.index(made.content[key])}"
        assert link["text"] == made.content[key]
        assert "refnet explain" in card["text"]


def test_everything_is_unfolded_and_the_filter_hidden_until_a_script_says_otherwise(page):
    (folded,) = page.find("details", **{"class": "more"})  # what is known of the reference
    assert "open" not in folded["attrs"]
    assert all("open" in e["attrs"] for e in page.find("details") if e is not folded)
    assert "hidden" in page.find("form")[0]["attrs"]
    hidden = [e for e in page.all if "hidden" in e["attrs"]]
    assert {e["attrs"]["id"] for e in hidden} == {"filter", "nothing"}


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ({"fc": "defect"}, "1 value is proved not to be rounding"),
        ({}, "No defect in 97 judged values."),
        ({"fc": "unjudged", "relu": "missing"}, "No defect in 95 judged values, and 1 could not be judged"),
    ],
)
def test_the_headline(verdicts, said):
    shown = Page(html.page(verification(refnet.load("resnest-digits"), verdicts=verdicts)))
    assert said in shown.find("p", **{"class": "result"})[0]["text"]


def test_values_that_match_nothing_are_in_the_headline_and_named_with_their_likely_matches():
    """Eight of nine may be wrong there: the command's exit code is 2, and the page said only "No defect"."""
    graph = refnet.load("resnest-digits")
    data = {"data": np.zeros((1, 1, 32, 32), np.float32)}
    values = {node.name: value for node, value in refnet.steps(graph, data)}
    made = {"001_fc" if name == "fc" else name: value for name, value in values.items()}
    made |= {"debug": data["data"], "other": data["data"]}
    found = verify_values(graph, Values(made, data), allow=["debug"])
    shown = Page(html.page(found))
    (head,) = [one["text"] for one in shown.find("p") if one["attrs"].get("class") == "result"]
    assert head.startswith("? ")
    assert "No defect in 96 judged values, and 2 captured values match no value of the graph." in head
    (names,) = [one for one in shown.find("ul") if one["attrs"].get("class") == "names"]
    listed = [one["text"] for one in shown.find("li") if names in one["path"]]
    assert listed == ["001_fc: perhaps fc (by its name)", "other: matches nothing", "debug: allowed"]


def test_nothing_judged_is_not_called_right():
    graph = refnet.load("resnest-digits")
    verdicts = {node.name: "missing" for node in graph.nodes} | {"fc": "unjudged"}
    shown = Page(html.page(verification(graph, verdicts=verdicts)))
    assert "Nothing could be judged" in shown.find("p", **{"class": "result"})[0]["text"]


def test_without_a_manifest_without_outputs_and_with_words_for_numbers(made):
    content = made.content | {"reference": None, "outputs": [], "surplus": [], "suggestion": None}
    node = next(node for node in content["nodes"] if node["worst"])
    worst = node["worst"] | {"found": {"hex": "7fc00000", "value": "nan"}, "golden": None, "bound": None}
    worst |= {"share": None, "ulps": None}
    worst["ulps"] = -1
    odd = node | {"worst": worst, "share": {"max": None, "median": None, "histogram": [0] * 20 + [1]}}
    odd |= {"ulps": {"max": -1}, "unpromised": 17}
    content["nodes"] = [odd if one is node else one for one in content["nodes"]]
    content["notes"] = ["the capture was made of another graph"]
    content["outputs"] = [{"name": "y", "value": "fc", "differ": None, "ulps": None, "largest": None}]
    shown = Page(html.page(Made(content, made.nodes))).find("body")[0]["text"]
    assert "without a manifest" in shown
    assert "0x7fc00000" in shown
    assert "one is NaN" in shown
    assert "largest inf" in shown
    assert "17 of those that differ" in shown
    assert "another graph" in shown
    assert "not captured" in shown


def test_a_network_of_one_node_and_none():
    graph = refnet.load("resnest-digits")
    made = verification(graph)
    for nodes in (made.content["nodes"][:1], []):
        content = made.content | {
            "nodes": nodes,
            "outputs": [],
            "first_defect": None,
            "first_difference": None,
        }
        Page(html.page(Made(content, made.nodes[: len(nodes)])))


def test_a_real_verification_says_what_its_record_says(tmp_path):
    """A defect, a value that is missing and one that nobody asked for, judged by refnet itself."""
    graph = refnet.load("resnest-digits")
    x = np.random.default_rng(5).normal(size=(1, 1, 32, 32)).astype(np.float32)
    values = {node.name: value.copy() for node, value in refnet.steps(graph, {"data": x})}
    values["layer2.0.conv1"][0, 3, 2, 1] += 1
    values["layer1.0.relu"][0, 0, 0, 0] = np.nan
    del values["layer1.0.bn1"]
    found = verify_values(graph, Values({**values, "extra": x}, {"data": x}))
    html.write(tmp_path / "r.html", found)
    shown = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    rows = [e for e in shown.find("li") if "data-verdict" in e["attrs"]]
    assert [row["attrs"]["data-verdict"] for row in rows] == [one.verdict for one in found.nodes]
    by_name = dict(zip([one.name for one in found.nodes], rows, strict=True))
    row = by_name["layer2.0.conv1"]
    assert row["attrs"]["data-verdict"] == "defect"
    assert "--at 0,3,2,1" in row["text"]
    assert len(shown.inside(row, "img")) == 2
    assert by_name["layer1.0.bn1"]["attrs"]["data-verdict"] == "missing"
    facts = [one["text"] for one in shown.inside(by_name["layer1.0.relu"], "div")]
    assert "judged together overlayer1.0.bn1, layer1.0.relu" in facts
    assert "extra" in shown.find("ul", **{"class": "names"})[0]["text"]
    assert found.line in shown.find("p", **{"class": "line-of-summary"})[0]["text"]


def test_names_are_grouped_by_what_they_share_in_order():
    graph = refnet.load("octave-se-resnet-digits")
    names = [node.name for node in graph.nodes]
    groups = stages(names)
    assert [i for _, members in groups for i in members] == list(range(len(names)))
    titles = [title for title, _ in groups]
    assert titles[:2] == ["conv1", "L2_B01"]
    assert stages(["/a/b/c", "/a/b/d", "/a/e/f"]) == [("a/b", range(2)), ("a/e", range(2, 3))]
    assert stages(["x", "a.b", "y"]) == [("x", range(1)), ("a", range(1, 2)), ("y", range(2, 3))]
    assert stages([]) == []
    assert stages(["...", "", "_"]) == [("... ... _", range(3))]


def test_one_pixel_is_not_drawn():
    graph = refnet.load("resnest-digits")
    made = verification(graph, pictures=0)
    one = np.ones((1, 1), np.float32)
    dots = tuple(Judged(judged.name, one, one) for judged in made.nodes)
    assert "<img" not in html.page(Made(made.content, dots))


def test_the_page_keeps_to_its_budget_and_says_what_it_left_out(made):
    noise = np.random.default_rng(2).random((500, 500)).astype(np.float32)
    content = made.content | {"nodes": made.content["nodes"] * 3}
    many = tuple(Judged(one.name, noise, noise) for one in made.nodes) * 3
    source = html.page(Made(content, many))
    shown = Page(source)
    left_out = shown.find("p", **{"class": "left-out"})
    assert len(left_out) + len(shown.find("img")) / 2 == len(many)
    assert len(left_out) > 0
    pictures = sum(len(e["attrs"]["src"]) for e in shown.find("img"))
    assert pictures < html.BUDGET + 60_000  # the last one may pass it
    for row in shown.find("li", **{"data-verdict": "defect"}):
        assert len(shown.inside(row, "img")) == 2, "defects come first"


def test_resnest_50_with_forty_pictures_is_below_three_megabytes(tmp_path):
    made = verification(refnet.load("resnest-50-pytorch", weights="seed:0"), pictures=40)
    html.write(tmp_path / "r.html", made)
    source = (tmp_path / "r.html").read_text()
    assert len(made.nodes) == 317
    assert source.count("<img") == 80
    assert (tmp_path / "r.html").stat().st_size < 3e6


def test_the_command_gives_back_every_name(made):
    """Also one that is longer than any other text may be: a command that is cut would be another command."""
    one = next(node for node in made.content["nodes"] if node["worst"])
    for name in ("a b", "it's", '"', "$(x)", "layer1.0", "x y" * LONGEST):
        content = made.content | {"nodes": [one | {"name": name}], "first_difference": name}
        shown = Page(html.page(Made(content, made.nodes[:1]), model="m n", capture="c d"))
        commands = [shlex.split(each["text"]) for each in shown.find("pre")]
        at = ",".join(map(str, one["worst"]["at"]))
        assert commands == 2 * [["refnet", "explain", "m n", name, "--at", at, "--capture", "c d"]]


def test_the_file_is_written_whole_or_not_at_all(tmp_path, made):
    path = tmp_path / "r.html"
    html.write(path, made)
    before = path.read_bytes()
    assert before.decode() == html.page(made)

    class Broken:
        nodes = made.nodes

        def record(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        html.write(path, Broken())
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["r.html"]
    with pytest.raises(InputError, match="cannot write"):
        html.write(tmp_path / "none" / "r.html", made)
