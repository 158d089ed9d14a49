"""The figure of the packages, from the imports in their code."""

from __future__ import annotations

from functools import cache

from refnet.report.drawing import Drawing
from tests.test_project import imported, modules

PLACES = {
    **{"pytest_plugin": (0, 120), "cli": (0, 440)},
    "report": (1, 240),
    "bench": (2, 140),
    **{"frameworks": (3, 140), "evaluation": (3, 310)},
    **{"verification": (4, 225), "learn": (4, 455)},
    "models": (5, 270),
    **{"arithmetic": (6, 270), "prove": (6, 570)},
    **{"formats": (7, 170), "exact": (7, 330), "workers": (7, 480)},
    **{"ops": (8, 170), "kernels": (8, 330)},
    "loops": (9, 330),
    "core": (10, 325),
}
"""Package -> its row, and the middle of its box."""
WIDE = {"core": 422}
"""The widths of other boxes than most: all floors stand on this one."""
READABLE = ("ops", "loops", "core")


@cache
def needs() -> dict[str, set[str]]:
    """Package -> those that it imports and that nothing else that it imports brings along."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        package = name.split(".")[1] if "." in name else name
        others = {one.split(".")[1] for one in imported(path, known)} - {package}
        found.setdefault(package, set()).update(others)
    for starter in ("refnet", "__main__"):  # `import refnet` imports lazily; __main__ starts the command line
        found.pop(starter)

    def below(package: str) -> set[str]:
        return found[package] | {deeper for one in found[package] for deeper in below(one)}

    return {
        package: {one for one in others if not any(one in below(other) for other in others - {one})}
        for package, others in found.items()
    }


def packages() -> str:
    """Boxes and arrows; a package that has no place yet is an error."""
    arrows = needs()
    assert arrows.keys() == PLACES.keys(), "give the new package a place in tests/figures/packages.py"
    high, wide, row = 32, 112, 50
    drawing = Drawing(
        20 + row * 11 + 18,
        "The packages of refnet",
        "; ".join(f"{one} imports {', '.join(sorted(arrows[one]))}" for one in sorted(arrows) if arrows[one])
        + ". core, loops and ops are the readable part.",
    )

    def top(package: str) -> float:
        return 16 + row * PLACES[package][0]

    def nearest(package: str, x: float) -> float:
        room = (WIDE.get(package, wide) - wide) / 2
        return min(max(x, PLACES[package][1] - room), PLACES[package][1] + room)

    for package in sorted(arrows):
        x, y = PLACES[package][1], top(package) + high
        for other in sorted(arrows[package]):
            x1, y1 = nearest(other, x), top(other)
            middle = (y + y1 - 8) / 2
            drawing.path(f"M{x} {y:g}C{x} {middle:g} {x1} {middle:g} {x1} {y1 - 8:g}", "way")
            drawing.path(f"M{x1} {y1:g}l-4 -8h8z", "head")
    for package, (_, x) in PLACES.items():
        kind = "box thick" if package in READABLE else "box"
        width = WIDE.get(package, wide)
        drawing.box(x - width / 2, top(package), width, high, package, kind)
    drawing.rect(470, 20 + row * 11 - 12, 20, 20, "box thick", 4)
    drawing.text(498, 20 + row * 11 + 4, "the readable part", "soft")
    drawing.text(
        16, 20 + row * 11 + 4, "An arrow: imports. Left out: arrows that follow from others.", "soft"
    )
    return drawing.svg()
