"""Figures of what a shipped digit becomes: its feature maps, one octave convolution, one split attention."""

from __future__ import annotations

from functools import cache

import numpy as np

import refnet
from refnet.core.op import F32
from refnet.models.preprocess import pipeline
from refnet.models.weights import shipped_folder
from tests.figures.drawing import FigureDrawing

DIGIT = "1700-label-5.png"
"""The image of the shipped captures."""
OCTAVE, ATTENTION = "L2_B01_conv2", "layer1.0.conv2"
HIGH, LOW = 2, 3
"""The channels of the octave convolution's outputs that are drawn: all four paths are strong there."""
MIXED = 2
"""The channel of the split attention that is drawn: its two weights differ most."""


@cache
def values(name: str) -> dict[str, F32]:
    """Every value of a shipped network for the digit, and `prob` by that name."""
    graph = refnet.load(name)
    x = pipeline("digits").apply(shipped_folder() / "digits" / DIGIT)
    found = {"data": x} | {node.name: value for node, value in refnet.steps(graph, {"data": x})}
    return found | {"prob": found[graph.outputs["prob"]]}


def maps(value: F32) -> list[tuple[F32, float]]:
    """Each channel of a value, and the value's largest number, which all of its maps are drawn by."""
    return [(channel, float(np.abs(value).max())) for channel in value[0]]


def digit() -> str:
    """The image, the two parts of its channels in the octave network, the answer."""
    found = values("octave-se-resnet-digits")
    high, low, prob = found[f"{OCTAVE}_relu-h"], found[f"{OCTAVE}_relu-l"], found["prob"][0]
    best = int(prob.argmax())
    drawing = FigureDrawing(
        284,
        "A digit in the octave network",
        f"A handwritten {best} of 32 by 32 pixels becomes 12 feature maps of 16 by 16 and 4 of 8 by 8. "
        f"The network gives the digit {best} the probability {prob[best]:.4f}.",
    )
    drawing.text(16, 28, "the image", "bold")
    drawing.map(16, 40, found["data"][0, 0], 4, float(np.abs(found["data"]).max()))
    drawing.text(16, 188, "1 × 32 × 32", "soft")
    drawing.arrow((152, 104), (192, 104))
    drawing.text(200, 28, "high frequencies", "bold")
    for i, (channel, largest) in enumerate(maps(high)):
        drawing.map(200 + i % 4 * 54, 40 + i // 4 * 54, channel, 3, largest)
    drawing.text(200, 218, "12 × 16 × 16", "soft")
    drawing.text(428, 28, "low", "bold")
    for i, (channel, largest) in enumerate(maps(low)):
        drawing.map(428, 40 + i * 54, channel, 6, largest)
    drawing.text(428, 270, "4 × 8 × 8", "soft")
    drawing.arrow((488, 104), (520, 104))
    drawing.text(528, 28, "the answer", "bold")
    for k, p in enumerate(prob):
        drawing.text(536, 52 + 16 * k, f"{k}", "soft", "middle")
        drawing.rect(546, 41 + 16 * k, 78, 12, "rail")
        drawing.rect(546, 41 + 16 * k, max(78 * float(p), 0.5), 12, "plus")
    drawing.text(528, 222, f"{best}: {prob[best]:.4f}")
    return drawing.svg()


def octave() -> str:
    """Four paths between two resolutions, and the two sums."""
    found = values("octave-se-resnet-digits")
    drawing = FigureDrawing(
        452,
        "One octave convolution",
        "The high maps go through h2h, a convolution, to the high sum, and through h2l, an average over 2 by "
        "2 pixels and a convolution, to the low sum. The low maps go through l2h, a convolution and a "
        "repetition of each pixel 2 by 2, to the high sum, and through l2l, a convolution, to the low sum.",
    )

    def place(x: float, y: float, name: str, channel: int) -> None:
        value = found[name]
        one, largest = maps(value)[channel]
        drawing.map(x, y, one, 6, largest)

    drawing.text(16, 26, "high in", "bold")
    place(16, 36, f"{OCTAVE}_relu-h", 0)
    drawing.text(16, 150, "12 × 16 × 16", "soft")
    drawing.text(16, 282, "low in", "bold")
    place(16, 292, f"{OCTAVE}_relu-l", 1)
    drawing.text(16, 358, "4 × 8 × 8", "soft")
    paths = (
        (36, 16, f"{OCTAVE}_conv-h2h", HIGH, "h2h", "convolve"),
        (150, 16, "upsampling0", HIGH, "l2h", "convolve, then"),
        (280, 8, f"{OCTAVE}_conv-h2l", LOW, "h2l", "average 2 × 2,"),
        (362, 8, f"{OCTAVE}_conv-l2l", LOW, "l2l", "convolve"),
    )
    second = {"l2h": "repeat 2 × 2", "h2l": "then convolve"}
    starts = {"h2h": (118, 84), "h2l": (118, 96), "l2h": (70, 304), "l2l": (70, 328)}
    ends = {"h2h": (500, 84), "l2h": (500, 84), "h2l": (500, 345), "l2l": (500, 345)}
    for y, n, name, channel, path, how in paths:
        middle = y + 3 * n
        drawing.arrow(starts[path], (164, middle - 4 if path.startswith("h") else middle + 4))
        drawing.text(170, middle - 4, path, "bold")
        drawing.text(170, middle + 13, how)
        if path in second:
            drawing.text(170, middle + 30, second[path])
        place(282, y, name, channel)
        x, goal = ends[path]
        above = goal + 7 if middle > goal + 20 else goal - 7 if middle < goal - 20 else goal
        drawing.arrow((282 + 6 * n + 6, middle), (x - 10, above) if above != goal else (x - 12, goal))
    for y, n, name, channel, label, shape in (
        (84, 16, f"{OCTAVE}_conv-h", HIGH, "high out", "12 × 16 × 16"),
        (345, 8, f"{OCTAVE}_conv-l", LOW, "low out", "4 × 8 × 8"),
    ):
        drawing.sign(500, y, "+")
        drawing.arrow((514, y), (530, y))
        place(534, y - 3 * n, name, channel)
        drawing.text(534, y - 3 * n - 10, label, "bold")
        drawing.text(534, y + 3 * n + 18, shape, "soft")
    drawing.text(16, 434, "One channel of each value. Orange: above 0, blue: below.", "soft")
    return drawing.svg()


def attention() -> str:
    """Where the weights of the parts come from, and what they do to one channel."""
    found = values("resnest-digits")
    parts = found[f"{ATTENTION}.relu"].reshape(2, 8, *found[f"{ATTENTION}.relu"].shape[2:])
    weights = found[f"{ATTENTION}.rsoftmax"].reshape(2, 8)
    average = found[f"{ATTENTION}.adaptive_avg_pool2d"].ravel()
    largest = float(np.abs(parts).max())
    first, second = (float(weight) for weight in weights[:, MIXED])
    drawing = FigureDrawing(
        404,
        "One split attention",
        "Two parts of eight channels are added. The average of each channel goes through two layers and a "
        f"softmax over the parts. Channel {MIXED} gets the weights {first:.3f} and {second:.3f}; "
        "its two maps are multiplied by them and added.",
    )
    drawing.text(16, 26, "1. How the weights are found", "bold")
    total = found[f"{ATTENTION}.add_1"][0, MIXED]
    drawing.map(16, 44, total, 8, largest)
    drawing.text(16, 126, "part 0 + part 1", "soft")
    drawing.arrow((88, 76), (132, 76))
    drawing.text(110, 66, "avg", "soft", "middle")
    for k, one in enumerate(average):
        tall = 60 * float(one) / float(average.max())
        drawing.rect(140 + 12 * k, 108 - tall, 9, tall, "plus" if k == MIXED else "rail")
    drawing.text(140, 126, "8 averages", "soft")
    drawing.arrow((240, 76), (268, 76))
    drawing.rect(272, 46, 128, 62, "box", 6)
    drawing.text(336, 72, "fc1, batch norm,", anchor="middle")
    drawing.text(336, 92, "relu, fc2", anchor="middle")
    drawing.arrow((404, 76), (432, 76))
    for k, (zero, one) in enumerate(weights.T):
        drawing.rect(440 + 22 * k, 48, 17, 60 * float(one), "minus")
        drawing.rect(440 + 22 * k, 48 + 60 * float(one), 17, 60 * float(zero), "plus")
    drawing.text(440, 126, "softmax: two weights", "soft")
    drawing.text(440, 144, "for each of 8 channels", "soft")
    middle = 440 + 22 * MIXED + 8.5
    drawing.path(f"M{middle - 10.5:g} 45h21v66h-21z", "way")
    drawing.text(16, 190, f"2. What they do, shown for channel {MIXED}", "bold")
    y, side = 212, 12
    for part, x, weight, kind in ((0, 16, first, "plus"), (1, 236, second, "minus")):
        drawing.map(x, y, parts[part, MIXED], side, largest)
        drawing.text(x, y + 118, f"part {part}", "soft")
        drawing.text(x + 104, y + 54, f"× {weight:.3f}", "bold")
        drawing.rect(x + 104, y + 64, 66, 8, "rail")
        drawing.rect(x + 104, y + 64, 66 * weight, 8, kind)
    drawing.sign(212, y + 48, "+")
    drawing.sign(432, y + 48, "=")
    drawing.map(470, y, found[f"{ATTENTION}.add_3"][0, MIXED], side, largest)
    drawing.text(470, y + 118, "what goes on", "soft")
    drawing.text(
        16, 366, "Darker: larger. Orange bars: the weights of part 0, blue: those of part 1.", "soft"
    )
    drawing.text(16, 386, f"Image: {DIGIT}. Values: {ATTENTION} of resnest-digits.", "soft")
    return drawing.svg()
