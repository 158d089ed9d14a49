"""What `refnet bench --table` prints and writes: rows, geometric means, CSV, changes since an earlier run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from refnet.bench.machine import Machine
from refnet.bench.table import Change, Comparison, Key, Mean, Result, means, roof
from refnet.report.bench import record, show_pairs
from refnet.report.table import Table
from refnet.report.terminal import show, table

COLUMNS = (
    *("network", "threads", "batch", "arithmetic", "against", "version", "pairs"),
    *("refnet_ms_per_image", "other_ms_per_image"),
    *("ratio_of_medians", "median_of_ratios", "lowest_ratio", "highest_ratio"),
    *("gflop_per_image", "refnet_gflop_per_s", "peak_gflop_per_s"),
    *("mb_once", "flop_per_byte", "memory_gb_per_s", "roof_gflop_per_s"),
    *("refnet_mib", "other_mib", "same_classes", "load_average", "date", "processor"),
)
"""Of the CSV; docs/performance.md says what each is. M and G are 10^6 and 10^9, MiB 2^20 bytes."""


def csv_text(rows: Iterable[Result], here: Machine, arithmetic: str = "plain") -> str:
    """The rows as CSV (RFC 4180, lines end with a line feed). here: with the bandwidths. arithmetic:
    refnet's; of replay:BOOKS the first word is written, as the folder is of this machine.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(_cells(row, here, arithmetic.partition(":")[0]))
    return text.getvalue()


def _cells(row: Result, here: Machine, arithmetic: str) -> list[object]:
    pair, key = row.pair, row.key
    peak, bandwidth = here.peaks[pair.threads], here.bandwidths[pair.threads]
    return [
        *(key.network, key.threads, key.batch, arithmetic),
        *(key.against, pair.theirs.version, len(pair.ratios)),
        *(f"{1000 * side.per_image:.3f}" for side in (pair.ours, pair.theirs)),
        *(f"{one:.4f}" for one in (pair.ratio, pair.paired, min(pair.ratios), max(pair.ratios))),
        *(f"{2e-9 * pair.macs:.4f}", f"{pair.gflops:.2f}", f"{peak:.2f}"),
        *(f"{1e-6 * row.moved:.3f}", f"{row.intensity:.3f}", f"{bandwidth:.2f}"),
        f"{roof(peak, bandwidth, row.intensity):.2f}",
        *("" if side.memory is None else f"{side.memory / 2**20:.0f}" for side in (pair.ours, pair.theirs)),
        *("yes" if pair.agree else "no", "" if row.load is None else f"{row.load:.2f}", row.date),
        here.processor,
    ]


def read_rows(text: str) -> list[dict[str, str]]:
    """The rows of such a CSV, each column's text by its name.

    >>> read_rows("network,threads\\nnet,2\\n")
    [{'network': 'net', 'threads': '2'}]
    """
    return list(csv.DictReader(io.StringIO(text)))


def show_table(rows: Sequence[Result], here: Machine) -> None:
    """The races, the means, and what the machine's memory delivers."""
    show_pairs([row.pair for row in rows], here)
    show("", means_table(means(rows)))
    speeds = ", ".join(
        f"{speed:.1f} GB/s on {t} thread{'s' * (t > 1)}" for t, speed in here.bandwidths.items()
    )
    show(f"\nmeasured speed of reading memory in order: {speeds}")
    loads = [row.load for row in rows if row.load is not None]
    if loads:
        own = max(row.key.threads for row in rows)
        show(
            f"load average before a row: {min(loads):.2f} to {max(loads):.2f}, of which the table's own runs "
            f"account for up to {own}"
        )


def means_table(found: Iterable[Mean]) -> Table:
    """Geometric means of the column `paired`, with the lowest and the highest row of each."""
    columns = ["against", "threads", "batch", ">rows", ">geometric mean of paired"]
    columns += [">lowest", "of", ">highest", "of "]
    return table(columns, (_mean(mean) for mean in found), drop=("of ", "of"), fold=("against",))


def _mean(mean: Mean) -> list[str]:
    own = (mean.against or "all", *("all" if n is None else str(n) for n in (mean.threads, mean.batch)))
    ends = [(f"{row.pair.paired:.3f}", row.key.network) for row in (mean.best, mean.worst)]
    return [*own, str(mean.rows), f"{mean.ratio:.3f}", *ends[0], *ends[1]]


def show_missing(
    without: Mapping[tuple[str, str], Sequence[str]], failed: Mapping[Key, str], left: Sequence[Key]
) -> None:
    """The rows that the table has not got: networks that a framework has not, and rows that failed or that
    were not reached.
    """
    if without or failed or left:
        show("")
    for (against, why), names in without.items():
        show(f"no row against {against} of {_some(names)}: {why}")
    for key, why in failed.items():
        show(f"failed: {key}: {why}")
    if left:
        show(f"{len(left)} rows were not reached: {_some([*map(str, left)], '; ')}")


def _some(names: Sequence[str], comma: str = ", ") -> str:
    """The first three, and how many more there are."""
    return comma.join(names[:3]) + (f"{comma}and {len(names) - 3} more" if len(names) > 3 else "")


def show_comparison(found: Comparison, name: str) -> None:
    """What became slower and what faster than in the baseline, and what could not be compared."""
    changed = [*found.slower, *found.faster]
    rows = (
        [change.verdict, *_place(change.key), *_span(change.then.ratios), *_span(change.now.ratios)]
        for change in changed
    )
    columns = ["", "network", "threads", "batch", "against"]
    columns += [">then, lowest", ">then, highest", ">now, lowest", ">now, highest"]
    show("")
    if changed:
        show(table(columns, rows, fold=("network",)), "")
    show(
        f"{len(found.changes)} rows compared with {name}: {len(found.slower)} slower, {len(found.faster)} "
        f"faster. If nothing had changed, {found.expected:.2g} would be called slower on average."
    )
    for keys, where in ((found.only_then, "only in the baseline"), (found.only_now, "not in the baseline")):
        if keys:
            show(f"{len(keys)} rows are {where}: {_some([*map(str, keys)], '; ')}")


def _place(key: Key) -> tuple[str, str, str, str]:
    return key.network, str(key.threads), str(key.batch), key.against


def _span(ratios: Sequence[float]) -> tuple[str, str]:
    return f"{min(ratios):.3f}", f"{max(ratios):.3f}"


def table_record(
    rows: Sequence[Result],
    here: Machine,
    facts: Mapping[str, Any],
    comparison: Comparison | None,
    without: Mapping[tuple[str, str], Sequence[str]],
    failed: Mapping[Key, str],
    left: Sequence[Key],
) -> dict[str, Any]:
    """Everything as JSON can say it; `pairs` as `refnet bench --json` has them. without, failed, left: as for
    `show_missing`.
    """
    return {
        **record(here, [row.pair for row in rows]),
        "facts": dict(facts),
        "rows": [
            {
                **row.key._asdict(),
                "ratio": row.pair.ratio,
                "paired_ratio": row.pair.paired,
                "intensity": row.intensity,
                "roof_gflops": roof(
                    here.peaks[row.pair.threads], here.bandwidths[row.pair.threads], row.intensity
                ),
                "moved": row.moved,
                "load": row.load,
                "date": row.date,
            }
            for row in rows
        ],
        "means": [
            {**mean._asdict(), "best": mean.best.key.network, "worst": mean.worst.key.network}
            for mean in means(rows)
        ],
        "comparison": None if comparison is None else _comparison(comparison),
        "without": [
            {"against": against, "why": why, "networks": list(names)}
            for (against, why), names in without.items()
        ],
        "failed": [{**key._asdict(), "why": why} for key, why in failed.items()],
        "not_reached": [key._asdict() for key in left],
    }


def _comparison(found: Comparison) -> dict[str, Any]:
    def one(change: Change) -> dict[str, Any]:
        return {
            **change.key._asdict(),
            "then": list(change.then.ratios),
            "now": list(change.now.ratios),
            "verdict": change.verdict,
        }

    return {
        "changes": [one(change) for change in found.changes],
        "expected_slower_by_chance": found.expected,
        "only_then": [key._asdict() for key in found.only_then],
        "only_now": [key._asdict() for key in found.only_now],
    }
