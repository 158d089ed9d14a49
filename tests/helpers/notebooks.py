"""The notebooks of docs/notebooks: their cells, and a run of them without Jupyter."""

from __future__ import annotations

import ast
import contextlib
import io
import linecache
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "index")
WITH_TORCH = {"own-module"}
"""Those that need PyTorch's Python: a cross-check runs them."""


@dataclass(frozen=True)
class Cell:
    """A Python cell, and what the page says that it prints; None if it says nothing."""

    code: str
    printed: str | None


def source(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def cells(text: str) -> list[Cell]:
    """Jupytext's Markdown format: each ```python block is a cell. A ```text block after it is its output."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    found = []
    for (language, code), (next_language, output) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if language == "python":
            found.append(Cell(code, output if next_language == "text" else None))
    return found


def run(text: str, shown: list[Any] | None = None) -> dict[str, Any]:
    """Run the cells in order in one namespace, as a kernel does; what is defined at the end.

    Each prints exactly what the page says, and nothing where it says nothing. shown: takes what the last
    expressions of cells are, which a notebook shows.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells(text)):
        file = f"<cell {number}>"
        linecache.cache[file] = (len(cell.code), None, cell.code.splitlines(keepends=True), file)  # inspect
        tree = ast.parse(cell.code)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(tree, file, "exec", dont_inherit=True), namespace)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), file, "eval"), namespace)
                if value is not None and shown is not None:
                    shown.append(value)
        assert printed.getvalue() == (cell.printed or ""), cell.code
    return namespace


def functions(text: str) -> dict[str, str]:
    """Name -> source of every function that the cells define."""
    return {
        node.name: ast.get_source_segment(cell.code, node) or ""
        for cell in cells(text)
        for node in ast.parse(cell.code).body
        if isinstance(node, ast.FunctionDef)
    }
