"""Every fenced python block of README and docs runs, in order, in one namespace per page."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALL = ["README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
PAGES = [page for page in ALL if "```python\n" in (ROOT / page).read_text(encoding="utf-8")]
PAGES.remove("docs/golden.md")  # its blocks are user tests and a port: test_pytest_plugin, test_golden_files
TAUGHT = {f"docs/{name}.md" for name in ("tour", "numerics", "report", "replay", "verify")} | {"README.md"}


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, content) of each fenced block; "python no-run" is another language than python."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_pages_that_teach_python_have_blocks():
    assert set(PAGES) >= TAUGHT


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run_and_print_what_the_page_says(page):
    """A python block that is followed by a text block prints it."""
    namespace: dict[str, object] = {"__name__": "page"}
    found = blocks((ROOT / page).read_text(encoding="utf-8"))
    for (language, code), following in zip(found, [*found[1:], ("", "")], strict=True):
        if language != "python":
            continue
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(ast.parse(code), page, "exec", dont_inherit=True), namespace)
        if following[0] == "text":
            assert printed.getvalue() == following[1], code
