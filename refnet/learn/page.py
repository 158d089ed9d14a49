"""The learners' page as one HTML file: templates, styles, data and modules put together.

    networks ─┐
    facts ────┼── templates/page.html ── chapters ── one file that loads nothing
    js, css ──┘

The page's content policy allows only its own style and script, named by their sha256. The modules of js/ are
plain ES modules, which an editor and tsc understand. In the page they stand one after another in one script:
import lines go, and `export` goes. So no two of them may use one name at the top, which a test checks.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from refnet.formats.write import whole_file
from refnet.learn import pictures
from refnet.learn.networks import SHIPPED, digits, network
from refnet.learn.words import brief, minus

LIVE = ("number", "rounding", "octave", "settings")
"""The facts that the modules read; the others are only printed."""

MODULES = (
    *("float32", "float64", "exact", "engine", "orders", "state", "draw"),
    *("digit", "number", "rounding", "octave", "attention", "bugs", "replay", "main"),
)
"""In an order in which each imports only from those before it."""

CHAPTERS = {
    "digit": "A digit goes in",
    "number": "One number",
    "rounding": "Rounding",
    "octave": "Octave convolution",
    "attention": "Split attention",
    "bugs": "Rounding or bug?",
    "replay": "Batch norm folded, sums fused in MXNet, replay",
}
"""Templates and titles, in the order of the page."""


def write(path: str | os.PathLike[str]) -> None:
    """Write the page, whole or not at all. Raises InputError if the file cannot be written."""
    document = page().encode()
    with whole_file(path) as stream:
        stream.write(document)


def page() -> str:
    """The page as HTML text; the same text each time."""
    environment = Environment(
        loader=PackageLoader("refnet.learn"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    facts = json.loads(_text("facts.json"))
    environment.filters |= {"sha256": _sha256, "thousands": "{:,}".format, "brief": brief, "minus": minus}
    environment.globals |= {"facts": facts, "pictures": pictures, "chapters": [*CHAPTERS], "titles": CHAPTERS}
    titles = {one.name: one.title for one in SHIPPED}
    exercises = [one | {"title": titles[one["network"]]} for one in json.loads(_text("exercises.json"))]
    facts["settings"] = json.loads(_text("settings.json"))
    environment.globals["exercises"] = exercises
    style, script = _text("page.css"), script_text()
    data = {
        "networks": [network(one) for one in SHIPPED],
        "digits": digits(),
        "facts": {name: facts[name] for name in LIVE},
    }
    return environment.get_template("page.html").render(
        style=Markup(style),  # the package's own text, which goes into the page as it is
        script=Markup(script),
        data=Markup(_json(data)),
    )


def script_text() -> str:
    """All modules as one script."""
    return "\n".join(_without_imports(_text(f"js/{name}.js")) for name in MODULES)


def _without_imports(module: str) -> str:
    """A module as part of a script that has the names of those before it.

    >>> _without_imports('import { a,\\n  b } from "./c.js";\\nexport const d = a + b;\\n')
    'const d = a + b;\\n'
    """
    alone = re.sub(r'^import [^;]*? from "[^"]+";\n', "", module, flags=re.MULTILINE)
    return re.sub(r"^export ", "", alone, flags=re.MULTILINE)


def _text(name: str) -> str:
    return files("refnet.learn").joinpath(name).read_text(encoding="utf-8")


def _json(data: Any) -> str:
    """JSON that no HTML parser takes for the end of its element."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def _sha256(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
