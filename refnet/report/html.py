"""`refnet verify --html`: a verification as one self-contained page.

    record ── html_head: result, reference, findings, shares per op ──┐
           └─ html_nodes: map, a block per node ── html_charts (SVG)  ├─ page ── written whole or not at all
    maps ──── html_pictures: PNG data URIs, within a budget ──────────┘

The page asks nothing of any network: its policy forbids every load but its own style sheet, its own
script (both named by their sha256) and data URIs of pictures. Every text in it is escaped: names come
from files of others. It works without JavaScript, which adds the filter and folds what is unsuspicious.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Protocol

from refnet.core.op import F32
from refnet.formats.write import whole_file
from refnet.report.html_head import findings, header, kinds, surplus
from refnet.report.html_nodes import blocks, chart, figures, stages
from refnet.report.html_parts import VERDICTS, count, largest, mark, text
from refnet.report.html_pictures import differences, values

BUDGET = 1_600_000
"""Characters of pictures in a page: the gravest nodes come first, the rest say that theirs is left out."""


class Judged(Protocol):
    """What the page takes of a node that is not in the record."""

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
) -> None:
    """Write the report, whole or not at all.

    model, capture: as the user named them, for the commands that the report tells to run (default: the
    graph's name, and a word to replace). Raises InputError if the file cannot be written.
    """
    document = page(verification, model=model, capture=capture).encode()
    with whole_file(path) as stream:
        stream.write(document)


def page(verification: Verified, *, model: str | None = None, capture: str = "CAPTURE") -> str:
    """The report as HTML text."""
    record = verification.record()
    model = str(record["graph"]["name"]) if model is None else model
    nodes = record["nodes"]
    names = [str(node["name"]) for node in nodes]
    links = {name: i for i, name in enumerate(names)}
    groups = stages(names)
    style, script = _resource("html.css"), _resource("html.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{text(record["graph"]["name"])}: refnet verification</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#nodes">Skip to the nodes</a>
{header(record)}
{findings(record, links, model, capture)}
{kinds(record)}
<section class="network" aria-labelledby="nodes">
<h2 id="nodes" tabindex="-1">The network, top to bottom</h2>
{_filter(nodes)}
<div class="columns">
<nav aria-label="Map of the network">{chart(nodes, groups)}<p id="pointed" class="pointed"></p></nav>
<div class="list">
{blocks(nodes, groups, _pictures(verification.nodes, nodes), model, capture)}
<p id="nothing" class="nothing" hidden>No node fits the filter.</p>
</div>
</div>
</section>
{surplus(record.get("surplus") or ())}
<script>{script}</script>
</body>
</html>
"""


def _filter(nodes: Sequence[Mapping[str, Any]]) -> str:
    """The filter bar; hidden until the script, without which it could do nothing, shows it."""
    found = [node["verdict"] for node in nodes]
    buttons = "".join(
        f'<button type="button" class="chip" aria-pressed="true" data-verdict="{verdict}">'
        f"{mark(verdict)}{verdict} <b>{count(found.count(verdict))}</b></button>"
        for verdict in VERDICTS
        if verdict in found
    )
    options = "".join(f"<option>{text(kind)}</option>" for kind in dict.fromkeys(n["kind"] for n in nodes))
    return f"""\
<form id="filter" class="filter" hidden>
<div class="chips" role="group" aria-label="Verdicts to show">{buttons}</div>
<select id="kind" aria-label="Op to show"><option value="">all ops</option>{options}</select>
<input id="text" type="search" aria-label="Part of the name" placeholder="part of the name" autocomplete="off"
 spellcheck="false">
<button type="button" id="unfold">Unfold all</button>
<button type="reset">Reset</button>
<p id="shown" class="shown" role="status"></p>
</form>"""


def _pictures(judged: Sequence[Judged], nodes: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Per index the HTML of a node's pictures: defects first, then by share, as the budget lasts."""
    having = [i for i, one in enumerate(judged) if _drawable(one.map) or _drawable(one.picture)]
    order = {"defect": 0, "unjudged": 1}

    def gravity(i: int) -> tuple[int, float, int]:
        share = nodes[i].get("share")
        return order.get(nodes[i]["verdict"], 2), -largest(share) if share else 0.0, i

    drawn: dict[int, str] = {}
    left = BUDGET
    for i in sorted(having, key=gravity):
        one = judged[i]
        if left > 0:
            where = differences(one.map) if one.map is not None and _drawable(one.map) else None
            value = values(one.picture) if one.picture is not None and _drawable(one.picture) else None
            drawn[i] = figures(value, where)
            left -= len(drawn[i])
        else:
            drawn[i] = f'<p class="left-out">No pictures: those of others fill the {count(BUDGET)} characters'
            drawn[i] += " that the page has for pictures.</p>"
    return drawn


def _drawable(array: F32 | None) -> bool:
    """A picture of one pixel says nothing that the numbers do not say."""
    return array is not None and array.ndim == 2 and array.size > 1


def _resource(name: str) -> str:
    return files("refnet.report").joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
