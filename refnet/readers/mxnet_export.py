"""Graph -> symbol.json. STUB: signatures only for now."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from refnet.graph import Graph
from refnet.ops.base import F32

Path = str | os.PathLike[str]


def graph_to_symbol(graph: Graph) -> str:
    """JSON text that MXNet 1.9.1 loads."""
    raise NotImplementedError


def write_symbol(path: Path, graph: Graph) -> None:
    """Write graph_to_symbol's text, atomically."""
    raise NotImplementedError
