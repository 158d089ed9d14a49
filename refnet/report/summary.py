"""What a network costs, node by node and in total, next to its card's figures."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from refnet.report.terminal import clean, show, table

if TYPE_CHECKING:
    from refnet.models.catalog import Entry
    from refnet.models.cost import Summary


def record(cost: Summary, entry: Entry | None, *, nodes: bool = True, totals: bool = True) -> dict[str, Any]:
    """For JSON: network, nodes, totals (plain numbers), and what the card and the table print."""
    row = entry.table if entry else None
    whole = asdict(cost)
    rows = whole.pop("rows")
    found: dict[str, Any] = {"network": whole.pop("network")}
    if nodes:
        found["nodes"] = rows
    if totals:
        found["totals"] = whole
        found["card"] = {"gflops": entry and entry.gflops, "mparams": entry and entry.mparams}
        found["table"] = {"parameters": row and row.parameters, "macs": row and row.macs}
    return found


def show_all(cost: Summary, entry: Entry | None, *, nodes: bool = True, totals: bool = True) -> None:
    """Print the nodes' table and the totals."""
    from rich.text import Text

    if nodes:
        columns = ("name", "op", "output", ">parameters", ">multiply-adds", ">bytes")
        rows = (
            (
                r.name,
                r.op,
                ",".join(map(str, r.shape)),
                *(_number(n) for n in (r.parameters, r.macs, r.bytes)),
            )
            for r in cost.rows
        )
        show(table(columns, rows, drop=("bytes", "output", "op")))
    if nodes and totals:
        show("")
    if totals:
        show(
            clean(cost.network),
            table(("", ">counted", ">", ">published" if entry else ">"), _totals(cost, entry), fold=("",)),
            "",
        )
        if entry and entry.gflops:
            show(Text(f"The card's rule: {clean(cost.card_rule)}."))
        if cost.opaque:
            names = ", ".join(cost.opaque[:8]) + (
                f" and {len(cost.opaque) - 8} more" if cost.opaque[8:] else ""
            )
            show(Text(f"Without the operations of what refnet cannot compute: {clean(names)}."))
        if entry and entry.table and entry.table.macs:
            show(
                Text(f"The authors' table: learned parameters as trained; of its #FLOPs, {cost.table_rule}.")
            )


def _totals(cost: Summary, entry: Entry | None) -> list[tuple[str, str, str, str]]:
    gflops = f"{entry.gflops:g} G" if entry and entry.gflops else ""
    row = entry.table if entry else None
    mparams = f"{entry.mparams:g} M" if entry and entry.mparams else ""
    counts = [
        ("nodes", len(cost.rows), "", ""),
        ("learned parameters", cost.parameters, "M", (row and row.parameters) or ""),
        ("  with batch norms folded", cost.folded, "M", ""),
        ("  by the card's rule", cost.card_parameters, "M", mparams),
        ("running statistics", cost.statistics, "M", ""),
        ("multiply-adds of convolution and dense", cost.macs, "G", ""),
        ("  by the table's rule", cost.table_macs, "G", (row and row.macs) or ""),
        ("operations, all", cost.flops, "G", ""),
        ("  by the card's rule", cost.card_flops, "G", gflops),
        ("bytes of weights and values", cost.bytes, "M", ""),
    ]
    ruled = {"  by the card's rule": entry and entry.gflops, "  by the table's rule": row and row.macs}
    shown = [one for one in counts if ruled.get(one[0], True)]
    return [(name, _number(count), _scaled(count, unit), card) for name, count, unit, card in shown]


def _number(value: int) -> str:
    return f"{value:,}".replace(",", " ")


def _scaled(value: int, unit: str) -> str:
    return f"{value / {'M': 1e6, 'G': 1e9}[unit]:.4f} {unit}" if unit else ""
