"""The learners' page in a real browser, chapters 6 and 7: the exercises, and a value in two settings."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.formats import book as book_file
from refnet.learn import page as learn
from refnet.models.preprocess import pipeline
from refnet.models.weights import shipped_folder
from tests.crosscheck import browser as chromium
from tests.crosscheck.test_html_browser import css, quiet
from tests.learn import exercises, facts, settings

pytestmark = pytest.mark.crosscheck

CHANGE = "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
CHANGE += "s.dispatchEvent(new Event('change'))"


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("learn") / "learn.html"
    learn.write(file)
    return file


def test_chapter_6_each_exercise_says_whether_the_choice_is_right(browser, path):
    """One wrong choice, then the right one; only the first try counts."""
    chromium.show(browser, path)
    known = json.loads(exercises.FILE.read_text())
    for i, one in enumerate(known):
        shown = [figure for figure in figures(browser) if figure.is_displayed()]
        assert [figure.get_attribute("data-wanted") for figure in shown] == [one["wanted"] or ""]
        (figure,) = shown
        answer = figure.find_element("css selector", "details.answer")
        assert not answer.get_property("open")
        names = [row["name"] for row in one["rows"]]
        rows = figure.find_elements("css selector", "tr[data-name]")
        assert [row.get_attribute("data-name") for row in rows] == names
        healthy = next(k for k, name in enumerate(names) if name != one["wanted"])
        said = figure.find_element("css selector", ".feedback")
        if i % 2 == 0:
            rows[healthy].find_element("css selector", "button").click()
            assert said.text.startswith("No:")
            assert names[healthy] in said.text
        if one["wanted"]:
            rows[names.index(one["wanted"])].find_element("css selector", "button").click()
            assert said.text == f"Right: the bug is at {one['wanted']}."
            marked = [row for row in rows if "right-node" in row.get_attribute("class")]
            assert marked == [rows[names.index(one["wanted"])]]
        else:
            figure.find_element("css selector", "button.none").click()
            assert said.text == "Right: no bug is proved."
        assert answer.get_property("open")
        text = answer.text
        assert one["proof"]["found"]["bits"][1:9] in text
        assert one["bug"] is None or one["bug"] in text
        assert css(browser, "#exercise-score").text.startswith(f"{(i + 1) // 2} of {i + 1} right")
        if i + 1 < len(known):
            css(browser, "#exercise-next").click()
    assert not css(browser, "#exercise-next").is_enabled()
    browser.execute_script(CHANGE, "exercise-choice", "4")
    assert [k for k, figure in enumerate(figures(browser)) if figure.is_displayed()] == [4]
    quiet(browser)


def test_chapter_6_works_by_keyboard(browser, path):
    from selenium.webdriver import Keys

    chromium.show(browser, path)
    css(browser, "#exercise-next").send_keys(Keys.ENTER)
    css(browser, "figure.exercise:not([hidden]) button.none").send_keys(Keys.SPACE)
    assert css(browser, "figure.exercise:not([hidden]) .feedback").text.startswith("No: a bug is proved, at")


def figures(browser: Any) -> list[Any]:
    found: list[Any] = browser.find_elements("css selector", "figure.exercise")
    return found


def test_chapter_7_both_settings_have_refnets_bits(browser, path, report):
    """Elements of every shown value, in both settings, against replay by the books on the same inputs."""
    chromium.show(browser, path)
    graph = refnet.load(settings.NETWORK)
    plain = facts.computed(graph, pipeline("digits").apply(shipped_folder() / "digits" / facts.DIGIT))
    books = {one.key: book_file.read(one.book) for one in settings.SETTINGS}
    generator, ask, wanted = np.random.default_rng(7), [], []
    for which, one in enumerate(settings.SHOWN, start=1):
        found = {
            "one": settings.in_nodes(one, graph, books["one"], plain).ravel(),
            one.setting: settings.joined_value(one.node, graph, books[one.setting], plain).ravel(),
        }
        for key, values in found.items():
            for at in generator.choice(values.size, 200, replace=False):
                ask.append([which, key, int(at)])
                wanted.append(int(values[at : at + 1].view(np.uint32)[0]))
    known = json.loads(settings.FILE.read_text())["shown"]
    for which, one in enumerate(known):
        for key, value in one["found"].items():
            ask.append([which, key, one["index"]])
            wanted.append(int(value["bits"], 2))
    found = browser.execute_script("return arguments[0].map((a) => refnet.inSetting(...a))", ask)
    assert found == wanted
    report.append(f"{len(ask)} elements in two settings have the bits of replay")


def test_chapter_7_switches_the_setting_and_marks_the_bits_that_change(browser, path, report):
    chromium.show(browser, path)
    known = json.loads(settings.FILE.read_text())["shown"]
    slowest = 0.0
    for i, one in enumerate(known):
        seconds = browser.execute_script(
            "const begin = performance.now();" + CHANGE + "; document.body.offsetHeight;"
            "return performance.now() - begin",
            *("replay-item", str(i)),
        )
        slowest = max(slowest, seconds)
        for key, radio in (("one", "replay-first"), (one["setting"], "replay-second")):
            css(browser, f"#{radio}").click()
            shown = css(browser, "#replay-value .bits")
            assert shown.text.replace(" ", "") == one["found"][key]["bits"]
            marked = len(shown.find_elements("css selector", "u"))
            first, second = (int(value["bits"], 2) for value in one["found"].values())
            assert marked == (first ^ second).bit_count() > 0
            assert css(browser, "#replay-order").find_elements("css selector", "path.plain, path.book")
        assert css(browser, "#replay-second-said").text == one["title"]
        assert css(browser, "#replay-weights").is_displayed() == (one["kind"] == "norm")
        assert css(browser, "#replay-channel").is_displayed() == (one["kind"] != "alone")
    report.append(f"another value in two settings: slowest {slowest:.0f} ms")
    before = css(browser, "#replay-value").text
    css(browser, "#replay-map").click()
    assert css(browser, "#replay-value").text != before
    field = css(browser, "#replay-at")
    field.clear()
    field.send_keys("0\t")
    assert "channel 0, row 0, column 0" in css(browser, "#replay-value").text
    assert "elements of this channel have other bits" in css(browser, "#replay-map-said").text
    css(browser, "#samples button:nth-child(8)").click()
    time.sleep(0.1)
    assert "channel 0, row 0, column 0" in css(browser, "#replay-value").text
    quiet(browser)
