"""refnet bench --table: the rows of the model table, kept, compared, written as CSV and SVG."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from refnet.cli.common import DIFFERENT, FAILED, counting, interpreters, print_json
from refnet.report.terminal import clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from refnet.bench.machine import Machine
    from refnet.bench.results import Facts, State
    from refnet.bench.table import Key, Result
    from refnet.core.errors import RefnetError
    from refnet.frameworks.launch import Prepared
    from refnet.models.catalog import Entry


class _Plan(NamedTuple):
    """What the arguments mean. against: the frameworks; pythons: their interpreters; before, baseline: the
    files of --state and --baseline, as they were read.
    """

    chosen: Mapping[str, Entry]
    against: Sequence[str]
    keys: Sequence[Key]
    facts: Facts
    before: State | None
    baseline: State | None
    pythons: Mapping[str, str]


def bench_table(a: argparse.Namespace) -> int | None:
    """Race the rows that the arguments choose, print and write them; the exit code, None for 0."""
    from refnet.bench.machine import machine, with_speeds
    from refnet.bench.results import State, merged, write_state
    from refnet.bench.table import count_pairs, lacking, measure
    from refnet.frameworks.launch import prepare
    from refnet.report.bench import show_machine

    here = machine()
    plan = _checked(a, here)
    done = {} if plan.before is None else dict(plan.before.rows)
    left = [key for key in plan.keys if key not in done]
    if left:
        here = with_speeds(here, a.threads, memory=True)
    if plan.before is not None:
        peaks = merged(plan.before.peaks, here.peaks)
        here = replace(here, peaks=peaks, bandwidths=merged(plan.before.bandwidths, here.bandwidths))
    if not a.json:
        show_machine(here)
    failed: dict[Key, str] = {}

    def update_state() -> None:
        if a.state is not None:
            write_state(a.state, State(plan.facts, here.peaks, here.bandwidths, done))

    def keep(row: Result) -> None:
        done[row.key] = row
        update_state()

    def fail(key: Key, error: RefnetError) -> None:
        failed[key] = str(error)
        print(clean(f"refnet: {key}: {error}"), file=sys.stderr)

    def make(network: str, folder: Path, frameworks: Sequence[str]) -> Prepared:
        return prepare(
            network,
            folder,
            against=frameworks,
            weights="seed:0",
            image=a.image,
            pythons=plan.pythons,
            arithmetic=a.arithmetic,
        )

    stopped: KeyboardInterrupt | None = None
    try:
        with counting("pairs of runs", count_pairs(left, a.runs)) as advance:
            measure(left, a.runs, make, keep, fail, advance)
    except KeyboardInterrupt as error:
        stopped = error
        if done:
            update_state()  # if the file was being written
    rows = {key: done[key] for key in plan.keys if key in done}
    not_reached = [key for key in plan.keys if key not in done and key not in failed]
    code = _tell(a, rows, here, plan, (lacking(plan.chosen, plan.against), failed, not_reached))
    if stopped is not None:
        goes_on = "; the same command goes on from there" if a.state is not None else ""
        print(f"refnet: {len(rows)} of {len(plan.keys)} rows are finished{goes_on}", file=sys.stderr)
        raise stopped
    return code


def _checked(a: argparse.Namespace, here: Machine) -> _Plan:
    """All that can be wrong with the arguments, before the machine's speeds are measured.

    Raises InputError, FormatError and FrameworkError.
    """
    from refnet.arithmetic.named import arithmetic, of_network
    from refnet.bench.results import existing, facts, read_state, refuse_other, refuse_other_frameworks
    from refnet.bench.table import networks, planned
    from refnet.frameworks.launch import framework_version, python
    from refnet.loops.jit import cache_key
    from refnet.models.loading import structure

    against = a.against or ["mxnet", "torch", "onnxruntime", "openvino"]
    chosen = networks(a.table)
    keys = planned(chosen, a.threads, a.batch, against)
    for text in dict.fromkeys(of_network(a.arithmetic, name) for name in chosen):
        arithmetic(text)
    if a.image is not None:
        for name in chosen:
            structure(name, image=a.image)
    now = facts(here, cache_key(), a.arithmetic, a.image, a.runs)
    before = None if a.state is None else existing(a.state)
    baseline = None if a.baseline is None else read_state(a.baseline)
    both = ((a.state, before), (a.baseline, baseline))
    known = [(path, state) for path, state in both if state is not None]
    for path, state in known:
        refuse_other(path, state.facts, now, baseline=state is baseline)
    running = list(dict.fromkeys(key.against for key in keys))
    given = interpreters(a.python, running)
    pythons = {name: python(name, given.get(name)) for name in running}
    versions = {name: framework_version(name, path) for name, path in pythons.items()}
    for path, state in known:
        refuse_other_frameworks(path, state.rows, versions)
    return _Plan(chosen, against, keys, now, before, baseline, pythons)


def _tell(
    a: argparse.Namespace,
    rows: Mapping[Key, Result],
    here: Machine,
    plan: _Plan,
    missing: tuple[Mapping[tuple[str, str], Sequence[str]], Mapping[Key, str], Sequence[Key]],
) -> int | None:
    """Print the finished rows and what is missing, and write them; the exit code."""
    from refnet.bench.table import compared
    from refnet.report.bench_table import show_comparison, show_missing, show_table, table_record

    found = list(rows.values())
    comparison = None if plan.baseline is None else compared(plan.baseline.rows, rows)
    try:
        if found:
            _write_table(a, found, here)
    finally:  # what took so long to measure is shown even if a file cannot be written
        if a.json:
            print_json(table_record(found, here, plan.facts, comparison, *missing))
        else:
            if found:
                show_table(found, here)
            show_missing(*missing)
            if comparison is not None:
                show_comparison(comparison, str(a.baseline))
    if comparison is not None and comparison.slower:
        return DIFFERENT
    return FAILED if missing[1] else None


def _write_table(a: argparse.Namespace, rows: Sequence[Result], here: Machine) -> None:
    """--csv and --svg."""
    from refnet.formats.write import whole_file
    from refnet.report.bench_svg import draw
    from refnet.report.bench_table import csv_text, read_rows

    text = csv_text(rows, here, a.arithmetic)
    for path, content in ((a.csv, text), (a.svg, None if a.svg is None else draw(read_rows(text)))):
        if path is not None and content is not None:
            with whole_file(path) as stream:
                stream.write(content.encode())
