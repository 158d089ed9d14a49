"""The syntax trees of refnet's own files, each parsed once."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path


@cache
def walked(path: Path) -> tuple[ast.AST, ...]:
    """Every node of a file's syntax tree, in the order of ast.walk."""
    return tuple(ast.walk(ast.parse(path.read_text())))
