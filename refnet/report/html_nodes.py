"""The network in the HTML report, top to bottom: a map of marks, and every node with what is known of it.

names ── stages ── chart: a mark per node, grouped
              └─── blocks: a row per node, which unfolds to facts, worst element, pictures, histogram
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from refnet.report.html_charts import histogram, number_line, share_bar
from refnet.report.html_head import Record, link
from refnet.report.html_parts import (
    VERDICTS,
    command,
    count,
    distance,
    explain,
    figure,
    float32,
    largest,
    mark,
    rows,
    shape,
    text,
)
from refnet.report.html_pictures import Picture


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


def chart(nodes: Sequence[Record], groups: Sequence[tuple[str, range]]) -> str:
    """The map: a mark per node that leads to it, the groups below each other."""
    parts = []
    for title, members in groups:
        marks = "".join(
            f'<a class="mark {nodes[i]["verdict"]}" href="#n{i}" aria-label="{_label(nodes[i])}" '
            f'title="{_label(nodes[i])}">{VERDICTS[nodes[i]["verdict"]][0]}</a>'
            for i in members
        )
        parts.append(f'<li><span class="stage">{text(title)}</span><span class="marks">{marks}</span></li>')
    return f'<ol class="map">{"".join(parts)}</ol>'


def _label(node: Record) -> str:
    return f"{text(node['name'])}, {text(node['kind'])}: {node['verdict']}"


def blocks(
    nodes: Sequence[Record],
    groups: Sequence[tuple[str, range]],
    pictures: Mapping[int, str],
    model: str,
    capture: str,
) -> str:
    """Every node's block, grouped; pictures: per index of a node the HTML of its pictures."""
    links = {str(node["name"]): i for i, node in enumerate(nodes)}
    parts = []
    for title, members in groups:
        listed = "".join(
            _block(i, nodes[i], links, pictures.get(i, ""), _command(model, nodes[i], capture))
            for i in members
        )
        found = [nodes[i]["verdict"] for i in members]
        tally = " ".join(
            f'<span class="tally">{mark(verdict)} {found.count(verdict)}'
            f'<span class="unseen"> {verdict}</span></span>'
            for verdict in VERDICTS
            if verdict in found
        )
        parts.append(
            f'<section class="group"><h3><span class="name">{text(title)}</span> {tally}</h3>'
            f'<ol class="nodes">{listed}</ol></section>'
        )
    return "\n".join(parts)


def _command(model: str, node: Record, capture: str) -> str:
    return command(explain(model, node, capture)) if node.get("worst") else ""


def _block(index: int, node: Record, links: Mapping[str, int], pictures: str, shown: str) -> str:
    """One node: the row, and below it what unfolds. Without JavaScript all are unfolded."""
    verdict, share = node["verdict"], node.get("share")
    highest = largest(share)
    differ = node.get("differ")
    measure = ""
    if share:
        measure = f"{share_bar(highest)}<span>{figure(highest)}</span>"
    elif node.get("ulps") and differ:
        measure = f"<span>{distance(node['ulps']['max'])}</span>"
    differing = f"{count(differ)} of {count(node['elements'])}" if differ else "none"
    if differ is None or verdict == "missing":
        differing = "-"
    return (
        f'<li class="node {verdict}" id="n{index}" data-verdict="{verdict}" data-kind="{text(node["kind"])}">'
        f'<details open><summary>{mark(verdict)}<span class="name">{text(node["name"])}</span>'
        f'<span class="kind">{text(node["kind"])}</span><span class="size">{shape(node["shape"])}</span>'
        f'<span class="differ"><span class="unseen">differing: </span>{differing}</span>'
        f'<span class="share">{measure}</span><span class="verdict">{verdict}</span></summary>'
        f'<div class="body">{_facts(node, links)}{_worst(node, shown)}'
        f'<div class="drawn">{pictures}{_shares(share)}</div></div>'
        "</details></li>\n"
    )


def _facts(node: Record, links: Mapping[str, int]) -> str:
    said = [("op", f"<code>{text(node['op'])}</code>")]
    said.append(("inputs", _names(node.get("inputs") or (), links)))
    if node.get("reason"):
        said.append(("reason", text(node["reason"])))
    if node.get("over"):
        said.append(("judged together over", _names(node["over"], links)))
    if node.get("differ") is not None and node["verdict"] != "missing":
        differing = f"{count(node['differ'])} of {count(node['elements'])}"
        said.append(("bits differ", f"{differing}, {count(node['outside'])} of them proved wrong"))
        if node.get("unpromised"):
            said.append(("without a bound", f"{count(node['unpromised'])} of those that differ"))
    if node.get("share"):
        share = node["share"]
        said.append(
            ("share of the bound", f"largest {figure(largest(share))}, median {figure(share['median'])}")
        )
    if node.get("ulps"):
        said.append(("largest distance", distance(node["ulps"]["max"])))
    own = node.get("inherited")
    if own:
        most = f"largest {figure(own['largest'])}, {distance(own['ulps'])}"
        said.append(("inherited, end to end", f"{count(own['differ'])} elements, {most}"))
    return rows(said)


def _names(names: Sequence[str], links: Mapping[str, int]) -> str:
    return ", ".join(link(name, links) for name in names) or "none"


def _worst(node: Record, shown: str) -> str:
    """The worst element's numbers: bits, decimals, its place in the bound, the command that shows more."""
    worst = node.get("worst")
    if not worst:
        return ""
    titles = {"found": "framework", "plain": "refnet, plain", "golden": "exact, rounded once"}
    lines = "".join(
        f'<tr><th scope="row">{title}</th><td>{text(_hex(one["hex"]))}</td>'
        f"<td>{float32(one['value'])}</td></tr>"
        for who, title in titles.items()
        if (one := worst.get(who))
    )
    said = []
    if worst.get("ulps") is not None:
        said.append("one is no number" if worst["ulps"] < 0 else f"{distance(worst['ulps'])} apart")
    if worst.get("share") is not None:
        said.append(f"{figure(worst['share'])} of the bound")
    if worst.get("bound"):
        bound = worst["bound"]
        said.append(f"bound {figure(bound['center'], 9)} ± {figure(bound['radius'])}")
    at = ", ".join(str(int(i)) for i in worst["at"])
    return (
        f'<div class="worst"><h4>Worst element [{at}]</h4><table class="bits"><tbody>{lines}</tbody></table>'
        f"<p>{'; '.join(said)}</p>{number_line(worst, node['verdict'])}"
        f"{shown}</div>"
    )


def _hex(bits: object) -> str:
    said = str(bits)
    return said if said.startswith("0x") else f"0x{said}"


def _shares(share: Mapping[str, Any] | None) -> str:
    if not share:
        return ""
    drawn = histogram(share["histogram"])
    return f'<figure class="chart"><figcaption>elements by share</figcaption>{drawn}</figure>'


def figures(value: Picture | None, difference: Picture | None) -> str:
    """The two pictures of a node, with their scales in words."""
    parts = []
    if difference is not None:
        said = "blank where the bits are equal"
        if difference.highest:
            said = f"dark just above 0 to yellow {figure(difference.highest)} of the bound; {said}"
        if difference.over:
            said += f"; red: proved wrong ({count(difference.over)})"
        if difference.nans:
            said += f"; magenta: nothing is promised ({count(difference.nans)})"
        parts.append(_figure("where it differs", difference, said, "largest over batch and channels"))
    if value is not None:
        said = f"black {figure(value.lowest)} to white {figure(value.highest)}"
        if value.nans:
            said += f"; magenta: not finite ({count(value.nans)})"
        parts.append(_figure("the framework's value", value, said, "mean over batch and channels"))
    return f'<div class="pictures">{"".join(parts)}</div>' if parts else ""


def _figure(title: str, picture: Picture, said: str, over: str) -> str:
    """Small pictures are enlarged by whole factors, so that pixels stay square and sharp."""
    factor = max(1, 168 // max(picture.width, picture.height))
    down, across = picture.fold
    folded = f"; a pixel stands for {down} &times; {across}" if (down, across) != (1, 1) else ""
    return (
        f'<figure><img src="{picture.uri}" width="{factor * picture.width}" '
        f'height="{factor * picture.height}" alt="{title}: {said}">'
        f"<figcaption><b>{title}</b><br>{said}; {over}{folded}</figcaption></figure>"
    )
