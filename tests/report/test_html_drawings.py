"""The drawings of the HTML report: pictures against loops, histograms, bars and lines of numbers."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from refnet.report import html_charts, html_pictures


def pixels(uri: str) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    return np.asarray(image.convert("RGBA"))


def test_a_picture_of_differences_against_a_loop():
    random = np.random.default_rng(0)
    share = np.where(random.random((211, 97)) < 0.9, 0, random.random((211, 97))).astype(np.float32)
    share[5, 7], share[100, 3], share[200, 96] = np.inf, np.nan, 1.5
    share[199, 96] = np.nan  # beside one that is proved wrong: that one stays
    picture = html_pictures.differences(share)
    assert picture.fold == (3, 2)
    drawn = pixels(picture.uri)
    assert drawn.shape == (71, 49, 4)
    red, magenta = [*html_pictures.RED, 255], [*html_pictures.MAGENTA, 255]
    previous = {}
    for y in range(71):
        for x in range(49):
            block = share[3 * y : 3 * y + 3, 2 * x : 2 * x + 2]
            if (block > 1).any():
                assert drawn[y, x].tolist() == red
            elif np.isnan(block).any():
                assert drawn[y, x].tolist() == magenta
            elif block.max() == 0:
                assert drawn[y, x, 3] == 0
            else:
                assert drawn[y, x, 3] == 255
                previous[float(block.max())] = int(drawn[y, x, 1])  # viridis: its green only grows
    assert (picture.over, picture.nans) == (2, 1)
    greens = [green for _, green in sorted(previous.items())]
    assert greens == sorted(greens)
    assert greens[0] < 20
    assert greens[-1] == html_pictures.VIRIDIS[-1][1]
    assert picture.highest == max(previous)


def test_a_picture_of_values_against_a_loop():
    mean = np.random.default_rng(1).normal(size=(99, 398)).astype(np.float32)
    mean[50, 30] = np.nan
    picture = html_pictures.values(mean)
    assert picture.fold == (2, 5)
    drawn = pixels(picture.uri).astype(int)
    folded = np.full(drawn.shape[:2], np.nan)
    for y in range(folded.shape[0]):
        for x in range(folded.shape[1]):
            block = mean[2 * y : 2 * y + 2, 5 * x : 5 * x + 5].astype(np.float64)
            folded[y, x] = block.sum() / block.size
    assert drawn[25, 6].tolist() == [*html_pictures.MAGENTA, 255]
    good = np.isfinite(folded)
    assert good.sum() == good.size - 1
    assert picture.lowest == pytest.approx(np.nanmin(folded), rel=1e-12)  # sums of ten, in another order
    grey = 255 * np.round((folded - picture.lowest) / (picture.highest - picture.lowest) * 249) / 249
    assert np.abs(drawn[good][:, 0] - grey[good]).max() <= 255 / 249  # the rounding to the next step
    assert (drawn[good][:, 0] == drawn[good][:, 2]).all()


@pytest.mark.parametrize("array", [np.zeros((3, 4)), np.full((2, 2), np.nan), np.full((2, 2), np.inf)])
def test_pictures_of_nothing(array):
    for draw in (html_pictures.differences, html_pictures.values):
        picture = draw(array.astype(np.float32))
        assert np.isfinite([picture.lowest, picture.highest]).all()


def test_a_histogram_has_a_bar_per_bin_that_holds_something():
    counts = np.random.default_rng(3).integers(0, 3, 21).tolist()
    drawn = html_charts.histogram(counts)
    bars = re.findall(r"M([0-9]+) 52v-([0-9.]+)h10v\2z", drawn)
    held = [i for i, n in enumerate(counts) if n]
    assert [int(x) for x, _ in bars] == [1 + 12 * i for i in held]
    tall = {counts[i]: float(h) for i, (_, h) in zip(held, bars, strict=True)}
    assert tall[1] < tall[2] == html_charts.HEIGHT
    assert f"above 1: {counts[20]}" in drawn or not counts[20]
    assert "Elements by share of the bound: none" in html_charts.histogram([0] * 21)


def test_the_bar_of_all_verdicts_fills_its_width_and_hides_none():
    drawn = html_charts.proportions({"equal": 5000, "replayed": 0, "defect": 1, "missing": 5000})
    parts = re.findall(r'class="([a-z]+)" x="([0-9.]+)" width="([0-9.]+)"', drawn)
    assert [verdict for verdict, _, _ in parts] == ["equal", "defect", "missing"]
    ends = [0.0, *(float(x) + float(wide) for _, x, wide in parts)]
    assert [f"{end:.1f}" for end in ends[:-1]] == [f"{float(x):.1f}" for _, x, _ in parts]
    assert f"{ends[-1]:.1f}" == "1000.0"
    assert float(parts[1][2]) >= 6
    assert "rect" not in html_charts.proportions({"equal": 0})


def test_a_bar_is_full_at_one_and_red_beyond():
    assert 'class="bars" width="25.0"' in html_charts.share_bar(0.25)
    for share in (1.0001, np.inf):
        assert 'class="over" width="100.0"' in html_charts.share_bar(share)
    assert html_charts.share_bar(float("nan")) == ""


@pytest.mark.parametrize(
    ("place", "x"), [(0.5, 160 + 150 * 0.5 / 1.3), (-1.0, 160 - 150 / 1.3), (1e9, 310.0)]
)
def test_the_line_of_numbers_puts_the_value_where_it_lies(place, x):
    worst = {"found": {"value": 3 + place * 0.25}, "plain": {"value": 3.0}, "golden": None}
    worst |= {"bound": {"center": 3.0, "radius": 0.25}}
    drawn = html_charts.number_line(worst, "rounding")
    assert f'class="rounding" d="M{x:.1f} 30' in drawn
    assert 'class="plain" d="M160.0 30' in drawn


@pytest.mark.parametrize("bound", [None, {"center": 1, "radius": 0}, {"center": 1, "radius": "inf"}])
def test_no_line_without_a_bound(bound):
    assert html_charts.number_line({"found": {"value": 1.0}, "bound": bound}, "defect") == ""
