"""The documentation's site: Sphinx reads the Markdown pages where they stand, and refnet's docstrings.

    README, docs/, weights/ ── MyST ──┐
    docs/site/*.rst, docstrings ──────┼── Sphinx, furo ── build/site
    refnet.learn ── the learners' page ┘

CONTRIBUTING.md has the command. What a page links to must exist, headings included: warnings are errors.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import docstrings  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

import refnet  # noqa: E402
from refnet.learn import page as learn  # noqa: E402

project = "refnet"
author = "The refnet developers"
release = version = refnet.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]

root_doc = "README"
include_patterns = [
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
    *("docs/*.md", "docs/learn/*.md", "docs/notebooks/*.md", "docs/site/*.rst", "weights/**.md"),
]
exclude_patterns = [".*", "build", "refnet", "tests", "weights/captures", "weights/digits"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!refnet\.\w+$).*"),
]
"""Types in signatures have no page here, but for the public names; those must be found."""

myst_heading_anchors = 4
highlight_language = "none"  # formulas and drawings; examples are recognised
smartquotes = False  # what is quoted is code
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"refnet {release}"
html_show_sphinx = False
html_copy_source = False
html_additional_pages = {"index": "redirect.html"}
templates_path = ["templates"]

NOTEBOOKS = sorted(
    (one.stem for one in (ROOT / "docs" / "notebooks").glob("*.md")), key=lambda n: (n != "index", n)
)
"""The page about them first."""
NAVIGATION = {
    "Start": ["docs/tour", "docs/cli", "docs/api", "docs/learn/README"],
    "Verify": ["docs/verify", "docs/report", "docs/porting-bugs", "docs/third-party"],
    "Replay": ["docs/reveal", "docs/replay"],
    "Values": ["docs/golden", "docs/numerics", "docs/preprocessing", "docs/evaluate"],
    "Notebooks": [f"docs/notebooks/{name}" for name in NOTEBOOKS],
    "Reference": [
        "docs/site/public",
        "docs/site/ops",
        "docs/site/orders",
        "docs/formats",
        "docs/onnx-tests",
        "docs/tables",
        "docs/performance",
    ],
    "The project": [
        *("docs/architecture", "docs/decisions", "CONTRIBUTING", "SECURITY", "CHANGELOG"),
        *("weights/README", "weights/training/README"),
    ],
}
"""The sidebar. A page that stands nowhere in it is an error."""


def navigation(app: Sphinx, docname: str, source: list[str]) -> None:
    """The README, which is read without Sphinx too, gets the sidebar; the learners' page gets a link."""
    if docname == root_doc:
        for caption, pages in NAVIGATION.items():
            if pages:
                listed = "\n".join(f"/{page}" for page in pages)
                source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n"
    if docname == "docs/learn/README":
        title, rest = source[0].split("\n", 1)
        source[0] = f'{title}\n\n<p><a href="index.html">Open the page</a></p>\n{rest}'


def learners_page(app: Sphinx, error: Exception | None) -> None:
    """Built beside the page that describes it."""
    if error is None and app.builder.format == "html":
        learn.write(Path(app.outdir) / "docs" / "learn" / "index.html")


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls."""
    app.connect("source-read", navigation)
    app.connect("autodoc-process-docstring", docstrings.processed)
    app.connect("autodoc-process-signature", docstrings.signature)
    app.connect("build-finished", learners_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
