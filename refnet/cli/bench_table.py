"""refnet bench --table: the rows of the model table, kept, compared, written as CSV and SVG."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from refnet.cli.common import DIFFERENT, counting, interpreters, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from refnet.bench.machine import Machine
    from refnet.bench.table import Result
    from refnet.frameworks.launch import Prepared


def bench_table(a: argparse.Namespace) -> int | None:
    """Race the rows that the arguments choose, print and write them; the exit code, None for 0."""
    from refnet.arithmetic.named import of_network
    from refnet.bench.machine import machine
    from refnet.bench.results import (
        State,
        existing,
        facts,
        merged,
        read_state,
        refuse_other,
        refuse_other_frameworks,
        write_state,
    )
    from refnet.bench.table import compared, count_pairs, measure, networks, planned
    from refnet.frameworks.launch import framework_version, prepare, python
    from refnet.loops.jit import cache_key
    from refnet.report.bench import show_machine
    from refnet.report.bench_table import show_comparison, show_table, table_record

    against = a.against or ["mxnet", "torch", "onnxruntime", "openvino"]
    keys = planned(networks(a.table), a.threads, a.batch, against)
    for name in dict.fromkeys(key.network for key in keys):
        of_network(a.arithmetic, name)
    before = None if a.state is None else existing(a.state)
    baseline = None if a.baseline is None else read_state(a.baseline)
    running = list(dict.fromkeys(key.against for key in keys))
    given = interpreters(a.python, running)
    pythons = {name: python(name, given.get(name)) for name in running}
    here = machine(a.threads, memory=True)
    now = facts(here, cache_key(), a.arithmetic, a.image, a.runs)
    versions = {name: framework_version(name, path) for name, path in pythons.items()}
    for path, state in ((a.state, before), (a.baseline, baseline)):
        if state is not None:
            refuse_other(path, state.facts, now, baseline=state is baseline)
            refuse_other_frameworks(path, state.rows, versions)
    done = {} if before is None else dict(before.rows)
    if before is not None:
        peaks, speeds = merged(before.peaks, here.peaks), merged(before.bandwidths, here.bandwidths)
        here = replace(here, peaks=peaks, bandwidths=speeds)
    if not a.json:
        show_machine(here)

    def keep(row: Result) -> None:
        done[row.key] = row
        if a.state is not None:
            write_state(a.state, State(now, here.peaks, here.bandwidths, done))

    def make(network: str, folder: Path, frameworks: Sequence[str]) -> Prepared:
        return prepare(
            network,
            folder,
            against=frameworks,
            weights="seed:0",
            image=a.image,
            pythons=pythons,
            arithmetic=a.arithmetic,
        )

    left = [key for key in keys if key not in done]
    with counting("pairs of runs", count_pairs(left, a.runs)) as advance:
        rows = measure(keys, done, a.runs, make, keep, advance)
    found = list(rows.values())
    comparison = None if baseline is None else compared(baseline.rows, rows)
    _write_table(a, found, here)
    if a.json:
        print_json(table_record(found, here, now, comparison))
    else:
        show_table(found, here)
        if comparison is not None:
            show_comparison(comparison, str(a.baseline))
    return DIFFERENT if comparison is not None and comparison.slower else None


def _write_table(a: argparse.Namespace, rows: Sequence[Result], here: Machine) -> None:
    """--csv and --svg."""
    from refnet.formats.write import whole_file
    from refnet.report.bench_svg import draw
    from refnet.report.bench_table import csv_text, read_rows

    text = csv_text(rows, here)
    for path, content in ((a.csv, text), (a.svg, None if a.svg is None else draw(read_rows(text)))):
        if path is not None and content is not None:
            with whole_file(path) as stream:
                stream.write(content.encode())
