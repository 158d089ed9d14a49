"""A drawing (refnet/report/drawing.py) that can show a feature map, too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refnet.core.op import F32
from refnet.report.drawing import Drawing


@dataclass
class FigureDrawing(Drawing):
    """As `Drawing`, with feature maps."""

    def map(self, x: float, y: float, channel: F32, side: float, largest: float) -> None:
        """A feature map, (h, w): orange above 0, blue below, strong where it is near `largest`.

        side: of an element's square.
        """
        height, width = channel.shape
        self.rect(x, y, width * side, height * side, "zero")
        steps = np.rint(channel / (largest or 1.0) * 8).astype(int)
        squares: dict[int, list[str]] = {}
        for (i, j), step in np.ndenumerate(steps):
            if step:
                at = f"M{x + j * side:g} {y + i * side:g}h{side:g}v{side:g}h-{side:g}z"
                squares.setdefault(int(step), []).append(at)
        for step, found in sorted(squares.items()):
            kind, depth = ("plus" if step > 0 else "minus"), (min(abs(step), 8) / 8) ** 0.5
            look = f'class="{kind}" shape-rendering="crispEdges" opacity="{depth:.2f}"'
            self.parts.append(f'<path {look} d="{"".join(found)}"/>')
