"""What `refnet evaluate` counted, for people and as a record for JSON."""

from __future__ import annotations

from typing import Any

from refnet.core.words import counted
from refnet.evaluation.evaluate import Evaluation
from refnet.report.terminal import clean, show, table

SHOWN = 20
"""Unreadable images that are named with their reason; all are in rows.csv and in JSON."""


def record(found: Evaluation, output: str | None) -> dict[str, Any]:
    """For JSON: counts, by what they were computed, and every image that could not be read."""
    return {
        **found.identity,
        "layout": found.layout,
        "mapping": found.mapping,
        "notes": list(found.notes),
        "listed": len(found.rows),
        "counted": found.counted,
        "top1": found.right(1),
        "top5": found.right(5),
        "published": found.published,
        "unread": [{"id": row.id, "error": row.error} for row in found.unread],
        "output": output,
    }


def show_evaluation(found: Evaluation, output: str | None) -> None:
    """Print the counts, where the labels come from, and last the images that could not be read."""
    said = found.identity
    show(clean(f"{said['model']}: pipeline {said['pipeline']}, {said['arithmetic']} arithmetic"))
    show(clean(f"images: {found.layout}"))
    numbers = f"numbers are those of {found.mapping}" if found.mapping else "classes by name"
    show(clean(f"labels: {numbers}"), *(clean(note) for note in found.notes), "")
    columns = ["", ">right", ">of", ">%", *([">published %"] if found.published else [])]
    rows = [_counts(found, best) for best in (1, 5)]
    show(table(columns, [row[: len(columns)] for row in rows]))
    if output is not None:
        show("", clean(f"a row per image is in {output}"))
    if found.unread:
        one = counted(len(found.unread), "image could not be read", "images could not be read")
        show("", f"{one}, neither right nor wrong:")
        for row in found.unread[:SHOWN]:
            show(clean(f"  {row.id}: {row.error}"))
        if len(found.unread) > SHOWN:
            show(f"  and {len(found.unread) - SHOWN} more")


def _counts(found: Evaluation, best: int) -> tuple[str, int, int, str, str]:
    right = found.right(best)
    percent = f"{100 * right / found.counted:.2f}" if found.counted else "-"
    published = f"{found.published[best == 5]:g}" if found.published else "-"
    return f"top-{best}", right, found.counted, percent, published
