"""What a notebook shows: bounded, escaped, without scripts, and true."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import refnet
from refnet import ops
from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node
from refnet.core.op import TensorType
from refnet.models.loading import structure
from refnet.models.weights import shipped_captures
from refnet.report import views
from refnet.report.feature_maps import MOST as MOST_MAPS
from refnet.report.feature_maps import SIDE, FeatureMaps
from refnet.report.html_charts import signed_bars
from refnet.report.html_pictures import MAGENTA, VIRIDIS
from refnet.report.views import FIRST, MOST, NAME, cut, page, view, write_page
from refnet.verification.explain import explain_element
from refnet.verification.verify import Values, verify_values
from tests.report.test_html_report import EVIL, Page

F = np.float32
HONEST = 60_000
"""Characters that a view of an honest network has at most."""


def chain(count: int, name: str = "layer{}.relu") -> Graph:
    """So many relus one after another."""
    names = ["data", *(name.format(i) for i in range(count))]
    nodes = tuple(Node(names[i + 1], ops.Relu(), (names[i],)) for i in range(count))
    return Graph(name, {"data": TensorType((1, 2, 4, 4))}, nodes, {"out": names[-1]})


@pytest.fixture(scope="module")
def shipped():
    """A verification that ships, of MXNet's values."""
    return refnet.verify(shipped_captures()[0][0])


@pytest.fixture(scope="module")
def wrong():
    """A verification with a planted defect, and what it judged."""
    graph = refnet.load("resnest-digits")
    x = {"data": np.random.default_rng(0).normal(size=(1, 1, 32, 32)).astype(F)}
    values = {node.name: value.copy() for node, value in refnet.steps(graph, x)}
    values["layer1.0.conv1"][0, 3, 5, 5] += F(0.25)
    return graph, x, values, refnet.verify(values, graph, inputs=x)


def texts(html: str) -> str:
    """What a reader sees, without the style."""
    return " ".join(one["text"] for one in Page(html).all if one["tag"] != "style")


def harmless_view(html: str) -> Page:
    """The page; fails for a script, an event, an address, or more than is allowed."""
    assert len(html) <= MOST
    found = Page(html)
    for one in found.all:
        assert one["tag"] not in {"script", "iframe", "object", "link", "a", "form"}
        for key, value in one["attrs"].items():
            assert not key.startswith("on"), one
            assert key not in {"href", "action"}, one
            assert key != "src" or value.startswith("data:image/png;base64,"), one
    return found


@pytest.mark.parametrize("name", ["octave-se-resnet-digits", "resnest-digits", "resnest-50-pytorch"])
def test_a_graph_shows_itself(name):
    graph = structure(name)
    html = graph._repr_html_()
    harmless_view(html)
    assert len(html) < HONEST
    said = texts(html)
    assert f"{len(graph.nodes)} nodes" in said
    assert graph.nodes[0].name in said
    assert graph.nodes[-1].name in said
    assert "weights not loaded" in said


def test_a_graph_of_a_thousand_nodes_is_no_longer_than_one_of_hundred():
    small, large = (view(chain(count)) for count in (100, 1000))
    assert len(large) < HONEST
    assert len(large) - len(small) < 9000  # its parts, of which FIRST are listed
    assert "950 more" in texts(large)
    assert large.count("<details") == 2
    assert "details open" in view(chain(12))
    assert "details open" not in large


def test_names_are_harmless_cut_and_escaped():
    graph = chain(60, EVIL.replace("\ud800", "") + "{}")  # a graph refuses a lone surrogate
    html = view(graph)
    harmless_view(html)
    assert "<script" not in html
    assert "\u202e" not in html
    assert "\x1b" not in html
    assert "é漢" in view(chain(2, "é漢{}"))
    x = {"data": np.ones((1, 2, 4, 4), F)}
    values = {node.name: value for node, value in refnet.steps(graph, x)}
    broken = {name: value.copy() for name, value in values.items()}
    broken[graph.nodes[5].name][0, 0, 0, 0] += F(1)
    found = verify_values(graph, Values(broken, x))
    assert found.first_defect == graph.nodes[5].name
    harmless_view(view(found))
    node = graph.nodes[5]
    one = explain_element(node, [values[node.inputs[0]]], (0, 0, 0, 0), note=EVIL)
    harmless_view(view(one))
    harmless_view(page(one))
    harmless_view(view(FeatureMaps(values[node.name], EVIL)))


@pytest.mark.parametrize("letter", ["\u202e", "<", "'", "é", "x"])
def test_names_as_long_as_a_file_allows_change_no_bound(letter):
    graph = chain(100, letter * 3000 + ".{}")
    assert len(view(graph)) <= MOST
    x = {"data": np.full((1, 2, 4, 4), -1, F)}  # relus of it are wrong
    found = verify_values(graph, Values({node.name: x["data"] for node in graph.nodes}, x))
    assert len(found.nodes) == 100
    assert found.counts["defect"] == 100
    assert len(view(found)) <= MOST
    assert all(len(cut(letter * n, NAME)) <= NAME for n in (10, 79, 80, 81, 10**6))


@pytest.mark.parametrize("letter", ["\u202e", "<", "x"])
def test_operators_that_a_file_names_are_cut_and_escaped(letter):
    """An opaque op prints the kind and the reason that a file gave it."""
    kind = ops.Opaque(letter * 3000, letter * 3000, (1, 2, 4, 4))
    nodes = tuple(Node(f"y{i}", kind, ("data",)) for i in range(60))
    html = view(Graph("g", {"data": TensorType((1, 2, 4, 4))}, nodes, {"out": "y0"}))
    harmless_view(html)
    assert len(html) < MOST / 4
    assert letter * 200 not in html


def test_a_verification_shows_itself(shipped):
    html = shipped._repr_html_()
    harmless_view(html)
    assert len(html) < HONEST
    said = texts(html)
    assert "No defect in 230 judged values" in said
    assert f"The {FIRST} gravest of 230 values" in said
    assert "mxnet 1.9.1" in said
    for verdict, count in shipped.counts.items():
        assert not count or f"{count} {verdict}" in said


def test_a_defect_stands_first(wrong):
    *_, found = wrong
    html = found._repr_html_()
    harmless_view(html)
    (worst,) = [one.worst for one in found.nodes if one.name == "layer1.0.conv1"]
    assert f"0x{int(worst.found.view(np.uint32)):08x}" in html
    assert f"0x{int(worst.golden.view(np.uint32)):08x}" in html
    rows = re.findall(r"<tr><td><span class=\"mark (\w+)\"", html)
    order = ["defect", "unjudged", "rounding", "replayed", "equal", "missing"]
    assert rows[:2] == ["defect", "defect"]
    assert rows == sorted(rows, key=order.index)


ELEMENTS = [
    ("layer1.0.conv1", (0, 3, 5, 5)),
    ("layer1.0.bn1", (0, 3, 5, 5)),
    ("layer1.0.relu", (0, 3, 5, 5)),
    ("layer1.0.conv2.rsoftmax", (0, 3)),
    ("fc", (0, 3)),
    ("prob", (0, 3)),
]


@pytest.mark.parametrize(("name", "at"), ELEMENTS)
def test_an_explanation_shows_itself(wrong, name, at, tmp_path):
    graph, x, values, _ = wrong
    one = refnet.explain(graph, name, at, capture=values, inputs=x)
    html = one._repr_html_()
    harmless_view(html)
    assert len(html) < HONEST
    for value in (one.golden, one.plain, one.found):
        assert f"0x{int(value.view(np.uint32)):08x}" in html
    if one.element.terms is not None and one.element.terms.values.size < 20:
        for value in one.chain:
            assert f">{value!s}<" in html
    write_page(tmp_path / "page.html", one, everything=True)
    whole = (tmp_path / "page.html").read_text(encoding="utf-8")
    if one.element.terms is not None:
        assert all(f">{value!s}<" in whole for value in one.chain)
    assert all(step.symbol in texts(whole) for step in one.element.steps)


def test_a_defect_and_a_rounding_are_drawn_as_what_they_are(wrong):
    graph, x, values, _ = wrong
    outside = refnet.explain(graph, "layer1.0.conv1", (0, 3, 5, 5), capture=values, inputs=x)
    inside = refnet.explain(graph, "layer1.0.conv1", (0, 3, 5, 4), capture=values, inputs=x)
    assert '<path class="defect"' in view(outside)
    assert '<path class="defect"' not in view(inside)
    assert '<path class="rounding"' in view(inside)


def test_a_long_sum_is_cut_but_not_on_the_page_that_shall_have_all():
    x, w = (np.random.default_rng(i).normal(size=(1, 700)).astype(F) for i in (0, 1))
    one = explain_element(Node("y", ops.Dense(1, bias=False), ("x", "w")), [x, w], (0, 0))
    short, whole = page(one), page(one, everything=True)
    assert len(view(one)) < HONEST
    assert len(Page(short).all) < 300
    assert sum(row["tag"] == "tr" for row in Page(whole).all) > 700
    assert "a bar is the largest of 3 terms" in short


def test_the_drawing_of_a_sum():
    drawn = signed_bars([3.0, -6.0, 1.5], [3.0, -3.0, -1.5])
    (bars,) = re.findall(r'class="bars" d="([^"]*)"', drawn)
    assert re.findall(r"v(-?[\d.]+)h", bars) == ["-18.0", "36.0", "-9.0"]
    (line,) = re.findall(r'class="sum" d="([^"]*)"', drawn)
    assert re.findall(r" ([\d.]+)", line) == ["4.0", "76.0", "58.0"]
    assert signed_bars([1.0], [1.0]) == ""
    assert signed_bars([1.0, np.inf], [1.0, np.inf]) == ""


def test_a_page_loads_nothing_and_its_policy_names_its_style(wrong):
    graph, x, values, _ = wrong
    html = page(refnet.explain(graph, "fc", (0, 3), capture=values, inputs=x))
    harmless_view(html)
    (style,) = [one["text"] for one in Page(html).all if one["tag"] == "style"]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'" in html.replace("&#39;", "'")
    assert "http" not in re.sub(r'http-equiv="[^"]*"', "", html)
    assert "prefers" not in style or "dark" in style
    assert "color-scheme: light dark" in style


def test_every_colour_of_text_is_the_notebooks_own():
    """Light or dark, a view is read in the notebook's colours; only signs bring theirs, with their ground."""
    style = views._style()
    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", re.sub(r"/\*.*?\*/", "", style))
    for selector, body in rules:
        for value in re.findall(r"(?<![\w-])color: ([^;]+);", body):
            assert value in ("inherit", "CanvasText") or ".mark" in selector, selector
    marks = [body for selector, body in rules if ".mark." in selector]
    assert len(marks) == 6
    for body in marks:  # white on it: WCAG asks for 4.5
        red, green, blue = (int(body.split("#")[1][i : i + 2], 16) / 255 for i in (0, 2, 4))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert 1.05 / (luminance + 0.05) >= 4.5, body


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def test_feature_maps_against_a_loop():
    value = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(F)
    value[1, 2, 0, 0] = np.nan
    maps = FeatureMaps(value, "conv", image=1)
    assert repr(maps) == "<FeatureMaps 'conv': 3 channels of 5 x 4>"
    most = float(np.nanmax(abs(value[1])))
    assert maps.ends == (-most, most)
    assert "magenta: not finite (1)" in maps.colours
    drawn = maps.maps()
    assert [one.channel for one in drawn] == [0, 1, 2]
    for one in drawn:
        picture = pixels(one.uri)
        assert picture.shape == (5, 4, 3)
        for y, x in np.ndindex(5, 4):
            number, (red, _, blue) = value[1, one.channel, y, x], picture[y, x].astype(int)
            if np.isnan(number):
                assert tuple(picture[y, x]) == MAGENTA
            elif abs(number) > most / 10:
                assert (red > blue) == (number > 0)
    html = maps._repr_html_()
    harmless_view(html)
    assert html.count("<img") == 3
    assert "the mean of" not in html
    assert "[2, 3, 5, 4]" in texts(html)


def test_maps_without_a_negative_number_start_at_zero():
    maps = FeatureMaps(np.array([[0, 2], [4, 1]], F))
    assert maps.ends == (0.0, 4.0)
    picture = pixels(maps.maps()[0].uri)
    assert tuple(picture[0, 0]) == VIRIDIS[0]
    assert tuple(picture[1, 0]) == VIRIDIS[-1]
    flat = FeatureMaps(np.zeros((1, 2, 3, 3), F))
    assert len({one.uri for one in flat.maps()}) == 1


def test_feature_maps_are_bounded():
    value = np.random.default_rng(0).normal(size=(1, 1040, 50, 50)).astype(F)
    html = FeatureMaps(value)._repr_html_()
    assert len(html) <= MOST
    assert html.count("<img") == MOST_MAPS
    assert f"{MOST_MAPS} channels of 1,040" in texts(html)
    assert max(pixels(one.uri).shape[0] for one in FeatureMaps(value).maps()) <= SIDE
    assert "each pixel is the mean of 2 \u00d7 2" in texts(html)
    assert [one.channel for one in FeatureMaps(value, first=1038).maps()] == [1038, 1039]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"value": np.zeros((1, 2, 3, 3))}, "float64"),
        ({"value": [[1.0]]}, "list"),
        ({"value": np.zeros(3, F)}, "[3]"),
        ({"value": np.zeros((1, 0, 3, 3), F)}, "[1, 0, 3, 3]"),
        ({"value": np.zeros((1, 2, 3, 3), F), "image": 1}, "image must be a whole number from 0 to 0, got 1"),
        ({"value": np.zeros((1, 2, 3, 3), F), "first": -1}, "first"),
        ({"value": np.zeros((1, 2, 3, 3), F), "name": 3}, "name"),
    ],
)
def test_what_are_no_feature_maps(arguments, said):
    with pytest.raises(InputError, match=re.escape(said)):
        FeatureMaps(**arguments)


def test_other_things_have_no_view():
    with pytest.raises(TypeError, match="no view of int"):
        view(3)


def test_without_the_root_nobody_makes_html(monkeypatch):
    monkeypatch.setattr("refnet.core.notebook._viewers", [])
    assert chain(2)._repr_html_() is None


def test_showing_a_graph_is_all_that_imports_the_report():
    script = (
        "import sys, refnet\ng = refnet.load('resnest-digits')\nassert 'jinja2' not in sys.modules\n"
        "assert len(g._repr_html_()) > 1000\nassert 'jinja2' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@dataclass
class Opened:
    """What webbrowser.open was called with."""

    addresses: list[str]
    works: bool = True

    def __call__(self, address: str) -> bool:
        self.addresses.append(address)
        return self.works


def test_the_command_writes_a_page_and_opens_it(tmp_path, monkeypatch, capsys):
    from refnet.cli import main

    monkeypatch.chdir(tmp_path)
    opened = Opened([])
    monkeypatch.setattr("webbrowser.open", opened)
    command = ["explain", "resnest-digits", "fc", "--at", "0,5", "--input", "seed:0"]
    assert main([*command, "--html", "own.html"]) == 0
    assert opened.addresses == []
    assert capsys.readouterr().out == "wrote own.html\n"
    assert main([*command, "--html"]) == 0
    assert opened.addresses == [(tmp_path / "refnet-explain.html").as_uri()]
    one = refnet.explain("resnest-digits", "fc", (0, 5), inputs="seed:0")
    assert Path("refnet-explain.html").read_text() == Path("own.html").read_text() == page(one)
    opened.works = False
    capsys.readouterr()
    assert main([*command, "--html"]) == 0
    assert "no browser could be opened" in capsys.readouterr().out
    assert main([*command, "--html", "own.html", "--all", "--json"]) == 0
    assert capsys.readouterr().out.startswith("{")
    assert Path("own.html").read_text() == page(one, everything=True)
    assert main([*command, "--html", "/dev/full"]) == 2
    assert "/dev/full" in capsys.readouterr().err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["own.html", "refnet-explain.html"]
