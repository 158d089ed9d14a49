"""Every row of the model table, each raced as race.py does it; what is done is kept, and a rerun goes on.

planned ── measure ── race ── Result ── keep (results.py writes the state file)
                        │       └── means, and against an earlier run: compared
                        └── fail: a row that cannot be raced; the others go on
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb, exp, log
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from refnet.bench.race import Advance, Pair, counts, race
from refnet.core.errors import InputError, RefnetError
from refnet.core.words import did_you_mean
from refnet.frameworks.launch import FRAMEWORKS, SLOW_ONES, Prepared, unfit
from refnet.models.catalog import Entry, entries, filtered
from refnet.models.cost import bytes_once

Make = Callable[[str, Path, Sequence[str]], Prepared]
"""(network, an empty folder, frameworks) -> what is needed to race them, as `prepare` gives it."""


class Key(NamedTuple):
    """Which row of a table: one network and framework, on so many threads, with batches of that size."""

    network: str
    threads: int
    batch: int
    against: str

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return f"{self.network}, {threads}, batch {self.batch}, {self.against}"


@dataclass(frozen=True)
class Result:
    """A row's race. load: the machine's load average before it. date: of its end.

    moved: bytes of the weights, and of a batch's inputs and values, each counted once (`cost.bytes_once`).
    """

    pair: Pair
    moved: int
    load: float | None
    date: str

    @property
    def key(self) -> Key:
        """Its row."""
        return Key(self.pair.model, self.pair.threads, self.pair.ours.batch, self.pair.theirs.name)

    @property
    def intensity(self) -> float:
        """Float operations of convolution and dense per byte of `moved`."""
        return 2 * self.pair.macs * self.pair.ours.batch / self.moved


def roof(peak: float, bandwidth: float, intensity: float) -> float:
    """GFLOP/s that the roofline allows: the FMA units' peak, or what memory delivers the operands for.

    peak: GFLOP/s. bandwidth: GB/s. intensity: operations per byte. Source: Williams, Waterman and Patterson,
    Roofline, Communications of the ACM 52 (4), 2009. Values that stay in a cache never cross the memory's
    bus, so a network may lie above the sloped part.

    >>> roof(100.0, 20.0, 2.5), roof(100.0, 20.0, 40.0)
    (50.0, 100.0)
    """
    return min(peak, bandwidth * intensity)


def networks(text: str) -> dict[str, Entry]:
    """The networks of ImageNet in the catalog; text: only those that have one of its comma-separated parts
    in their name, framework or file. Raises InputError for a part that none has.

    >>> list(networks("mobilenet-v1,resnest-269"))
    ['resnest-269-pytorch', 'octave-mobilenet-v1-0.75-0.375', 'octave-mobilenet-v1-1.0-0.5']
    """
    whole = {name: entry for name, entry in entries().items() if entry.dataset == "imagenet"}
    parts = [part.strip() for part in text.split(",") if part.strip()]
    chosen: set[str] = set()
    for part in parts:
        found = {part} if part in whole else filtered(part).keys() & whole.keys()
        if not found:
            hint = did_you_mean(part, whole, "; `refnet models` lists them all")
            raise InputError(f"--table {part}: no network of ImageNet has that in its name{hint}")
        chosen |= found
    return {name: entry for name, entry in whole.items() if not parts or name in chosen}


def planned(
    chosen: Mapping[str, Entry], threads: Sequence[int], batches: Sequence[int], against: Sequence[str]
) -> list[Key]:
    """The rows, network by network. None is against a framework that lacks the network: see `lacking`.

    Raises InputError for a framework that is unknown, and for a network that none of them has.

    >>> planned({"resnest-50-pytorch": entries()["resnest-50-pytorch"]}, [1], [1], ["mxnet", "onnxruntime"])
    [Key(network='resnest-50-pytorch', threads=1, batch=1, against='onnxruntime')]
    """
    for name in against:
        if name not in FRAMEWORKS:
            hint = did_you_mean(name, FRAMEWORKS)
            raise InputError(f"against must be among {', '.join(FRAMEWORKS)}, got {name!r}{hint}")
    keys = []
    for network, entry in chosen.items():
        having = [name for name in against if unfit(name, entry) is None]
        if not having:
            said = ", ".join(against) or "no framework"
            own = {"pytorch": "torch"}.get(entry.framework, entry.framework)
            raise InputError(f"--against {said}: none of them has {network}; add {own}, or choose other rows")
        keys += [Key(network, t, batch, name) for t in threads for batch in batches for name in having]
    return keys


def lacking(chosen: Mapping[str, Entry], against: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """The networks of which `planned` has no row against a framework: (framework, why) -> their names.

    >>> lacking({"resnest-50-pytorch": entries()["resnest-50-pytorch"]}, ["mxnet", "onnxruntime"])
    {('mxnet', 'it is not defined in MXNet'): ['resnest-50-pytorch']}
    """
    found: dict[tuple[str, str], list[str]] = {}
    for name in against:
        for network, entry in chosen.items():
            if (why := unfit(name, entry)) is not None:
                found.setdefault((name, why), []).append(network)
    return found


def measure(
    keys: Iterable[Key],
    runs: int,
    make: Make,
    keep: Callable[[Result], object],
    fail: Callable[[Key, RefnetError], object],
    advance: Advance = lambda done: None,
) -> None:
    """Race these rows, network by network.

    keep: called with each result, at once. fail: with each row that could not be raced, and why; the others
    go on. advance: as for `race`. If a network cannot be made for several frameworks at once, it is made for
    each of them alone, so that one does not take the others' rows.
    """
    rows = list(keys)
    waiting = [(network, [key for key in rows if key.network == network]) for network in _networks(rows)]
    while waiting:
        network, own = waiting.pop(0)
        frameworks = list(dict.fromkeys(key.against for key in own))
        with tempfile.TemporaryDirectory(prefix="refnet-bench-") as folder:
            try:
                ready = make(network, Path(folder), frameworks)
            except RefnetError as error:
                if len(frameworks) > 1:
                    waiting[:0] = [(network, [k for k in own if k.against == name]) for name in frameworks]
                    continue
                for key in own:
                    fail(key, error)
                continue
            for key in own:
                load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
                racers = (ready.racers[name] for name in ("refnet", key.against))
                ours, theirs = ((racer, key.batch) for racer in racers)
                try:
                    pair = race(ready, ours, theirs, key.threads, runs, advance)
                except RefnetError as error:
                    fail(key, error)
                    continue
                keep(Result(pair, bytes_once(ready.graph, key.batch), load, time.strftime("%Y-%m-%d")))


def _networks(rows: Iterable[Key]) -> list[str]:
    return list(dict.fromkeys(key.network for key in rows))


def count_pairs(keys: Iterable[Key], runs: int) -> int:
    """How often `measure` calls `advance` if no row fails."""
    return sum(sum(counts(key.against in SLOW_ONES, runs)) for key in keys)


# What a table says as a whole.


class Mean(NamedTuple):
    """The geometric mean of a column's ratios, of which each row has one: the median of its pairs' ratios.

    threads, batch, against: None for all of them together. best, worst: the lowest row and the highest.
    """

    against: str | None
    threads: int | None
    batch: int | None
    rows: int
    ratio: float
    best: Result
    worst: Result


def geometric_mean(ratios: Iterable[float]) -> float:
    """exp of the mean logarithm.

    >>> round(geometric_mean([0.5, 2.0, 0.25]), 6)
    0.629961
    """
    return exp(fmean(log(ratio) for ratio in ratios))


def means(results: Iterable[Result]) -> list[Mean]:
    """A mean for each column (framework, threads, batch), for each framework, and for all."""
    rows = list(results)
    columns = dict.fromkeys((row.key.against, row.key.threads, row.key.batch) for row in rows)
    frameworks = list(dict.fromkeys(against for against, _, _ in columns))
    wanted: list[tuple[str | None, int | None, int | None]] = [*columns]
    if len(columns) > len(frameworks):
        wanted += [(name, None, None) for name in frameworks]
    if len(frameworks) > 1:
        wanted.append((None, None, None))
    return [_mean(one, rows) for one in wanted]


def _mean(column: tuple[str | None, int | None, int | None], rows: Iterable[Result]) -> Mean:
    against, threads, batch = column
    own = [
        row
        for row in rows
        if against in (None, row.key.against)
        and threads in (None, row.key.threads)
        and batch in (None, row.key.batch)
    ]
    own.sort(key=lambda row: row.pair.paired)
    return Mean(*column, len(own), geometric_mean(row.pair.paired for row in own), own[0], own[-1])


# Against an earlier run.


class Change(NamedTuple):
    """A row that two runs of the table have. verdict: "slower", "faster", or "" where their spread explains
    the difference.
    """

    key: Key
    then: Pair
    now: Pair
    verdict: str

    @property
    def chance(self) -> float:
        """How probable "slower" is if nothing has changed: 1 / C(n + m, n)."""
        return 1 / comb(len(self.now.ratios) + len(self.then.ratios), len(self.now.ratios))


def change(key: Key, then: Pair, now: Pair) -> Change:
    """Whether a row became slower: every paired ratio of now lies above every one of then.

    The ratios of n and m pairs can be ordered in C(n + m, n) ways that tell now from then. If both are drawn
    alike, all are equally probable, and one of them is called slower: 1 of 3432 for 7 and 7 pairs. What
    differs between runs of the command but not within one (the processes' memory, the processor's clock)
    makes false alarms more frequent than that.

    >>> from refnet.bench.race import Side
    >>> def pair(*ours):
    ...     sides = Side("refnet", "1", 1, ours, None), Side("x", "1", 1, (1.0,) * len(ours), None)
    ...     return Pair("net", 1, 1, True, *sides)
    >>> key = Key("net", 1, 1, "x")
    >>> [change(key, pair(0.5, 0.6), now).verdict for now in (pair(0.7, 0.61), pair(0.6, 0.7))]
    ['slower', '']
    """
    if min(now.ratios) > max(then.ratios):
        return Change(key, then, now, "slower")
    return Change(key, then, now, "faster" if max(now.ratios) < min(then.ratios) else "")


@dataclass(frozen=True)
class Comparison:
    """Two runs of a table. only_then, only_now: rows that one of them lacks."""

    changes: tuple[Change, ...]
    only_then: tuple[Key, ...]
    only_now: tuple[Key, ...]

    @property
    def slower(self) -> list[Change]:
        """The regressions."""
        return [one for one in self.changes if one.verdict == "slower"]

    @property
    def faster(self) -> list[Change]:
        """The opposite."""
        return [one for one in self.changes if one.verdict == "faster"]

    @property
    def expected(self) -> float:
        """How many rows would be called slower, on average, if nothing had changed; see `change`."""
        return sum(one.chance for one in self.changes)


def compared(then: Mapping[Key, Result], now: Mapping[Key, Result]) -> Comparison:
    """Each row that both runs have."""
    both = [key for key in now if key in then]
    return Comparison(
        tuple(change(key, then[key].pair, now[key].pair) for key in both),
        tuple(key for key in then if key not in now),
        tuple(key for key in now if key not in then),
    )
