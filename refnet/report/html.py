"""`refnet verify --html`: a verification as one self-contained page.

    record ── templates/page.html ─┬─ head.html: result, findings, counts, reference, shares per op
                                   └─ network.html: filter, map, a block per node
    html_text: filters, harmless ──┤   html_charts: SVG   html_pictures: PNG data URIs, within a budget

The page loads nothing from the internet: its content policy allows only its own style sheet, its own script
(both named by their sha256) and pictures as data URIs. Names come from files that others wrote, so whatever a
template prints is first made harmless and then escaped. The page works without JavaScript, which adds the
filter and folds the nodes without a finding.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any, NamedTuple, Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from refnet.core.op import F32
from refnet.formats.write import whole_file
from refnet.report import html_charts, html_text
from refnet.report.html_pictures import Picture, differences, values
from refnet.report.html_text import VERDICTS, harmless, largest, number_of, sha256_source
from refnet.report.words import one_line

BUDGET = 1_600_000
"""Most characters of pictures in a page. The gravest nodes come first; the others say that their pictures are
left out."""

LISTED = 500
"""Most names of surplus values that the page lists; the record (--json) has all of them."""

FILTERS = {
    each.__name__: each
    for each in (
        *(html_text.distance, html_text.figure, html_text.float32, html_text.hexadecimal, html_text.largest),
        *(html_text.number_of, one_line, html_text.place, html_text.shell_word, html_text.thousands),
    )
}

DRAWINGS = {
    each.__name__: each
    for each in (
        *(html_charts.histogram, html_charts.share_bar),
        *(html_charts.proportions, html_charts.number_line),
    )
}

Record = Mapping[str, Any]


class Judged(Protocol):
    """What the page needs of a node beyond the record."""

    @property
    def name(self) -> str:
        """The value's name."""
        ...

    @property
    def map(self) -> F32 | None:
        """(h, w): the largest share of the bound per pixel, 0 where bits are equal."""
        ...

    @property
    def picture(self) -> F32 | None:
        """(h, w): the mean of the framework's value over batch and channels."""
        ...


class Verified(Protocol):
    """A verification: `refnet.verification.verify.Verification` is one."""

    @property
    def nodes(self) -> Sequence[Judged]:
        """In the record's order."""
        ...

    def record(self) -> Mapping[str, Any]:
        """The JSON record, docs/verify.md."""
        ...


def write(
    path: str | os.PathLike[str],
    verification: Verified,
    *,
    model: str | None = None,
    capture: str = "CAPTURE",
    options: Sequence[str] = (),
) -> None:
    """Write the report, whole or not at all.

    model, capture: as the user named them, for the commands that the report tells to run (default: the
    graph's name, and a word to replace). options: what these need besides, such as --names. Raises
    InputError if the file cannot be written.
    """
    document = page(verification, model=model, capture=capture, options=options).encode(
        "utf-8", "backslashreplace"
    )
    with whole_file(path) as stream:
        stream.write(document)


def page(
    verification: Verified, *, model: str | None = None, capture: str = "CAPTURE", options: Sequence[str] = ()
) -> str:
    """The report as HTML text."""
    record = verification.record()
    nodes = record["nodes"]
    names = [str(node["name"]) for node in nodes]
    pictures, left_out = _pictures(verification.nodes, nodes)
    template = _templates().get_template("page.html")
    return template.render(
        record=record,
        nodes=nodes,
        links={name: i for i, name in enumerate(names)},
        groups=stages(names),
        counts={verdict: int(record["summary"][verdict]) for verdict in VERDICTS},
        result=result(record["summary"]),
        findings=findings(record),
        kinds=kinds(nodes),
        surplus=strays(record),
        pictures=pictures,
        left_out=left_out,
        model=str(record["graph"]["name"]) if model is None else model,
        capture=capture,
        options=tuple(options),
        style=_resource("html.css"),
        script=_resource("html.js"),
    )


@cache
def _templates() -> Environment:
    """Every value is made harmless (`finalize`) and escaped; a name that a template misspells is an error."""
    environment = Environment(
        loader=PackageLoader("refnet.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS | {"sha256": sha256_source}
    environment.globals |= {"VERDICTS": VERDICTS, "BUDGET": BUDGET, "LISTED": LISTED}
    environment.globals |= {"explain": html_text.explain, **DRAWINGS}
    return environment


def _resource(name: str) -> Markup:
    """The package's own style or script, which is no text of anybody's: it goes into the page as it is."""
    return Markup(files("refnet.report").joinpath(name).read_text(encoding="utf-8"))


class Result(NamedTuple):
    """The headline: the verdict whose sign it has, and a sentence."""

    verdict: str
    sentence: str


def result(summary: Record) -> Result:
    """What was found in all. Nothing judged is not called right."""
    defects, unjudged = int(summary["defect"]), int(summary["unjudged"])
    judged = sum(int(summary[verdict]) for verdict in VERDICTS if verdict not in ("missing", "unjudged"))
    if defects:
        return Result("defect", number_of(defects, "value is", "values are") + " proved not to be rounding")
    if not judged:
        return Result("unjudged", "Nothing could be judged")
    said = [f"No defect in {number_of(judged, 'judged value', 'judged values')}"]
    if unjudged:
        said.append(f"{html_text.thousands(unjudged)} could not be judged")
    if unmatched := int(summary.get("unmatched", 0)):
        match = number_of(unmatched, "captured value matches", "captured values match")
        said.append(f"{match} no value of the graph")
    return Result("equal" if len(said) == 1 else "unjudged", ", and ".join(said))


def strays(record: Record) -> list[str]:
    """The captured values that are in no place of the graph; first those that match nothing, with what each
    may be.

    >>> likely = {"name": "conv1", "why": "by its name"}
    >>> unmatched = [{"name": "b", "likely": None}, {"name": "1_conv1", "likely": likely}]
    >>> strays({"surplus": ["a", "b", "1_conv1"], "unmatched": unmatched, "allowed": ["a"]})
    ['b: matches nothing', '1_conv1: perhaps conv1 (by its name)', 'a: allowed']
    """
    said: dict[str, str] = {}
    for one in record.get("unmatched") or ():
        likely = one.get("likely")
        said[one["name"]] = "matches nothing" if not likely else f"perhaps {likely['name']} ({likely['why']})"
    for kind, text in (("beyond", "beyond the graph, as the capture says"), ("allowed", "allowed")):
        said |= dict.fromkeys(record.get(kind) or (), text)
    rest = [name for name in record.get("surplus") or () if name not in said]
    return [*(f"{name}: {text}" for name, text in said.items()), *rest]


def findings(record: Record) -> list[tuple[str, Record]]:
    """Where to look first: titles and nodes."""
    nodes = {node["name"]: node for node in record["nodes"]}
    defect, difference = record.get("first_defect"), record.get("first_difference")
    found = [("First defect", defect), ("First difference", difference)]
    if defect is not None and defect == difference:
        found = [("First defect, and first difference", defect)]
    return [(title, nodes[name]) for title, name in found if name is not None and name in nodes]


@dataclass(frozen=True)
class OpShares:
    """All nodes of one kind of op. largest, histogram: of shares where something differs; None if none do."""

    name: str
    nodes: int
    differ: int
    largest: float | None
    histogram: list[int] | None


def kinds(nodes: Sequence[Record]) -> list[OpShares]:
    """The kinds of ops, in order of first use."""
    found = []
    for name in dict.fromkeys(node["kind"] for node in nodes):
        some = [node for node in nodes if node["kind"] == name]
        shares = [node["share"] for node in some if node.get("share") and node["differ"]]
        total = [sum(bins) for bins in zip(*(share["histogram"] for share in shares), strict=True)]
        highest = max((largest(share) for share in shares), default=None)
        found.append(
            OpShares(name, len(some), sum(node["differ"] or 0 for node in some), highest, total or None)
        )
    return found


def stages(names: Sequence[str]) -> list[tuple[str, range]]:
    """The names in order, cut into groups: (title, indices). A name of one part stays with those before it.

    >>> stages(["conv1.0", "relu", "layer1.0.conv1", "layer1.0.bn1", "avgpool", "fc"])
    [('conv1', range(0, 2)), ('layer1.0', range(2, 4)), ('avgpool ... fc', range(4, 6))]
    """
    prefixes = [_prefix(name) for name in names]
    last = max((i for i, prefix in enumerate(prefixes) if prefix is not None), default=-1)
    for i in range(1, last + 1):
        prefixes[i] = prefixes[i - 1] if prefixes[i] is None else prefixes[i]
    groups = []
    for prefix, group in groupby(range(len(names)), lambda i: prefixes[i]):
        members = list(group)
        first, end = names[members[0]], names[members[-1]]
        title = prefix or (first if len(members) == 1 else f"{first} ... {end}")
        groups.append((title, range(members[0], members[-1] + 1)))
    return groups


def _prefix(name: str) -> str | None:
    """What a name shares with its neighbours: its first part, and its second if there is a third."""
    for separator in "/._":
        parts = [part for part in name.split(separator) if part]
        if len(parts) > 1:
            return separator.join(parts[: min(2, len(parts) - 1)])
    return None


def _pictures(
    judged: Sequence[Judged], nodes: Sequence[Record]
) -> tuple[dict[int, list[Picture]], frozenset[int]]:
    """Per index a node's pictures, and the indices of those left out: defects first, as the budget lasts."""
    having = [i for i, one in enumerate(judged) if _drawable(one.map) or _drawable(one.picture)]
    order = {"defect": 0, "unjudged": 1}

    def gravity(i: int) -> tuple[int, float, int]:
        share = nodes[i].get("share")
        return order.get(nodes[i]["verdict"], 2), -largest(share) if share else 0.0, i

    drawn: dict[int, list[Picture]] = {}
    left = BUDGET
    for i in sorted(having, key=gravity):
        if left <= 0:
            break
        one = judged[i]
        drawn[i] = [differences(one.map)] if one.map is not None and _drawable(one.map) else []
        drawn[i] += [values(one.picture)] if one.picture is not None and _drawable(one.picture) else []
        left -= sum(len(picture.uri) for picture in drawn[i])
    return drawn, frozenset(having) - drawn.keys()


def _drawable(array: F32 | None) -> bool:
    """A picture of one pixel says nothing that the numbers do not say."""
    return array is not None and array.ndim == 2 and array.size > 1
