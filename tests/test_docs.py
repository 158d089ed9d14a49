"""Every fenced python block of README, tour and numerics runs, in order, in one namespace per page."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [page for page in ("README.md", "docs/tour.md", "docs/numerics.md") if (ROOT / page).is_file()]


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, content) of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run_and_print_what_the_page_says(page):
    """A python block that is followed by a text block prints it."""
    namespace: dict[str, object] = {"__name__": "page"}
    found = blocks((ROOT / page).read_text(encoding="utf-8"))
    assert any(language == "python" for language, _ in found)
    for (language, code), following in zip(found, [*found[1:], ("", "")], strict=True):
        if language != "python":
            continue
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(ast.parse(code), page, "exec"), namespace)
        if following[0] == "text":
            assert printed.getvalue() == following[1], code
