"""The table of docs/performance.md that sums up the outputs of `refnet bench` which the page shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

BEGIN = "<!-- from the outputs below, by python -m tests.figures -->\n"
END = "<!-- end of the outputs -->\n"
THREADS = ("1", "2")


class Race(NamedTuple):
    """A row that the page shows, under its command."""

    command: str
    cells: dict[str, str]

    @property
    def arithmetic(self) -> str:
        """plain, golden or replay."""
        found = re.search(r"--arithmetic (\w+)", self.command)
        return found[1] if found else "plain"


class Aim(NamedTuple):
    """The highest ratio that is aimed at on each number of threads, for which rows."""

    arithmetic: str
    network: str
    against: str
    most: tuple[float, ...]

    def wants(self, race: Race) -> bool:
        """Whether this row is meant. network, against: patterns of the whole."""
        return (
            race.arithmetic == self.arithmetic
            and re.fullmatch(self.network, race.cells["network"]) is not None
            and re.match(self.against, race.cells["against"]) is not None
        )


LARGE = "resnest-50-pytorch|octave-se-resnet-50-0.125"
AIMS = (
    Aim("plain", LARGE, "onnxruntime|openvino", (1.00, 1.00)),
    Aim("plain", "octave-.*", "mxnet", (0.70, 0.70)),
    Aim("golden", LARGE, "torch|mxnet", (1.20, 1.50)),
    Aim("golden", ".*", "onnx-reference", (1 / 50, 1 / 50)),
    Aim("replay", ".*", "torch|mxnet", (1.20, 1.20)),
    Aim("plain", "convnext_tiny|mobilenet_v3_large|vit_b_16|unet", "torch", (1.50, 1.50)),
)
"""One row on several numbers of threads has one of these aims at most."""


def races(page: str) -> Iterator[Race]:
    """All rows of races that the page shows; those of several images per run have a batch other than 1."""
    for block in re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        command, *lines = block.replace("\\\n    ", "").split("\n")
        rules = [i for i, line in enumerate(lines) if line.startswith("──")]
        if not rules or "refnet ms" not in lines[rules[0] - 1]:
            continue
        names = re.split(r" {2,}", lines[rules[0] - 1].strip())
        for line in lines[rules[0] + 1 :]:
            if line.strip():
                yield Race(command, dict(zip(names, re.split(r" {2,}", line.strip()), strict=True)))


def block(page: str) -> str:
    """A row per arithmetic, network and framework: what was reached on each number of threads."""
    found: dict[tuple[str, str, str], dict[str, Race]] = {}
    for race in races(page):
        if race.cells["batch"] == "1":
            key = race.arithmetic, race.cells["network"], race.cells["against"]
            found.setdefault(key, {}).setdefault(race.cells["threads"], race)
    lines = [
        "| arithmetic | network | against | 1 thread: paired (lowest to highest) | 2 threads | at most |",
        "|---|---|---|---|---|---|",
    ]
    for (arithmetic, network, against), rows in found.items():
        aims = [aim for aim in AIMS if any(map(aim.wants, rows.values()))]
        cells = [_cell(rows.get(threads), aims, i) for i, threads in enumerate(THREADS)]
        said = " and ".join(dict.fromkeys(_number(one) for aim in aims for one in aim.most)) or ""
        lines.append(f"| {arithmetic} | {network} | {against} | {' | '.join(cells)} | {said} |")
    others = _others(page)
    return "\n".join([*lines, *([""] if others else []), *others]) + "\n"


def _others(page: str) -> list[str]:
    """What else is aimed at, of the same outputs."""
    pattern = r"^(resnet-\d+-baseline|one \dx\d layer) +([\d. ]+) ([\d.]+)$"
    found = re.findall(pattern, page, re.MULTILINE)
    factors = {name: factor for name, _, factor in found}
    depths = [name for name in factors if name.startswith("resnet")]
    each = [float(one) for name, times, _ in found if name in depths for one in times.split()]
    starts = dict(re.findall(r"^(second process: \S.*?) {2,}([\d.]+)$", page, re.MULTILINE))
    if not each or not starts:
        return []
    layers = "; ".join(
        f"{name.removeprefix('one ')}: {value}" for name, value in factors.items() if name not in depths
    )
    loading, more = (float(starts[f"second process: {what}"]) for what in ("loading", "all but running"))
    every = [*races(page)]
    eight = [r.cells for r in every if r.cells["against"] == "refnet, batch 1"]
    batch = ", ".join(f"{float(one['paired']):.2f} ({one['network']})" for one in eight)
    shares: dict[str, float] = {}
    for name, one in ((r.cells["against"].split()[0], r.cells) for r in every if _whole(r)):
        shares[name] = max(shares.get(name, 0.0), int(one["refnet MiB"]) / int(one["other MiB"]))
    memory = ", ".join(_verdict(share, 1.0, f" ({name})") for name, share in sorted(shares.items()))
    named = ", ".join(name.split("-")[1] for name in depths)
    numbers = ", ".join(factors[name] for name in depths)
    whole = f" s ({more:.2f} s with the interpreter's start and end)"
    return [
        "| aim | at most | reached |",
        "|---|---|---|",
        f"| time per multiply-add, images of 64×64 to 448×448, {named} layers together | factor 1.5 | "
        f"{_verdict(max(each) / min(each), 1.5)} (each depth alone: {numbers}) |",
        f"| the same, one layer of 7×7 to 448×448 | factor 1.5 | {layers} |",
        f"| second process, loading | 0.7 s | {_verdict(loading, 0.7, whole)} |",
        f"| batch 8, per image, 2 threads, to batch 1 | 1.0 | {batch} |",
        f"| largest memory of plain's process, 1 thread | 1.0 of the framework's | {memory} |",
    ]


def _verdict(value: float, most: float, more: str = "") -> str:
    return f"{value:.2f}{more}{': not reached' if value > most else ''}"


def _whole(race: Race) -> bool:
    cells = race.cells
    return (
        race.arithmetic == "plain"
        and cells["threads"] == cells["batch"] == "1"
        and re.fullmatch(LARGE, cells["network"]) is not None
    )


def _number(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"1/{1 / value:.0f}"


def _cell(race: Race | None, aims: list[Aim], place: int) -> str:
    if race is None:
        return ""
    paired, lowest, highest = (float(race.cells[name]) for name in ("paired", "lowest", "highest"))
    said = f"{_number(paired)} ({_number(lowest)} to {_number(highest)})"
    if any(paired > aim.most[place] for aim in aims):
        return f"{said}: not reached"
    return said


def written(page: str) -> str:
    """The page with the table of what it shows."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + block(page) + END + after
