"""The top classes of images, as tables and as records for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from refnet.models.predict import Prediction
from refnet.report.terminal import clean, show, table

Results = Sequence[tuple[str, Sequence[Prediction]]]
"""(name of an image or a tensor, its top classes), in the order in which they were asked for."""


def record(head: Mapping[str, str | None], output: str, results: Results) -> dict[str, Any]:
    """For JSON: what was run (head), which output, and each input's top classes."""
    each = [{"input": name, "top": [_record(p) for p in top]} for name, top in results]
    return {**head, "output": output, "results": each}


def show_all(
    head: Mapping[str, str | None],
    output: str,
    results: Results,
    note: str = "",
    saved: str = "",
) -> None:
    """Print what was run and one table per input. note: said first. saved: said last."""
    how = f"pipeline {head['pipeline']}" if head["pipeline"] else "tensor as it is"
    if note:
        show(clean(note))
    show(clean(f"{head['model']}: {how}, {head['arithmetic']} arithmetic"))
    column = "probability" if output == "prob" else output
    for name, top in results:
        rows = ((p.rank, p.index, p.probability, f"{p.label}  {p.synset}".rstrip()) for p in top)
        show("", clean(name), table((">rank", ">class", f"<{column}", "label"), rows, fold=("label",)))
    if saved:
        show("", clean(saved))


def _record(prediction: Prediction) -> dict[str, Any]:
    """The probability is the shortest decimal that reads back as the same float32.

    JSON has no NaN and no infinity: such a probability is null. Its bits are always there.
    """
    value = float(str(prediction.probability))
    return {
        "rank": prediction.rank,
        "class": prediction.index,
        "probability": value if math.isfinite(value) else None,
        "bits": prediction.bits,
        "label": prediction.label,
        "synset": prediction.synset,
    }
