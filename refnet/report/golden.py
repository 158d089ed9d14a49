"""What `refnet golden` and `refnet run --profile` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from refnet.core.words import counted
from refnet.formats.golden_file import Digest, File
from refnet.report.terminal import clean, show, table
from refnet.verification.golden import Difference

if TYPE_CHECKING:
    from refnet.exact.correct_rounding import RefineCount


def unstated(file: File) -> list[str]:
    """What the file does not state; it was not compared."""
    said = {"graph": file.graph, "weights": file.weights, "input": file.inputs}
    return [what for what, value in said.items() if not value]


def record(path: str, file: File, differences: Sequence[Difference]) -> dict[str, Any]:
    """For JSON: the result of a check."""
    each = [asdict(one) for one in differences]
    return {
        "file": path,
        "equal": not differences,
        "values": len(file.values),
        "not_compared": unstated(file),
        "first_value": next((one["name"] for one in each if one["what"] == "value"), None),
        "differences": each,
    }


def show_check(path: str, file: File, differences: Sequence[Difference]) -> None:
    """Print the result of a check: graph, weights and input first, then the first node that differs."""
    if skipped := unstated(file):
        show(clean(f"not in the file, so not compared: {', '.join(skipped)}"))
    if not differences:
        show(clean(f"{path}: equal, {counted(len(file.values), 'value')}"))
        return
    show(clean(f"{path}: different"))
    values = [one for one in differences if one.what == "value"]
    for one in [one for one in differences if one.what != "value"] + values[:1]:
        verb = "differ" if one.what == "weights" else "differs"
        head = f"the {one.what} {verb}: {one.name}" if one.what != "value" else f"first node: {one.name}"
        show(clean(head), clean(f"  in the file  {_text(one)}"), clean(f"  here         {_text(one, True)}"))
        change = file.accepted(one.name) if one.what == "value" else None
        if change is not None:
            show(clean(f"  the file's value was accepted on {change.date}: {change.reason}"))
    known = {*file.values, *(one.name for one in values)}
    show(f"{len(values)} of {counted(len(known), 'value')} differ")


def _text(one: Difference, here: bool = False) -> str:
    """One side of a difference, with the whole hash."""
    side = one.found if here else one.expected
    if side is None:
        return "-"
    return f"{side.dtype}{list(side.shape)} {side.sha256}" if isinstance(side, Digest) else side


def refined(refine_count: RefineCount) -> dict[str, dict[str, int]]:
    """For JSON: per op, the elements computed and those that float64 could not decide."""
    return {op: {"elements": n, "refined": undecided} for op, (n, undecided) in refine_count.by_op.items()}


def show_refined(by_op: Mapping[str, Mapping[str, int]]) -> None:
    """Print the share of elements per op that needed exact arithmetic, since float64 could not decide."""
    rows = [(op, one["elements"], one["refined"], _share(one)) for op, one in by_op.items()]
    total = {key: sum(one[key] for one in by_op.values()) for key in ("elements", "refined")}
    rows.append(("all", total["elements"], total["refined"], _share(total)))
    show("", "exact refinement: elements that float64 with its proven bound could not decide")
    show(table(("op", ">elements", ">refined", ">share"), rows))


def _share(one: Mapping[str, int]) -> str:
    return f"{one['refined'] / one['elements']:.2e}" if one["elements"] else "-"
