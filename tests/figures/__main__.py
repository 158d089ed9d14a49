"""Draws all figures, and writes the tables of docs/performance.md: python -m tests.figures."""

from __future__ import annotations

from pathlib import Path

from tests.figures import FIGURES, bench, races

for name, draw in FIGURES.items():
    (Path(__file__).parents[2] / "docs" / "figures" / name).write_text(draw(), encoding="utf-8")
bench.PAGE.write_text(races.written(bench.written(bench.PAGE.read_text(encoding="utf-8"))), encoding="utf-8")
