"""refnet: executes convolutional networks for bit-level verification against framework outputs.

The public names, nothing else; each is imported when it is first used, so that `import refnet` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refnet.arithmetic.plain import Plain
    from refnet.arithmetic.run import run, steps
    from refnet.core.errors import RefnetError
    from refnet.core.graph import Graph, Node, TensorType
    from refnet.models.loading import load

__version__ = "0.1.0"

_HOME = {
    "Graph": "refnet.core.graph",
    "Node": "refnet.core.graph",
    "Plain": "refnet.arithmetic.plain",
    "RefnetError": "refnet.core.errors",
    "TensorType": "refnet.core.graph",
    "load": "refnet.models.loading",
    "run": "refnet.arithmetic.run",
    "steps": "refnet.arithmetic.run",
}

__all__ = ["Graph", "Node", "Plain", "RefnetError", "TensorType", "__version__", "load", "run", "steps"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'refnet' has no attribute {name!r}")
