"""The catalog as a table, one network in all its details, and both as records for JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from refnet.report.terminal import show, table

if TYPE_CHECKING:
    from refnet.models.catalog import Entry

COLUMNS = (
    *("name", "task", "framework", "input", "output", ">GFLOPs", ">MParams", ">top-1", ">top-5"),
    *("licence", "file", "checksum"),
)


DROPPED = ("checksum", "file", "licence", "output", "task", "input")
"""The columns that a narrow terminal goes without, the first first."""


def classes(entry: Entry) -> int:
    """How many classes the network tells apart."""
    return {"imagenet": 1000, "digits": 10}[entry.dataset]


def record(entry: Entry) -> dict[str, Any]:
    """Everything the catalog says of a network, for JSON."""
    output = {"name": "prob", "shape": [1, classes(entry)]}
    return {**asdict(entry), "output": output, "shipped_sha256": shipped_sha256(entry)}


def shipped_sha256(entry: Entry) -> str | None:
    """The checksum of the weights that come with refnet, as they are on this machine; None if it has none."""
    if entry.shipped is None:
        return None
    from refnet.models.weights import shipped_folder

    path = shipped_folder() / entry.shipped
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def show_all(entries: Mapping[str, Entry]) -> None:
    """Print all networks, one row each; checksums are shortened to 12 digits."""
    show(table(COLUMNS, (_row(entry) for entry in entries.values()), drop=DROPPED))


def show_one(entry: Entry, here: str | None) -> None:
    """Print one network: every field of its entry. here: where its official file lies on this machine."""
    from refnet.models.preprocess import pipeline

    steps = pipeline(entry.pipeline)
    rows: list[tuple[str, object]] = [
        ("name", entry.name),
        ("task", entry.task),
        ("framework", entry.framework),
        ("dataset", entry.dataset),
        ("input", f"data {_shape((1, *entry.input_shape))} {entry.colour}"),
        ("mean", entry.mean),
        ("scale", entry.scale),
        ("pipeline", entry.pipeline),
        ("  steps", steps.description),
        ("  of", steps.source),
        ("output", f"prob {_shape((1, classes(entry)))}"),
        ("GFLOPs (card)", _figure(entry.gflops)),
        ("MParams (card)", _figure(entry.mparams)),
        ("top-1 (card)", _figure(entry.top1, " %")),
        ("top-5 (card)", _figure(entry.top5, " %")),
        *_table_rows(entry),
        ("built by", f"{entry.builder}({_options(entry.options)})"),
        ("licence", entry.licence),
        ("source", entry.source),
    ]
    for file in entry.files:
        rows.append(("file", file.name))
        facts = asdict(file) | {"inside": ", ".join(file.inside) or None}
        rows += [(f"  {key}", fact) for key, fact in facts.items() if key != "name" and fact is not None]
        rows.append(("  note", file.partly_checked))  # empty rows are left out
    if entry.shipped is not None:
        rows += [("shipped as", entry.shipped), ("  sha256", shipped_sha256(entry) or "missing")]
    if entry.files:
        rows.append(("on this machine", here or _not_here(entry)))
    show(table(("", ""), [row for row in rows if row[1] != ""], fold=("",)))


def _row(entry: Entry) -> tuple[str, ...]:
    file = entry.files[0] if entry.files else None
    return (
        entry.name,
        entry.task,
        entry.framework,
        f"data {_shape((1, *entry.input_shape))}",
        f"prob {_shape((1, classes(entry)))}",
        *(_figure(n) for n in (entry.gflops, entry.mparams, *(entry.accuracy or (None, None)))),
        entry.licence,
        file.name if file else entry.shipped or "",
        _checksum(file.sha256 or file.sha256_prefix if file else shipped_sha256(entry)),
    )


def _not_here(entry: Entry) -> str:
    fetchable = all(file.fetchable for file in entry.files)
    return f"not yet: refnet fetch {entry.name}" if fetchable else "not yet"


def _table_rows(entry: Entry) -> list[tuple[str, object]]:
    """The authors' own table, as printed there."""
    if entry.table is None:
        return []
    return [
        ("top-1 (table)", f"{entry.table.top1:.1f} %"),
        ("top-5 (table)", f"{entry.table.top5:.1f} %"),
        ("#Params (table)", entry.table.parameters or ""),
        ("#FLOPs (table)", f"{entry.table.macs} multiply-adds" if entry.table.macs else ""),
    ]


def _checksum(known: str | None) -> str:
    """A sha256's first 12 digits, or as many as are known."""
    return f"sha256 {known[:12]}" if known else ""


def _shape(shape: tuple[int, ...]) -> str:
    return ",".join(map(str, shape))


def _figure(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:g}{unit}"


def _options(options: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
