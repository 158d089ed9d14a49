"""The figures of the documentation: `python -m tests.figures` draws them into docs/figures/.

    drawing     SVG: words, boxes, arrows, feature maps; the colours of light and dark
    networks    a shipped digit, the octave convolution and the split attention, from refnet's values
    numbers     the verdicts and the order of one sum, from a shipped capture and book
    packages    which package imports which, from the code
    bench       the tables of `refnet bench --table`, from the CSVs that it has written
    kernels     the account kernel by kernel, from the CSV of `refnet bench --kernels`

Every number and every pixel in them is computed when they are drawn, or stands in that CSV. test_figures.py
draws them again and compares the bytes with the committed files.
"""

from __future__ import annotations

from functools import partial

from tests.figures import bench, networks, numbers, packages

FIGURES = {
    "digit.svg": networks.digit,
    "octave.svg": networks.octave,
    "attention.svg": networks.attention,
    "verdicts.svg": numbers.verdicts,
    "order.svg": numbers.order,
    "packages.svg": packages.packages,
    **{one.figure: partial(bench.figure, one) for one in bench.SOURCES if one.figure and one.measured},
}
"""File in docs/figures -> what draws it."""
