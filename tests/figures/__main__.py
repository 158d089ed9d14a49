"""Draws all figures: python -m tests.figures."""

from __future__ import annotations

from pathlib import Path

from tests.figures import FIGURES

for name, draw in FIGURES.items():
    (Path(__file__).parents[2] / "docs" / "figures" / name).write_text(draw(), encoding="utf-8")
