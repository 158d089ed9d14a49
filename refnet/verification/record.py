"""A verification as JSON and in one line: docs/verify.md describes the record."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from refnet.core.words import counted
from refnet.verification.judgement import (
    DEFECT,
    EQUAL,
    MISSING,
    REPLAYED,
    ROUNDING,
    UNJUDGED,
    Judgement,
    Worst,
)

if TYPE_CHECKING:
    from refnet.verification.names import Unmatched
    from refnet.verification.verify import Verification

FORMAT = "refnet verification"
VERSION = 1


def record(found: Verification) -> dict[str, Any]:
    """The JSON record. Numbers that JSON lacks are null (shares, radii) or text (elements)."""
    from refnet import __version__

    return {
        "format": FORMAT,
        "version": VERSION,
        "written_by": f"refnet {__version__}",
        "graph": {"name": found.graph, "hash": found.graph_hash},
        "reference": None if found.reference is None else dict(found.reference),
        "book": None if found.book is None else dict(found.book),
        "summary": {
            "values": len(found.nodes) - found.counts[MISSING],
            **found.counts,
            "surplus": len(found.surplus),
            "unmatched": len(found.unmatched),
            "beyond": len(found.beyond),
            "allowed": len(found.allowed),
            "line": found.line,
        },
        "first_defect": found.first_defect,
        "first_difference": found.first_difference,
        "suggestion": found.suggestion,
        "notes": list(found.notes),
        "nodes": [_node(one) for one in found.nodes],
        "outputs": [{**vars(one), "largest": one.largest} for one in found.outputs],
        "surplus": list(found.surplus),
        "unmatched": [_unmatched(one) for one in found.unmatched],
        "beyond": list(found.beyond),
        "allowed": list(found.allowed),
        "seconds": round(found.seconds, 3),
    }


def _node(one: Judgement) -> dict[str, Any]:
    share = one.share
    return {
        "name": one.name,
        "op": one.op,
        "kind": one.kind,
        "inputs": list(one.inputs),
        "shape": list(one.shape),
        "verdict": one.verdict,
        "reason": one.reason,
        "over": list(one.over),
        "found_as": one.found_as,
        "reading": None if one.reading is None else str(one.reading),
        "elements": one.elements,
        "differ": one.differ,
        "outside": one.outside,
        "unpromised": one.unpromised,
        "share": share
        and {
            "max": finite(share.largest),
            "median": finite(share.median),
            "histogram": list(share.histogram),
        },
        "ulps": None if one.ulps is None else {"max": one.ulps},
        "worst": None if one.worst is None else _worst(one.worst),
        "inherited": None if one.inherited is None else vars(one.inherited),
    }


def _unmatched(one: Unmatched) -> dict[str, Any]:
    likely = None if one.likely is None else {"name": one.likely.name, "why": one.likely.why}
    return {"name": one.name, "likely": likely}


def _worst(one: Worst) -> dict[str, Any]:
    bound = None
    if one.bound is not None:
        bound = {"center": finite(one.bound[0]), "radius": finite(one.bound[1])}
    return {
        "at": list(one.at),
        "found": number(one.found),
        "plain": number(one.plain),
        "golden": None if one.golden is None else number(one.golden),
        "bound": bound,
        "ulps": one.ulps,
        "share": None if one.share is None else finite(one.share),
    }


def number(value: np.float32) -> dict[str, Any]:
    """Bits, and the shortest decimal that reads back as the same float32; "nan", "inf" or "-inf" as text.

    >>> number(np.float32(0.1))
    {'hex': '0x3dcccccd', 'value': 0.1}
    """
    text = str(np.float32(value))
    return {
        "hex": f"0x{int(np.float32(value).view(np.uint32)):08x}",
        "value": float(text) if np.isfinite(value) else text,
    }


def finite(value: float) -> float | None:
    """The number, None if JSON has none such."""
    return float(value) if math.isfinite(value) else None


def line(found: Verification) -> str:
    """What was found, in one line."""
    counts = found.counts
    said = [f"{counts[verdict]} {verdict}" for verdict in (EQUAL, REPLAYED, ROUNDING) if counts[verdict]]
    shares = [(one.share.largest, one.name) for one in found.nodes if one.share and one.verdict == ROUNDING]
    if shares:
        largest, name = max(shares)
        said[-1] += f" (at most {largest:.3g} of the bound, {name})"
    defects = counts[DEFECT]
    said.append(f"{defects or 'no'} defect{'s' if defects != 1 else ''}")
    if defects:
        said[-1] += f", first {found.first_defect}"
    said += [f"{counts[verdict]} {verdict}" for verdict in (UNJUDGED, MISSING) if counts[verdict]]
    parts = ((found.unmatched, "unmatched"), (found.beyond, "beyond the graph"), (found.allowed, "allowed"))
    said += [f"{len(names)} {what}" for names, what in parts if names]
    return f"{counted(len(found.nodes) - counts[MISSING], 'value')}: " + ", ".join(said)


REVEALED = ("mxnet", "onnxruntime", "openvino", "torch")
"""The frameworks that `refnet reveal` can ask."""


def suggestion(found: Verification) -> str | None:
    """What to run where only rounding was found: a bug smaller than the bound can hide under it.

    A book of the framework's orders, if none was given, and the order-free run.
    """
    if found.counts[DEFECT] or not found.counts[ROUNDING]:
        return None
    judged = "judged " if found.counts[UNJUDGED] or found.unmatched else ""
    said = f"every {judged}difference is inside its bound, and a bug smaller than that could hide there: "
    model = _callable(found)
    if model is None:
        alone = (
            "`refnet export MODEL --to onnx --order-free -o DIR` writes its convolutions, dense layers and "
            "averages with inputs on which no sum rounds, to be run by whatever computed these values, if "
            "that runs .onnx"
        )
    else:
        alone = (
            f"`refnet capture torch {model} --order-free -o DIR` runs each of its convolutions, dense layers "
            "and averages on inputs on which no sum rounds"
        )
    return f"{said}{_by_book(found)}{alone}"


def _by_book(found: Verification) -> str:
    """Which command makes a book, where one can be made and none was given."""
    who = found.reference or {}
    if found.book is not None or who.get("framework") not in REVEALED:
        return ""
    model = _callable(found) or "MODEL"
    return (
        f"`refnet reveal {who['framework']} {model} -o BOOK.json`, with what the capture was told, asks in "
        "which order it adds, and `refnet verify DIR --book BOOK.json` proves what has these bits to be "
        "rounding; "
    )


def _callable(found: Verification) -> str | None:
    """The torch callable whose capture this is, as package.module:callable; None of anything else."""
    who = found.reference or {}
    flags = who.get("flags", {})
    model = flags.get("model", "")
    if who.get("framework") != "torch" or "parameters" not in flags:
        return None
    return model if ":" in model else "package.module:callable"
