"""Top classes of an image, as a table and as a record for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from refnet.predict import Prediction
from refnet.report.terminal import table

if TYPE_CHECKING:
    from rich.table import Table


def record(prediction: Prediction) -> dict[str, Any]:
    """For JSON. The probability is the shortest decimal that reads back as the same float32.

    A value that is no number (which JSON cannot write) is null; its bits are always there.
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


def shown(predictions: Sequence[Prediction], output: str) -> Table:
    """One image's table. output: the name of the graph's output, `prob` if they are probabilities."""
    column = "probability" if output == "prob" else output
    return table(
        (">rank", ">class", column, "label"),
        ((p.rank, p.index, p.probability, f"{p.label}  {p.synset}".rstrip()) for p in predictions),
    )
