"""The catalog as a table, one network in all its details, and both as records for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from refnet.report.terminal import table

if TYPE_CHECKING:
    from rich.table import Table

    from refnet.zoo.catalog import Entry

COLUMNS = (
    *("name", "task", "framework", "input", "output", ">GFLOPs", ">MParams", ">top-1", ">top-5"),
    *("licence", "file", "checksum"),
)


def classes(entry: Entry) -> int:
    """How many classes the network tells apart."""
    return {"imagenet": 1000, "digits": 10}[entry.dataset]


def record(entry: Entry) -> dict[str, Any]:
    """Everything the catalog says of a network, for JSON."""
    return {**asdict(entry), "output": {"name": "prob", "shape": [1, classes(entry)]}}


def listed(entries: Mapping[str, Entry]) -> Table:
    """All networks, one row each; checksums are shortened to 12 digits."""
    return table(COLUMNS, (_row(entry) for entry in entries.values()))


def detailed(entry: Entry, here: str | None) -> Table:
    """One network: every field of its entry. here: where its official file lies on this machine."""
    rows: list[tuple[str, object]] = [
        ("name", entry.name),
        ("task", entry.task),
        ("framework", entry.framework),
        ("dataset", entry.dataset),
        ("input", f"data {_shape((1, *entry.input_shape))} {entry.colour}"),
        ("mean", entry.mean),
        ("scale", entry.scale),
        ("pipeline", entry.pipeline),
        ("output", f"prob {_shape((1, classes(entry)))}"),
        ("GFLOPs (card)", _figure(entry.gflops)),
        ("MParams (card)", _figure(entry.mparams)),
        ("top-1 (card)", _figure(entry.top1, " %")),
        ("top-5 (card)", _figure(entry.top5, " %")),
        ("built by", f"{entry.builder}({_options(entry.options)})"),
        ("licence", entry.licence),
        ("source", entry.source),
    ]
    for file in entry.files:
        rows += [("file", file.name), ("  url", file.url)]
        rows += [
            (f"  {name}", value)
            for name, value in (("bytes", file.bytes), ("sha256", file.sha256), ("sha384", file.sha384))
            if value is not None
        ]
    if entry.shipped is not None:
        rows.append(("shipped as", entry.shipped))
    rows.append(("on this machine", here or f"no: refnet fetch {entry.name}"))
    return table(("", ""), rows)


def _row(entry: Entry) -> tuple[str, ...]:
    file = entry.files[0] if entry.files else None
    return (
        entry.name,
        entry.task,
        entry.framework,
        f"data {_shape((1, *entry.input_shape))}",
        f"prob {_shape((1, classes(entry)))}",
        *(_figure(n) for n in (entry.gflops, entry.mparams, entry.top1, entry.top5)),
        entry.licence,
        file.name if file else entry.shipped or "",
        (f"sha256 {file.sha256[:12]}" if file.sha256 else "unknown") if file else "",
    )


def _shape(shape: tuple[int, ...]) -> str:
    return ",".join(map(str, shape))


def _figure(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:g}{unit}"


def _options(options: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
