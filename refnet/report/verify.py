"""What `refnet verify` and `refnet diff` print."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from refnet.report.terminal import clean, show, table
from refnet.verification.diff import DIFFERENT, Diff
from refnet.verification.judge import DEFECT, EQUAL, MISSING, REPLAYED, ROUNDING, UNJUDGED, Judgement, Worst
from refnet.verification.record import number
from refnet.verification.verify import Output, Verification

if TYPE_CHECKING:
    from rich.table import Table

LISTED = 20
"""How many defects and values without a verdict are listed; --all lists every value."""


def show_verification(found: Verification, everything: bool = False) -> None:
    """Print what was found: the reference, the kinds of ops, what is wrong, the outputs, the summary line.

    everything: a row for every value, not only for those that are wrong or without a verdict.
    """
    for text in _reference(found):
        show(clean(text))
    show(kinds(found.nodes))
    suspicious = [one for one in found.nodes if one.verdict in (DEFECT, UNJUDGED)]
    listed = found.nodes if everything else suspicious[:LISTED]
    if listed:
        show("", values(listed))
        if len(suspicious) > len(listed):
            show(f"and {len(suspicious) - len(listed)} more: --all lists every value")
    first = next((one for one in found.nodes if one.name == found.first_defect), None)
    if first is not None:
        show("", *(clean(text) for text in described(first)))
    elif found.first_difference is not None:
        verdict = next(one.verdict for one in found.nodes if one.name == found.first_difference)
        show("", clean(f"first difference: {found.first_difference} ({verdict})"))
    for one in found.outputs:
        show(clean(_output(one)))
    last = [] if found.suggestion is None else [found.suggestion]
    for text in (*found.notes, *_surplus(found), *last):
        show(clean(text))
    show("", clean(f"{found.line} ({found.seconds:.1f} s)"))


def show_shipped(found: Sequence[Verification], full: bool) -> None:
    """Print the result for the captures that ship with refnet: a row each, then the total."""
    for one in found:
        for text in _reference(one):
            show(clean(text))
    rows = []
    for one in found:
        counts = [one.counts[v] or "" for v in (EQUAL, REPLAYED, ROUNDING, DEFECT, UNJUDGED)]
        rows.append((one.graph, one.judged + one.counts[UNJUDGED], *counts, f"{one.seconds:.1f} s"))
    columns = ("network", ">values", ">equal", ">replayed", ">rounding", ">defect", ">unjudged", ">time")
    show("", table(columns, rows), "")
    values_ = sum(one.judged + one.counts[UNJUDGED] for one in found)
    same = sum(one.counts[EQUAL] + one.counts[REPLAYED] for one in found)
    if same == values_:
        said = f"all {values_} captured values are equal or replayed"
        show(f"{said}: refnet computes the frameworks' exact bits")
    else:
        show(f"{same} of {values_} captured values are equal or replayed")
        for one in found:
            if one.first_difference is not None:
                show(clean(f"first difference in {one.graph}: {one.first_difference}"))
    if not full:
        show("refnet verify --full also judges the two 224 x 224 networks")


def _reference(found: Verification) -> list[str]:
    """One line: who computed the values. The build's text, which can be long, is in the JSON record only."""
    said = found.reference
    if said is None:
        return [f"{found.graph}, values from a folder without a manifest: their origin is unknown"]
    parts = [f"{said.get('framework')} {said.get('version') or ''}".rstrip(), str(said.get("isa") or "")]
    if threads := said.get("threads"):
        parts.append(f"{threads} thread{'s' * (threads != 1)}")
    if batch := said.get("batch"):
        parts.append(f"batch {batch}")
    parts.append(str(said.get("mode") or ""))
    return [f"{found.graph} by {', '.join(part for part in parts if part)}"]


def kinds(nodes: Sequence[Judgement]) -> Table:
    """A row per kind of op: verdicts, elements that differ from plain, shares of the bound used."""
    rows = []
    for kind in dict.fromkeys(one.kind for one in nodes):
        some = [one for one in nodes if one.kind == kind and one.verdict != MISSING]
        if not some:
            continue
        counts = [sum(one.verdict == v for one in some) or "" for v in (EQUAL, REPLAYED, ROUNDING)]
        counts += [sum(one.verdict == v for one in some) or "" for v in (DEFECT, UNJUDGED)]
        shares = [one.share for one in some if one.share is not None]
        figures = ["", ""]
        if shares:
            figures = [f"{max(s.largest for s in shares):.3g}", f"{median(s.median for s in shares):.3g}"]
        differ = sum(one.differ for one in some)
        part = differ / max(sum(one.elements for one in some), 1)
        rows.append((kind, len(some), *counts, f"{part:.1%}" if differ else "", *figures))
    columns = ("op", ">values", ">equal", ">replayed", ">rounding", ">defect", ">unjudged")
    return table((*columns, ">elements that differ", ">largest share", ">median share"), rows)


def values(nodes: Sequence[Judgement]) -> Table:
    """A row per value."""
    rows = []
    for one in nodes:
        share = "" if one.share is None or one.verdict == MISSING else f"{one.share.largest:.3g}"
        over = f"over {len(one.over)} nodes, {one.over[0]} to {one.over[-1]}; " if one.over else ""
        rows.append((one.name, one.kind, one.verdict, share, f"{over}{one.reason or ''}".removesuffix("; ")))
    return table(("value", "op", "verdict", ">share", "why"), rows)


def described(one: Judgement) -> list[str]:
    """The first defect: where it is, and its worst element."""
    lines = [f"first defect: {one.name} = {one.op}({', '.join(one.inputs)})"]
    if one.over:
        lines.append(f"  judged over {', '.join(one.over)}")
    if one.reason:
        lines.append(f"  {one.reason}")
    if one.worst is not None:
        lines += worst(one.worst)
        at = ",".join(map(str, one.worst.at))
        lines.append(f"  see its arithmetic: refnet explain MODEL {one.name} --at {at} --capture DIR")
    return lines


def worst(one: Worst) -> list[str]:
    """Lines about an element: captured, plain, golden, bound."""
    lines = [f"  worst element {list(one.at)}:"]
    for name, value in (("captured", one.found), ("plain", one.plain), ("golden", one.golden)):
        if value is not None:
            said = number(value)
            lines.append(f"    {name:10}{said['hex']}  {said['value']}")
    if one.bound is not None:
        share = "no share" if one.share is None else f"error: {one.share:.3g} times the bound"
        lines.append(f"    bound     {one.bound[0]!r} +- {one.bound[1]:.3g}, {share}")
    apart = "one of captured and plain is NaN" if one.ulps < 0 else f"{one.ulps} ulps from plain"
    lines.append(f"    {apart}")
    return lines


def _output(one: Output) -> str:
    if one.differ is None:
        return f"output {one.name} ({one.value}): not compared, as one side lacks it"
    if not one.differ:
        return f"output {one.name} ({one.value}): equal to refnet's own run from the input"
    return (
        f"output {one.name} ({one.value}): {one.differ} elements differ from refnet's own run from the "
        f"input, by at most {one.largest:.3g} ({one.ulps} ulps)"
    )


def _surplus(found: Verification) -> list[str]:
    if not found.surplus:
        return []
    shown = ", ".join(found.surplus[:8]) + (", ..." if len(found.surplus) > 8 else "")
    return [f"{len(found.surplus)} captured values are not in the graph: {shown}"]


def readings(found: Diff) -> dict[str, list[str]]:
    """Order of axes -> the values of the second capture that are equal in it, and in another shape."""
    orders: dict[str, list[str]] = {}
    for one in found.pairs:
        if one.reading is not None:
            orders.setdefault(one.reading, []).append(one.name)
    return orders


def show_diff(found: Diff, a: str, b: str, everything: bool = False) -> None:
    """Print two captures side by side. everything: equal values too."""
    listed = found.pairs if everything else found.different
    rows = []
    for one in listed:
        x, y = (str(list(shape)) for shape in one.shapes)
        shape = x if x == y else f"{x} and {y}"
        figures = ("", "", "")
        if one.result == DIFFERENT and one.differ is not None and one.ulps is not None:
            figures = (f"{one.differ} of {one.elements}", str(one.ulps), f"{one.largest:.3g}")
        rows.append((one.name, one.result, shape, *figures))
    if rows:
        show(table(("value", "result", "shape", ">elements", ">ulps", ">largest"), rows), "")
    for order, moved in readings(found).items():
        shown = ", ".join(moved[:8]) + (", ..." if len(moved) > 8 else "")
        show(clean(f"{len(moved)} of {b} read {order}, in which they are equal: {shown}"))
    for folder, names in ((a, found.only_a), (b, found.only_b)):
        if names:
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            show(clean(f"{len(names)} only in {folder}: {shown}"))
    count = len(found.different)
    show(f"{len(found.pairs)} values in both, {count or 'none'} different")
