"""The documentation's site, as far as it can be tested without Sphinx; .ci/run builds it."""

from __future__ import annotations

import ast
import doctest
import re
import runpy
from pathlib import Path

import refnet
from refnet.ops import ALL

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "site"


def listed(page: str, prefix: str) -> list[str]:
    text = (SITE / page).read_text(encoding="utf-8")
    return re.findall(rf"^\.\. auto\w+:: {re.escape(prefix)}(\w+)$", text, re.MULTILINE)


def test_every_public_name_is_described_once():
    assert sorted(listed("public.rst", "refnet.")) == sorted(set(refnet.__all__) - {"__version__"})


def test_every_op_is_described_once():
    assert listed("ops.rst", "refnet.ops.") == sorted(op.__name__ for op in ALL)


def test_docstrings_become_what_their_converter_says():
    made = runpy.run_path(str(SITE / "docstrings.py"))
    found = doctest.DocTestFinder().find(made["restructured"], globs=made)
    results = [doctest.DocTestRunner().run(one) for one in found]
    assert sum(one.attempted for one in results) == 2
    assert sum(one.failed for one in results) == 0


def test_every_page_stands_in_the_sidebar():
    (value,) = [
        node.value
        for node in ast.parse((SITE / "conf.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NAVIGATION"
    ]
    named = {
        one.value for one in ast.walk(value) if isinstance(one, ast.Constant) and isinstance(one.value, str)
    }
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *SITE.glob("*.rst")]
    pages += [*(ROOT / "weights").rglob("*.md"), ROOT / "docs" / "learn" / "README.md"]
    missing = {path.relative_to(ROOT).with_suffix("").as_posix() for path in pages} - named
    assert missing == {"README"}  # which has the sidebar
