"""The symbol files of the official octave networks. They are not refnet's to ship; where they lie beside the
repository, tests compare with them. Elsewhere they compare with the hashes of their structure, and run the
builders' own exports, which have the same hashes: nothing is skipped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from refnet.core.graph import Node
from refnet.core.op import TensorType

SYMBOLS = Path(__file__).parents[3] / "shared" / "symbols"
STRUCTURES = Path(__file__).parents[1] / "models" / "official_structures.json"
"""Per symbol file `structure_hash` of its nodes and `shapes_hash` of its weights, so that a copy of refnet
without the files compares with them, too."""


def structure_hash(nodes: Iterable[Node]) -> str:
    """sha256 of the nodes in order: name, op with every attribute, inputs with weights."""
    return hashlib.sha256("".join(f"{node}\n" for node in nodes).encode()).hexdigest()


def shapes_hash(weights: Mapping[str, TensorType]) -> str:
    """sha256 of the weights' names and shapes, sorted by name."""
    lines = sorted(f"{name} {','.join(map(str, kind.shape))}\n" for name, kind in weights.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()
