"""A real browser for the crosschecks of the HTML report: Chromium without a window, driven by Selenium."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

AUDIT = """
// Per text that is seen: [contrast, text, element], by the formula of WCAG 2.1 (relative luminance).
const parse = (colour) => {
  const numbers = colour.match(/[0-9.]+/g).map(Number);
  return [numbers[0], numbers[1], numbers[2], numbers[3] ?? 1];
};
const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3]));
const luminance = (rgb) => {
  const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = rgb.map((c) => linear(c / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  const layers = [];
  for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
  return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, said = walker.currentNode.data.trim();
  const box = element.getBoundingClientRect();
  const skip = element.closest("script, .unseen, .skip, title, option, .faint");
  if (!said || skip || !element.checkVisibility({visibilityProperty: true}) || !box.width) continue;
  const style = getComputedStyle(element), below = ground(element);
  const ink = over(parse(element.closest("svg") ? style.fill : style.color), below);
  const [light, dark] = [luminance(ink), luminance(below)].sort((a, b) => b - a);
  found.push([(light + 0.05) / (dark + 0.05), said.slice(0, 40), element.outerHTML.slice(0, 120)]);
}
return found;
"""
"""JavaScript that measures the contrast of every text from the colours that the browser rendered."""

WIDEST = """
// What reaches beyond the window, boxes that scroll by themselves excepted.
const wide = [...document.body.querySelectorAll("*")].filter((e) =>
  e.checkVisibility() && !e.closest(".wide, .skip, .unseen") &&
  e.getBoundingClientRect().right > innerWidth + 0.5);
return [document.documentElement.scrollWidth, innerWidth, wide.map((e) => e.outerHTML.slice(0, 120))];
"""


def start() -> Any:
    """A browser. A missing one is a failure: nothing is skipped here."""
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        pytest.fail("no selenium: run .ci/environments.sh browser")
    found = {}
    for name in ("chromium", "chromedriver"):
        path = os.environ.get(f"REFNET_{name.upper()}") or shutil.which(name)
        if not path or not Path(path).exists():
            pytest.fail(f"no {name}: run .ci/environments.sh browser or set REFNET_{name.upper()}")
        found[name] = path
    options = webdriver.ChromeOptions()
    options.binary_location = found["chromium"]
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's sandbox refuses root, who runs CI
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(found["chromedriver"]))


def show(browser: Any, path: Path, width: int = 1280, scheme: str = "light", height: int = 900) -> None:
    """Open a page anew in a window of this width, in this colour scheme."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what came before is not this page's
    browser.get(path.as_uri())
