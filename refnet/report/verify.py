"""What `refnet verify` and `refnet diff` print."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from statistics import median

from refnet.core.words import counted
from refnet.report.table import Table
from refnet.report.terminal import clean, show, table
from refnet.report.words import one_line
from refnet.verification.diff import DIFFERENT, Diff
from refnet.verification.difference import apart
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
from refnet.verification.names import listed
from refnet.verification.record import number
from refnet.verification.verify import Output, Verification

DROPPED = ("values", "equal")
"""Counts of verdicts that a narrow terminal goes without, after all other figures: never a defect."""

LISTED = 20
"""How many defects and values without a verdict are listed; --all lists every value."""


def show_verification(
    found: Verification, everything: bool = False, verbose: bool = False, options: Sequence[str] = ()
) -> None:
    """Print what was found: the reference, the kinds of ops, what is wrong, the outputs, the summary line.

    everything: a row for every value, not only for those that are wrong or without a verdict. verbose: all
    that is known of the reference. options: those that `refnet explain` needs to read the same capture.
    """
    for text in _reference(found, verbose):
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
        show("", *(clean(text) for text in described(first, options)))
    elif found.first_difference is not None:
        verdict = next(one.verdict for one in found.nodes if one.name == found.first_difference)
        show("", clean(f"first difference: {found.first_difference} ({verdict})"))
    for one in found.outputs:
        show(clean(_output(one)))
    last = [] if found.suggestion is None else [found.suggestion]
    for text in (*found.notes, *_surplus(found), *last):
        show(clean(text))
    show("", clean(f"{found.line} ({found.seconds:.1f} s)"))


def show_shipped(found: Sequence[Verification], full: bool, verbose: bool = False) -> None:
    """Print the result for the captures that ship with refnet: a row each, then the total."""
    for one in found:
        for text in _reference(one, verbose):
            show(clean(text))
    rows = []
    for one in found:
        counts = [one.counts[v] or "" for v in (EQUAL, REPLAYED, ROUNDING, DEFECT, UNJUDGED)]
        rows.append((one.graph, one.judged + one.counts[UNJUDGED], *counts, f"{one.seconds:.1f} s"))
    columns = ("network", ">values", ">equal", ">replayed", ">rounding", ">defect", ">unjudged", ">time")
    show("", table(columns, rows, drop=("time", *DROPPED), fold=("network",)), "")
    values_ = sum(one.judged + one.counts[UNJUDGED] for one in found)
    same = sum(one.counts[EQUAL] + one.counts[REPLAYED] for one in found)
    if same == values_:
        said = f"all {counted(values_, 'captured value is', 'captured values are')} equal or replayed"
        show(f"{said}: refnet computes the frameworks' exact bits")
    else:
        show(f"{same} of {counted(values_, 'captured value')} equal or replayed")
        for one in found:
            if one.first_difference is not None:
                show(clean(f"first difference in {one.graph}: {one.first_difference}"))
    if not full:
        show("refnet verify --full also judges the two 224 x 224 networks")


def _reference(found: Verification, verbose: bool) -> list[str]:
    """One line: who computed the values. verbose: below it every detail, such as the build's flags."""
    said = found.reference or {}
    if not said:
        return [f"{found.graph}, {one_line(said)}"]
    details = [f"  {key}: {_stated(value)}" for key, value in said.items() if value not in (None, "", {})]
    return [f"{found.graph} by {one_line(said)}", *(details if verbose else ())]


def _stated(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {one}" for key, one in value.items())
    return str(value)


def kinds(nodes: Sequence[Judgement]) -> Table:
    """A row per kind of op: verdicts, elements that differ from plain, shares of the bound used."""
    rows = []
    for kind in dict.fromkeys(one.kind for one in nodes):
        some = [one for one in nodes if one.kind == kind and one.verdict != MISSING]
        if not some:
            continue
        counts = [sum(one.verdict == v for one in some) or "" for v in (EQUAL, REPLAYED, ROUNDING)]
        counts += [sum(one.verdict == v for one in some) or "" for v in (DEFECT, UNJUDGED)]
        shares = [one.share for one in some if one.share is not None and one.differ]
        used = ["", ""]
        if shares:
            used = [f"{max(s.largest for s in shares):.3g}", f"{median(s.median for s in shares):.3g}"]
        differ = sum(one.differ for one in some)
        part = differ / max(sum(one.elements for one in some), 1)
        rows.append((kind, len(some), *counts, f"{part:.1%}" if differ else "", *used))
    columns = ("op", ">values", ">equal", ">replayed", ">rounding", ">defect", ">unjudged")
    figures = ("elements that differ", "largest share", "median share")
    names = (*columns, *(f">{name}" for name in figures))
    return table(names, rows, drop=(figures[2], figures[0], figures[1], *DROPPED), fold=("op",))


def values(nodes: Sequence[Judgement]) -> Table:
    """A row per value."""
    rows = []
    for one in nodes:
        share = "" if one.share is None or not one.differ else f"{one.share.largest:.3g}"
        over = f"over {len(one.over)} nodes, {one.over[0]} to {one.over[-1]}; " if one.over else ""
        rows.append((one.name, one.kind, one.verdict, share, f"{over}{one.reason or ''}".removesuffix("; ")))
    columns = ("value", "op", "verdict", ">share", "why")
    return table(columns, rows, drop=("share", "op"), fold=("value", "why"))


def described(one: Judgement, options: Sequence[str] = ()) -> list[str]:
    """The first defect: where it is, its worst element, and the command that explains it."""
    lines = [f"first defect: {one.name} = {one.op}({', '.join(one.inputs)})"]
    if one.over:
        lines.append(f"  judged over {', '.join(one.over)}")
    if one.reason:
        lines.append(f"  {one.reason}")
    if one.worst is not None:
        lines += worst(one.worst)
        at = ",".join(map(str, one.worst.at))
        command = shlex.join(
            ["refnet", "explain", "MODEL", one.name, "--at", at, "--capture", "DIR", *options]
        )
        lines.append(f"  see its arithmetic: {command}")
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
    lines.append(f"    captured and plain: {apart(one.ulps)}" + ("" if one.ulps < 0 else " apart"))
    return lines


def _output(one: Output) -> str:
    if one.differ is None:
        return f"output {one.name} ({one.value}): not compared, as one side lacks it"
    if not one.differ:
        return f"output {one.name} ({one.value}): equal to refnet's own run from the input"
    return (
        f"output {one.name} ({one.value}): {counted(one.differ, 'element differs', 'elements differ')} from "
        f"refnet's own run from the input, by at most {one.largest:.3g}"
        + ("" if one.ulps is None else f" ({apart(one.ulps)})")
    )


def _surplus(found: Verification) -> list[str]:
    """Captured values that are no node's: the unmatched with their likely matches, the others counted."""
    lines = []
    if found.unmatched:
        count = counted(len(found.unmatched), "captured value matches", "captured values match")
        lines.append(f"not judged: {count} no value of the graph")
        lines += listed(found.unmatched)
        lines.append(
            "name them with --names MAP.json (--propose MAP.json writes the likely matches), or --allow NAME"
        )
    for names, what in ((found.beyond, "beyond the graph, as the capture says"), (found.allowed, "allowed")):
        if names:
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            count = counted(len(names), "captured value is", "captured values are")
            lines.append(f"{count} not in the graph ({what}): {shown}")
    return lines


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
            figures = (
                f"{one.differ} of {one.elements}",
                "" if one.ulps < 0 else str(one.ulps),
                f"{one.largest:.3g}",
            )
        rows.append((one.name, one.result, shape, *figures))
    if rows:
        columns = ("value", "result", "shape", ">elements", ">ulps", ">largest")
        show(table(columns, rows, drop=("largest", "ulps", "shape"), fold=("value", "shape")), "")
    for order, read in readings(found).items():
        shown = ", ".join(read[:8]) + (", ..." if len(read) > 8 else "")
        show(clean(f"{len(read)} of {b} read {order}, in which they are equal: {shown}"))
    for folder, names in ((a, found.only_a), (b, found.only_b)):
        if names:
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            show(clean(f"{len(names)} only in {folder}: {shown}"))
    count = len(found.different)
    show(f"{counted(len(found.pairs), 'value')} in both, {count or 'none'} different")
