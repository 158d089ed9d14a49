"""What a network costs, node by node and in total, beside its card's figures."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from refnet.report.terminal import clean, show, table

if TYPE_CHECKING:
    from refnet.cost import Summary
    from refnet.zoo.catalog import Entry


def record(cost: Summary, entry: Entry | None, *, nodes: bool = True, totals: bool = True) -> dict[str, Any]:
    """For JSON: network, nodes, totals (plain numbers) and the card's figures (as printed there)."""
    whole = asdict(cost)
    rows = whole.pop("rows")
    found: dict[str, Any] = {"network": whole.pop("network")}
    if nodes:
        found["nodes"] = rows
    if totals:
        found["totals"] = whole
        found["card"] = {"gflops": entry and entry.gflops, "mparams": entry and entry.mparams}
    return found


def show_all(cost: Summary, entry: Entry | None, *, nodes: bool = True, totals: bool = True) -> None:
    """Print the nodes' table and the totals."""
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
        show(table(columns, rows))
    if nodes and totals:
        show("")
    if totals:
        show(clean(cost.network), table(("", ">refnet", ">card"), _totals(cost, entry)), "")
        show(f"card: {clean(cost.card_rule)}.")


def _totals(cost: Summary, entry: Entry | None) -> list[tuple[str, str, str]]:
    gflops = entry.gflops if entry else None
    mparams = entry.mparams if entry else None
    return [
        ("nodes", str(len(cost.rows)), ""),
        ("learned parameters", _millions(cost.parameters), ""),
        ("  with batch norms folded", _millions(cost.folded), ""),
        ("  by the card's rule", _millions(cost.card_parameters), f"{mparams:g} M" if mparams else ""),
        ("running statistics", _millions(cost.statistics), ""),
        ("multiply-adds of convolution and dense", _billions(cost.macs), ""),
        ("operations, all", _billions(cost.flops), ""),
        ("  by the card's rule", _billions(cost.card_flops), f"{gflops:g} G" if gflops else ""),
        ("bytes of weights and values", _number(cost.bytes), ""),
    ]


def _number(value: int) -> str:
    return f"{value:,}".replace(",", " ")


def _millions(value: int) -> str:
    return f"{value / 1e6:.4f} M"


def _billions(value: int) -> str:
    return f"{value / 1e9:.4f} G"
