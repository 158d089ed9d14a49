"""A drawing in SVG that is the same text each time, and readable on light and dark pages.

It brings its own ground: a page's theme may differ from the system's, which is all that an image can ask for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH = 640
"""Of every drawing, in its own units; words are 14 high, so that they can be read on a phone."""

LIGHT = {
    **{"ground": "#fbfaf8", "sheet": "#ffffff", "ink": "#1d1f23", "soft": "#595e68", "line": "#8b8f98"},
    **{"rail": "#dedad3", "zero": "#f1efe9", "plus": "#c45400", "minus": "#184ea8"},
    **{"equal": "#17663a", "replayed": "#0c5f6d", "rounding": "#224fa8", "defect": "#b3201b"},
    **{"unjudged": "#7a4a00", "band": "#d5e0f7"},
}
DARK = {
    **{"ground": "#131519", "sheet": "#1a1d23", "ink": "#e8e9ec", "soft": "#a5abb7", "line": "#7b8290"},
    **{"rail": "#333945", "zero": "#20242c", "plus": "#ffb054", "minus": "#6ea8ff"},
    **{"equal": "#8fdcae", "replayed": "#86dbe8", "rounding": "#a9c4ff", "defect": "#ff9a91"},
    **{"unjudged": "#ffd48a", "band": "#24386b"},
}
"""The colours of the HTML report and of the learners' page."""

STYLE = """svg{{{light}}}
@media(prefers-color-scheme:dark){{svg{{{dark}}}}}
text{{font:14px system-ui,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif;fill:var(--ink)}}
.soft{{fill:var(--soft)}}.bold{{font-weight:600}}
.mono{{font-family:ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace}}
.box{{fill:var(--sheet);stroke:var(--line)}}.thick{{stroke:var(--equal);stroke-width:2.5}}
.way{{fill:none;stroke:var(--line);stroke-width:1.5}}.head{{fill:var(--line)}}
.hollow{{fill:var(--sheet);stroke:var(--ink)}}
{fills}"""


@dataclass
class Drawing:
    """What is drawn so far. title: what it shows. said: what a reader who cannot see it must know."""

    height: int
    title: str
    said: str
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        """One line of words; y is its baseline, kind its classes."""
        classes = f' class="{kind}"' if kind else ""
        side = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self.parts.append(f'<text{classes} x="{x:g}" y="{y:g}"{side}>{escape(words)}</text>')

    def rect(self, x: float, y: float, width: float, height: float, kind: str, round_by: int = 0) -> None:
        corner = f' rx="{round_by}"' if round_by else ""
        self.parts.append(
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"{corner}/>'
        )

    def box(self, x: float, y: float, width: float, height: float, words: str, kind: str = "box") -> None:
        """A box with a word in its middle."""
        self.rect(x, y, width, height, kind, 6)
        self.text(x + width / 2, y + height / 2 + 5, words, anchor="middle")

    def path(self, d: str, kind: str) -> None:
        self.parts.append(f'<path class="{kind}" d="{d}"/>')

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through the points, with a head at the last."""
        (x0, y0), (x, y) = points[-2:]
        length = math.hypot(x - x0, y - y0)
        dx, dy = 8 * (x - x0) / length, 8 * (y - y0) / length
        ways = [*points[:-1], (x - dx, y - dy)]
        self.path("M" + "L".join(f"{a:g} {b:g}" for a, b in ways), "way")
        self.path(
            f"M{x:g} {y:g}L{x - dx - dy / 2:.4g} {y - dy + dx / 2:.4g}"
            f"L{x - dx + dy / 2:.4g} {y - dy - dx / 2:.4g}z",
            "head",
        )

    def sign(self, x: float, y: float, sign: str) -> None:
        """A circle with a sign, where values meet."""
        self.parts.append(f'<circle class="box" cx="{x:g}" cy="{y:g}" r="12"/>')
        self.text(x, y + 5, sign, "bold", "middle")

    def svg(self) -> str:
        """The file."""
        filled = [name for name in LIGHT if name not in ("ink", "soft", "line")]
        fills = "".join(f".{name}{{fill:var(--{name})}}" for name in filled)
        style = STYLE.format(light=_colours(LIGHT), dark=_colours(DARK), fills=fills)
        lines: Sequence[str] = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}"'
            f' width="{WIDTH}" height="{self.height}" role="img" aria-labelledby="title desc">',
            f'<title id="title">{escape(self.title)}</title>',
            f'<desc id="desc">{escape(self.said)}</desc>',
            f"<style>{style}</style>",
            f'<rect class="ground" width="{WIDTH}" height="{self.height}" rx="10"/>',
            *self.parts,
            "</svg>",
        )
        return "\n".join(lines) + "\n"


def _colours(names: dict[str, str]) -> str:
    return ";".join(f"--{name}:{colour}" for name, colour in names.items())
