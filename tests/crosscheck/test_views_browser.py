"""Notebook views, and the page of one element, in a real browser: both themes, both widths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.models.weights import shipped_captures
from refnet.report.views import view, write_page
from refnet.verification.explain import explain_element
from tests.crosscheck import browser as chromium
from tests.crosscheck.test_html_browser import NORMAL, quiet
from tests.report.test_html_report import EVIL
from tests.report.test_views import chain

pytestmark = pytest.mark.crosscheck

THEMES = {"light": ("#ffffff", "#000000"), "dark": ("#111111", "#ffffffde")}
"""Ground and text of JupyterLab's own themes."""


@pytest.fixture(scope="module")
def explanation() -> refnet.Explanation:
    graph = refnet.load("resnest-digits")
    x = {"data": np.random.default_rng(0).normal(size=(1, 1, 32, 32)).astype(np.float32)}
    values = {node.name: value.copy() for node, value in refnet.steps(graph, x)}
    values["layer1.0.conv2.conv"][0, 3, 5, 5] += np.float32(1e-6)
    return refnet.explain(graph, "layer1.0.conv2.conv", (0, 3, 5, 5), capture=values, inputs=x)


@pytest.fixture(scope="module")
def views(explanation) -> str:
    """All of them one below the other, a hostile graph too, unfolded."""
    evil = chain(20, EVIL.replace("\ud800", "") + "x" * 200 + "{}")
    values = np.random.default_rng(0).normal(size=(1, 12, 16, 16)).astype(np.float32)
    one = explain_element(evil.nodes[3], [values], (0, 1, 2, 3), note=EVIL)
    shown = [refnet.load("resnest-digits"), evil, refnet.verify(shipped_captures()[0][0]), explanation]
    parts = [view(value) for value in (*shown, one, refnet.FeatureMaps(values, "conv1"))]
    return "\n".join(parts).replace("<details>", "<details open>")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_of_an_element(browser, explanation, tmp_path, width, scheme):
    path = tmp_path / "page.html"
    write_page(path, explanation)
    chromium.show(browser, path, width, scheme)
    assert browser.title == "layer1.0.conv2.conv [0, 3, 5, 5]: refnet explanation"
    read(browser)
    quiet(browser)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", [400, 1280])
def test_what_a_notebook_shows_in_its_own_colours(browser, views, tmp_path, width, theme):
    """The notebook's theme need not be the system's: each is tried in a browser of the other one."""
    ground, ink = THEMES[theme]
    path = Path(tmp_path / "notebook.html")
    style = f"body {{ background: {ground}; color: {ink}; font: 14px sans-serif; margin: 1rem; }}"
    path.write_text(f"<!doctype html><title>n</title><style>{style}</style><body>{views}", encoding="utf-8")
    chromium.show(browser, path, width, "dark" if theme == "light" else "light")
    read(browser)
    images = browser.execute_script("return [...document.images].map(i => [i.complete, i.naturalWidth])")
    assert len(images) == 12
    assert all(complete and wide > 0 for complete, wide in images)
    assert browser.execute_script("return document.scripts.length") == 0
    quiet(browser)


def read(browser: Any) -> None:
    """Every text has contrast, and nothing reaches beyond the window but what scrolls by itself."""
    texts = browser.execute_script(chromium.AUDIT)
    assert len(texts) > 30
    assert [one for one in texts if one[0] < NORMAL] == []
    whole, window, beyond = browser.execute_script(chromium.WIDEST)
    assert beyond == []
    assert whole <= window
