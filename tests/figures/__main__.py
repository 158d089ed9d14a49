"""Draws all figures, and writes the tables of docs/performance.md: python -m tests.figures [CALLS.csv].

CALLS.csv, of `refnet bench --kernels --csv`, replaces docs/bench-kernels.csv.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.figures import FIGURES, bench, kernels, races

for calls in sys.argv[1:]:
    kernels.keep(Path(calls))
for name, draw in FIGURES.items():
    (Path(__file__).parents[2] / "docs" / "figures" / name).write_text(draw(), encoding="utf-8")
text = races.written(bench.written(bench.PAGE.read_text(encoding="utf-8")))
bench.PAGE.write_text(kernels.written(text), encoding="utf-8")
