"""refnet: executes convolutional networks for bit-level verification against framework outputs.

Everything public stands here. Each name is imported when it is first used, so `import refnet` is fast.

    load, run, steps               a network, and its values
    Plain, Golden, Replay          in which arithmetic
    limits                         what a run may cost
    capture, capture_torch         every value that a framework computes, as a folder
    open_capture                   such a folder, read back
    verify, explain, diff          what can be proved of it
    reveal, read_book              in which order a framework adds
    write_golden, check_golden     hashes of the golden values
    evaluate                       top-1 and top-5 on labelled images
    FeatureMaps                    a value as pictures, in a notebook
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from refnet.core.notebook import view_with

if TYPE_CHECKING:
    from refnet.arithmetic.golden import Golden
    from refnet.arithmetic.plain import Plain
    from refnet.arithmetic.replay import Replay
    from refnet.arithmetic.run import run, steps
    from refnet.core.errors import (
        FetchError,
        FormatError,
        FrameworkError,
        GraphError,
        InputError,
        RefnetError,
        UnsupportedError,
        WeightsError,
    )
    from refnet.core.graph import Graph, Node, TensorType
    from refnet.core.limits import limits
    from refnet.core.orders import Book
    from refnet.evaluation.evaluate import Evaluation, evaluate
    from refnet.formats.book import read as read_book
    from refnet.formats.golden_file import File as GoldenFile
    from refnet.frameworks.own_module import capture_torch
    from refnet.frameworks.public import CaptureResult, capture, reveal
    from refnet.frameworks.reveal.network import Revealed
    from refnet.models.loading import load
    from refnet.report.feature_maps import FeatureMaps
    from refnet.verification.capture import Capture, open_capture
    from refnet.verification.diff import Diff, ValueDiff, diff
    from refnet.verification.explain import Explanation
    from refnet.verification.golden import Difference as GoldenDifference
    from refnet.verification.judgement import Judgement
    from refnet.verification.public import check_golden, explain, verify, write_golden
    from refnet.verification.verify import Output, Verification

__version__ = "0.1.0"

_HOME = {
    "Book": "refnet.core.orders",
    "Capture": "refnet.verification.capture",
    "CaptureResult": "refnet.frameworks.public",
    "Diff": "refnet.verification.diff",
    "Evaluation": "refnet.evaluation.evaluate",
    "Explanation": "refnet.verification.explain",
    "FeatureMaps": "refnet.report.feature_maps",
    "FetchError": "refnet.core.errors",
    "FormatError": "refnet.core.errors",
    "FrameworkError": "refnet.core.errors",
    "Golden": "refnet.arithmetic.golden",
    "GoldenDifference": "refnet.verification.golden",
    "GoldenFile": "refnet.formats.golden_file",
    "Graph": "refnet.core.graph",
    "GraphError": "refnet.core.errors",
    "InputError": "refnet.core.errors",
    "Judgement": "refnet.verification.judgement",
    "Node": "refnet.core.graph",
    "Output": "refnet.verification.verify",
    "Plain": "refnet.arithmetic.plain",
    "RefnetError": "refnet.core.errors",
    "Replay": "refnet.arithmetic.replay",
    "Revealed": "refnet.frameworks.reveal.network",
    "TensorType": "refnet.core.graph",
    "UnsupportedError": "refnet.core.errors",
    "ValueDiff": "refnet.verification.diff",
    "Verification": "refnet.verification.verify",
    "WeightsError": "refnet.core.errors",
    "capture": "refnet.frameworks.public",
    "capture_torch": "refnet.frameworks.own_module",
    "check_golden": "refnet.verification.public",
    "diff": "refnet.verification.diff",
    "evaluate": "refnet.evaluation.evaluate",
    "explain": "refnet.verification.public",
    "limits": "refnet.core.limits",
    "load": "refnet.models.loading",
    "open_capture": "refnet.verification.capture",
    "read_book": "refnet.formats.book",
    "reveal": "refnet.frameworks.public",
    "run": "refnet.arithmetic.run",
    "steps": "refnet.arithmetic.run",
    "verify": "refnet.verification.public",
    "write_golden": "refnet.verification.public",
}
"""Public name -> the module that defines it."""

_OWN_NAME = {"GoldenDifference": "Difference", "GoldenFile": "File", "read_book": "read"}
"""What a public name is called in its module, where its module says the rest."""

__all__ = [
    "Book",
    "Capture",
    "CaptureResult",
    "Diff",
    "Evaluation",
    "Explanation",
    "FeatureMaps",
    "FetchError",
    "FormatError",
    "FrameworkError",
    "Golden",
    "GoldenDifference",
    "GoldenFile",
    "Graph",
    "GraphError",
    "InputError",
    "Judgement",
    "Node",
    "Output",
    "Plain",
    "RefnetError",
    "Replay",
    "Revealed",
    "TensorType",
    "UnsupportedError",
    "ValueDiff",
    "Verification",
    "WeightsError",
    "__version__",
    "capture",
    "capture_torch",
    "check_golden",
    "diff",
    "evaluate",
    "explain",
    "limits",
    "load",
    "open_capture",
    "read_book",
    "reveal",
    "run",
    "steps",
    "verify",
    "write_golden",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), _OWN_NAME.get(name, name))
    raise AttributeError(f"module 'refnet' has no attribute {name!r}")


def _view(value: object) -> str:
    """What a notebook shows of a graph, a verification or an explanation."""
    from refnet.report.views import view

    return view(value)


view_with(_view)


def __dir__() -> list[str]:
    return sorted(__all__)
