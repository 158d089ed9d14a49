"""The HTML report in a real browser: it filters, links, reads well, light and dark, wide and narrow."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

import refnet
from refnet.report import html
from refnet.report.terminal import clean
from tests.crosscheck import browser as chromium
from tests.helpers.made_verification import Made, verification
from tests.report.test_html_report import EVIL, spoiled

pytestmark = pytest.mark.crosscheck

SHOWN = (
    "return [...document.querySelectorAll('.node')].filter(e => e.checkVisibility()).map(e => +e.id.slice(1))"
)
NORMAL = 4.5
"""Least contrast of text of normal size, WCAG 2.1, level AA."""


@pytest.fixture(scope="module")
def made() -> Made:
    graph = refnet.load("resnest-digits")
    names = [node.name for node in graph.nodes]
    verdicts = dict(zip(names[20:], ("defect", "unjudged", "missing", "replayed", "defect"), strict=False))
    return verification(graph, verdicts=verdicts)


@pytest.fixture(scope="module")
def path(made, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    html.write(file, made)
    return file


@pytest.fixture(scope="module")
def hostile(made, tmp_path_factory) -> Path:
    """Every string hostile, and names that are longer than any screen is wide."""
    file = tmp_path_factory.mktemp("hostile") / "hostile.html"
    html.write(file, Made(spoiled(spoiled(made.content)), made.nodes), capture="x" * 300)
    return file


def quiet(browser: Any) -> None:
    """No error in the console, and no request but for the page and its pictures."""
    assert browser.get_log("browser") == []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            assert message["params"]["request"]["url"].startswith(("file:", "data:", "about:"))


def css(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def test_it_renders_without_errors_and_asks_no_network(browser, path, made):
    chromium.show(browser, path)
    assert browser.title == "resnest-digits: refnet verification"
    assert browser.execute_script(SHOWN) == list(range(len(made.nodes)))
    images = browser.execute_script("return [...document.images].map(i => [i.complete, i.naturalWidth])")
    assert images
    assert all(complete and width > 0 for complete, width in images)
    quiet(browser)


@pytest.fixture(scope="module")
def flagged(made, tmp_path_factory) -> Path:
    """A build string of 40 lines, as PyTorch's is, and a name of the usual length."""
    build = "PyTorch built with: " + " ".join(f"-DFLAG_{i}=some-value-of-a-compiler-flag" for i in range(90))
    content = made.content | {"reference": made.content["reference"] | {"build": build}}
    file = tmp_path_factory.mktemp("flagged") / "report.html"
    html.write(file, Made(content, made.nodes), model="resnest-digits", capture="captured")
    return file


@pytest.mark.parametrize("width", [400, 1280])
def test_the_first_screen_names_the_node_and_what_to_type(browser, flagged, made, width, report):
    """Where to look first is above everything else, and the build's flags are folded away."""
    chromium.show(browser, flagged, width)
    first = next(node for node in made.content["nodes"] if node["verdict"] == "defect")
    card = css(browser, ".card.defect")
    bottoms = {}
    wanted = {
        ".where": first["name"],
        "tr:first-child": "expected",
        "tr:last-child": "found",
        "pre": "refnet explain",
    }
    for selector, said in wanted.items():
        element = card.find_element("css selector", selector)
        assert said in element.text
        assert element.is_displayed()
        bottoms[selector] = element.rect["y"] + element.rect["height"]
    report.append(f"{width} pixels wide: heading at {css(browser, '#findings').rect['y']:.0f}, {bottoms}")
    assert css(browser, "#findings").rect["y"] < 300
    assert max(bottoms.values()) <= 900, "below the first screen"
    assert "FLAG_10" not in css(browser, "body").text
    line = css(browser, ".reference").text
    assert line == "pytorch 2.13.0+cpu, AVX2 with FMA, 2 threads, batch 1, eager"
    css(browser, ".more summary").click()
    assert "FLAG_10" in css(browser, ".more").text
    wide, inner, elements = browser.execute_script(chromium.WIDEST)
    assert (elements, wide <= inner) == ([], True)


def test_hostile_names_run_nothing(browser, hostile, made):
    chromium.show(browser, hostile)
    assert browser.execute_script(SHOWN) == list(range(len(made.nodes)))
    assert css(browser, "#n3 .name").text == made.content["nodes"][3]["name"] + 2 * clean(EVIL)
    quiet(browser)  # an alert would have raised UnexpectedAlertPresentException above


def test_the_policy_is_in_force(browser, path):
    """A picture from elsewhere, a script, an event handler and a style put in afterwards are refused."""
    chromium.show(browser, path)
    refused = browser.execute_async_script("""
        const done = arguments[0], refused = [];
        document.addEventListener("securitypolicyviolation", (e) => refused.push(e.effectiveDirective));
        const make = (tag, fields) => Object.assign(document.createElement(tag), fields);
        const put = (tag, fields) => document.body.appendChild(make(tag, fields));
        put("img", {src: "https://example.org/x.png"});
        put("script", {textContent: "window.ran = true"});
        put("style", {textContent: "body { color: red }"});
        put("iframe", {src: "https://example.org"});
        const holder = put("div", {});
        holder.innerHTML = "<p onclick='window.ran = true' style='color: red'>x</p>";
        holder.firstChild.click();
        fetch("https://example.org").catch(() => 0);
        setTimeout(() => done([...new Set(refused)].sort().concat(window.ran ? ["ran"] : [])), 500);
    """)
    assert refused == [
        *("connect-src", "frame-src", "img-src", "script-src-attr"),
        *("script-src-elem", "style-src-attr", "style-src-elem"),
    ]


def expected(made: Made, verdicts: set[str] | None = None, kind: str = "", text: str = "") -> list[int]:
    return [
        i
        for i, node in enumerate(made.content["nodes"])
        if (verdicts is None or node["verdict"] in verdicts)
        and kind in ("", node["kind"])
        and text in node["name"]
    ]


def test_filters_show_exactly_what_fits(browser, path, made):
    from selenium.webdriver.support.select import Select

    chromium.show(browser, path)
    count, total = css(browser, "#shown"), len(made.nodes)

    def check(**fits):
        wanted = expected(made, **fits)
        assert browser.execute_script(SHOWN) == wanted
        assert count.text == f"{len(wanted)} of {total} nodes"
        groups = browser.execute_script(
            "return [...document.querySelectorAll('.group')].filter(e => e.checkVisibility())"
            ".every(e => [...e.querySelectorAll('.node')].some(n => n.checkVisibility()))"
        )
        assert groups, "a group without nodes is shown"
        faint = browser.execute_script(
            "return [...document.querySelectorAll('.map a:not(.faint)')].map(e => +e.hash.slice(2))"
        )
        assert faint == wanted
        return wanted

    everything = {node["verdict"] for node in made.content["nodes"]}
    check()
    for verdict in sorted(everything):
        chip = css(browser, f".chip[data-verdict={verdict}]")
        chip.click()
        check(verdicts=everything - {verdict})
        chip.click()
    check()
    for verdict in ("equal", "rounding"):
        css(browser, f".chip[data-verdict={verdict}]").click()
    left = everything - {"equal", "rounding"}
    assert len(check(verdicts=left)) == 5
    Select(css(browser, "#kind")).select_by_visible_text("Conv")
    css(browser, ".filter button[type=reset]").click()
    check()
    Select(css(browser, "#kind")).select_by_visible_text("Conv")
    check(kind="Conv")
    css(browser, "#text").send_keys("2.0.CONV\n")
    assert check(kind="Conv", text="2.0.conv")
    Select(css(browser, "#kind")).select_by_visible_text("all ops")
    assert check(text="2.0.conv")
    css(browser, "#text").send_keys("nowhere")
    assert check(text="2.0.convnowhere") == []
    assert css(browser, "#nothing").is_displayed()
    css(browser, ".filter button[type=reset]").click()
    check()
    quiet(browser)


def test_unfold_and_fold(browser, path, made):
    chromium.show(browser, path)
    opened = "return [...document.querySelectorAll('.node:has(details[open])')].map(e => +e.id.slice(1))"
    defects = expected(made, {"defect"})
    assert browser.execute_script(opened) == defects
    css(browser, "#unfold").click()
    assert browser.execute_script(opened) == list(range(len(made.nodes)))
    css(browser, "#unfold").click()
    assert browser.execute_script(opened) == []
    css(browser, "#n5 summary").click()
    assert browser.execute_script(opened) == [5]


@pytest.mark.parametrize("width", [400, 1280])
def test_a_finding_leads_to_its_node_even_if_filtered_away(browser, path, made, width):
    chromium.show(browser, path, width)
    defect = expected(made, {"defect"})[0]
    difference = next(i for i, node in enumerate(made.content["nodes"]) if node["differ"])
    for index, verdict in ((defect, "defect"), (difference, made.content["nodes"][difference]["verdict"])):
        link = css(browser, f".card a[href='#n{index}']")
        for _ in range(2):  # a second time, when the address is the same already
            css(browser, f".chip[data-verdict={verdict}]").click()
            assert not css(browser, f"#n{index}").is_displayed()
            browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", link)
            link.click()
            time.sleep(0.1)
            assert css(browser, f"#n{index} .body").is_displayed()
            top = browser.execute_script(
                "const s = document.querySelector(arguments[0]), b = s.getBoundingClientRect();"
                "const at = document.elementFromPoint(b.left + 30, b.top + b.height / 2);"
                "return s.contains(at) ? b.top : null",
                f"#n{index} summary",
            )
            assert top is not None, "something covers the node"
            assert 0 <= top < 900
        css(browser, ".filter button[type=reset]").click()
    quiet(browser)


def test_the_map_leads_to_nodes_and_names_what_is_pointed_at(browser, path, made):
    from selenium.webdriver import ActionChains

    chromium.show(browser, path)
    mark = css(browser, ".map a[href='#n20']")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    ActionChains(browser).move_to_element(mark).perform()
    node = made.content["nodes"][20]
    assert css(browser, "#pointed").text == f"{node['name']}, {node['kind']}: defect"
    ActionChains(browser).move_to_element(css(browser, "#unfold")).perform()
    assert css(browser, "#pointed").text == ""
    mark.click()
    assert css(browser, "#n20 .body").is_displayed()


def test_a_command_is_copied_as_one_line(browser, path, made):
    chromium.show(browser, path, 400)
    select = "getSelection().selectAllChildren(document.querySelector('.card pre'));"
    copied = browser.execute_script(f"{select} return getSelection().toString()")
    at = ",".join(map(str, next(n for n in made.content["nodes"] if n["verdict"] == "defect")["worst"]["at"]))
    name = made.content["first_defect"]
    assert copied == f"refnet explain resnest-digits {name} --at {at} --capture CAPTURE"


def test_the_keyboard_reaches_everything(browser, path):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    chromium.show(browser, path)

    def press(*keys):
        ActionChains(browser).send_keys(*keys).perform()
        return browser.switch_to.active_element

    skip = press(Keys.TAB)
    assert skip.text == "Skip to the nodes"
    assert skip.rect["x"] >= 0, "the focused link is not seen"
    press(Keys.ENTER)
    assert browser.execute_script("return location.hash") == "#nodes"
    chip = press(Keys.TAB)
    assert chip.get_attribute("aria-pressed") == "true"
    outline = browser.execute_script("return getComputedStyle(arguments[0]).outlineStyle", chip)
    assert outline == "solid"
    press(Keys.SPACE)
    assert chip.get_attribute("aria-pressed") == "false"
    press(Keys.SPACE)
    summary = css(browser, "#n5 summary")
    browser.execute_script("arguments[0].focus()", summary)
    press(Keys.ENTER)
    assert css(browser, "#n5 .body").is_displayed()


def test_readers_of_the_screen_hear_a_name_for_everything_that_acts(browser, path):
    chromium.show(browser, path)
    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    seen: dict[str, int] = {}
    for node in tree:
        role = node.get("role", {}).get("value")
        acts = ("link", "button", "combobox", "searchbox", "image", "img", "navigation", "DisclosureTriangle")
        if role in acts and not node["ignored"]:
            seen[role] = seen.get(role, 0) + 1
            assert node["name"]["value"].strip(), node
    assert {"link", "button", "combobox", "searchbox", "DisclosureTriangle", "navigation"} <= set(seen)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 768, 1280])
@pytest.mark.parametrize("which", ["path", "hostile"])
def test_nothing_is_wider_than_the_window(browser, request, which, width, scheme):
    chromium.show(browser, request.getfixturevalue(which), width, scheme)
    for _ in range(2):
        wide, inner, elements = browser.execute_script(chromium.WIDEST)
        assert elements == []
        assert wide <= inner == width
        css(browser, "#unfold").click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_every_text_has_the_contrast_that_accessibility_asks_for(browser, path, scheme, width, report):
    chromium.show(browser, path, width, scheme)
    css(browser, "#unfold").click()
    css(browser, ".chip[data-verdict=missing]").click()
    texts = browser.execute_script(chromium.AUDIT)
    assert len(texts) > 500
    least = min(texts)
    report.append(f"least contrast {scheme}, {width} pixels: {least[0]:.2f}, {least[1]!r}")
    assert least[0] >= NORMAL, sorted(texts)[:5]
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (int(ground[4:].split(",")[0]) > 127) == (scheme == "light")


def test_without_javascript_everything_is_there(browser, path, made):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chromium.show(browser, path)
        assert browser.execute_script(SHOWN) == list(range(len(made.nodes)))
        hidden = browser.execute_script(
            "return [...document.querySelectorAll('.body')].filter(e => !e.checkVisibility()).length"
        )
        assert hidden == 0
        assert not css(browser, "#filter").is_displayed()
        wide, inner, elements = browser.execute_script(chromium.WIDEST)
        assert (elements, wide <= inner) == ([], True)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_it_prints_in_dark_ink_on_white(browser, path):
    chromium.show(browser, path, scheme="dark")
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    assert not css(browser, "#filter").is_displayed()
    assert not css(browser, "nav").is_displayed()
    least = min(browser.execute_script(chromium.AUDIT))
    assert least[0] >= NORMAL, least
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pdf.startswith(b"%PDF")


def test_whole_networks_open_quickly(browser, tmp_path, report):
    """Not judged by the clock; shown, so that a page that has become heavy is noticed."""
    for name in ("resnest-50-pytorch", "octave-se-resnet-50-0.125"):
        made = verification(refnet.load(name, weights="seed:0"), pictures=1000)
        html.write(tmp_path / "r.html", made)
        chromium.show(browser, tmp_path / "r.html")
        assert len(browser.execute_script(SHOWN)) == len(made.nodes)
        timing = browser.execute_script("return performance.getEntriesByType('navigation')[0].domComplete")
        size = (tmp_path / "r.html").stat().st_size
        report.append(f"{name}: {len(made.nodes)} nodes, {size / 1e6:.2f} MB, complete after {timing:.0f} ms")
        quiet(browser)
