"""The top of the HTML report: the result, what was compared, the first findings, the shares per op."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from refnet.report.html_charts import BINS, histogram, proportions
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
    text,
)

SURPLUS = 500
"""Names of surplus values that the page lists; all of them are in the record (--json)."""

Record = Mapping[str, Any]


def header(record: Record) -> str:
    """Title, result, one bar of all verdicts with its legend, and what was compared."""
    summary = record["summary"]
    counts = {verdict: int(summary[verdict]) for verdict in VERDICTS}
    judged = sum(counts.values()) - counts["missing"] - counts["unjudged"]
    if counts["defect"]:
        verdict, said = (
            "defect",
            _many(counts["defect"], "value is", "values are") + " proved not to be rounding",
        )
    elif judged <= 0:
        verdict, said = "unjudged", "Nothing could be judged"
    else:
        verdict, said = "equal", f"No defect in {_many(judged, 'judged value', 'judged values')}"
        if counts["unjudged"]:
            verdict, said = "unjudged", f"{said}, and {count(counts['unjudged'])} could not be judged"
    legend = "".join(
        f"<div><dt>{mark(one)} {one}</dt><dd><b>{count(n)}</b> {VERDICTS[one][1]}</dd></div>"
        for one, n in counts.items()
    )
    return f"""\
<header>
<p class="kicker">refnet verification</p>
<h1>{text(record["graph"]["name"])}</h1>
<p class="result">{mark(verdict)} {said}.</p>
<p class="line-of-summary">{text(summary["line"])}</p>
{proportions(counts)}
<dl class="legend">{legend}</dl>
</header>
<section aria-labelledby="compared">
<h2 id="compared">What was compared</h2>
{rows(_compared(record))}
</section>
"""


def _many(n: int, one: str, more: str) -> str:
    return f"{count(n)} {one if n == 1 else more}"


def _compared(record: Record) -> list[tuple[str, str]]:
    """The reference's identity, word for word: without these, "identical to PyTorch" means nothing."""
    said = []
    reference = record.get("reference")
    if reference:
        said += [(str(key), _said(value)) for key, value in reference.items() if value not in (None, "", {})]
    else:
        said.append(("reference", "not stated: a folder of values without a manifest"))
    if record.get("book"):
        said.append(("book", _said(record["book"])))
    said.append(("graph's hash", f"<code>{text(record['graph']['hash'])}</code>"))
    if record.get("written_by"):
        said.append(("judged by", text(record["written_by"])))
    said.append(("seconds", figure(record.get("seconds"))))
    said += [("note", text(note)) for note in record.get("notes") or ()]
    return said


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{text(key)} = {_said(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_said(one) for one in value) or "none"
    return text(value)


def findings(record: Record, links: Mapping[str, int], model: str, capture: str) -> str:
    """Cards: the first defect, the first difference, what to do next; then the outputs."""
    nodes = {node["name"]: node for node in record["nodes"]}
    cards = []
    first = {"First defect": record.get("first_defect"), "First difference": record.get("first_difference")}
    if first["First defect"] is not None and first["First defect"] == first["First difference"]:
        first = {"First defect, and first difference": first["First defect"]}
    for title, name in first.items():
        if name is not None and name in nodes:
            cards.append(_card(title, nodes[name], links[name], model, capture))
    if record.get("suggestion"):
        cards.append(
            f'<article class="card"><h3>What to do next</h3><p>{text(record["suggestion"])}</p></article>'
        )
    parts = []
    if cards:
        parts.append('<section aria-labelledby="findings"><h2 id="findings">Where to look first</h2>')
        parts.append(f'<div class="cards">{"".join(cards)}</div></section>')
    return "\n".join([*parts, _outputs(record.get("outputs") or (), links)])


def _card(title: str, node: Record, index: int, model: str, capture: str) -> str:
    said = f"{text(node['kind'])}, {count(node['differ'])} of {count(node['elements'])} elements differ"
    worst = node.get("worst")
    shown = ""
    if worst:
        exact = worst.get("golden") or worst["plain"]
        said += (
            f". At [{', '.join(str(int(i)) for i in worst['at'])}] the framework has "
            f"<code>{float32(worst['found']['value'])}</code>, refnet <code>{float32(exact['value'])}</code>"
        )
        if worst.get("share") is not None:
            said += f": {figure(worst['share'])} of the bound"
        shown = command(explain(model, node, capture))
    return (
        f'<article class="card {node["verdict"]}"><h3>{title}</h3>'
        f'<p class="where">{mark(node["verdict"])} <a href="#n{index}">{text(node["name"])}</a></p>'
        f"<p>{said}.</p>{shown}</article>"
    )


def _outputs(outputs: Sequence[Record], links: Mapping[str, int]) -> str:
    if not outputs:
        return ""
    body = "".join(
        f"<tr><td>{text(one['name'])}</td><td>{link(one['value'], links)}</td>"
        f"<td>{'not captured' if one['differ'] is None else count(one['differ'])}</td>"
        f"<td>{distance(one.get('ulps'))}</td><td>{figure(one.get('largest'))}</td></tr>"
        for one in outputs
    )
    return (
        '<section aria-labelledby="outputs"><h2 id="outputs">End to end</h2>'
        "<p>refnet's own run from the input to the outputs, beside the captured outputs.</p>"
        '<div class="wide"><table><thead><tr><th>output</th><th>value</th><th>differing</th><th>distance</th>'
        f"<th>largest difference</th></tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def surplus(names: Sequence[str]) -> str:
    """Captured values that are no node's; at the end of the page, since frameworks name many."""
    if not names:
        return ""
    more = f"<li>and {count(len(names) - SURPLUS)} more, in the record</li>" if len(names) > SURPLUS else ""
    listed = "".join(f"<li>{text(name)}</li>" for name in names[:SURPLUS])
    return (
        '<section aria-labelledby="surplus"><h2 id="surplus">Values that are not in the graph</h2>'
        f"<p>{_many(len(names), 'captured value is', 'captured values are')} not in the graph, "
        f'and not judged.</p><ul class="names">{listed}{more}</ul></section>'
    )


def link(name: str, links: Mapping[str, int]) -> str:
    """A name as a link to its node; inputs and weights have none."""
    known = links.get(name)
    return text(name) if known is None else f'<a href="#n{known}">{text(name)}</a>'


def kinds(record: Record) -> str:
    """Per kind of op: how much of the bound its values use, over all its nodes."""
    cards, others = [], []
    for kind in dict.fromkeys(node["kind"] for node in record["nodes"]):
        nodes = [node for node in record["nodes"] if node["kind"] == kind]
        shares = [node["share"] for node in nodes if node.get("share")]
        said = _many(len(nodes), "node", "nodes")
        said += f", {count(sum(node['differ'] or 0 for node in nodes))} elements differ"
        if shares:
            highest = max(largest(share) for share in shares)
            total = [sum(share["histogram"][i] for share in shares) for i in range(BINS)]
            said += f", largest share {figure(highest)}"
            cards.append(
                f'<article class="card"><h3>{text(kind)}</h3><p>{said}</p>{histogram(total)}</article>'
            )
        else:
            others.append(f"<b>{text(kind)}</b> ({said})")
    without = f"<p>Without a share: {'; '.join(others)}.</p>" if others else ""
    return (
        '<section aria-labelledby="kinds"><h2 id="kinds">How much of its bound each op uses</h2>'
        "<p>Each element's distance to the exact value, as a share of what any order of float32 additions "
        "could reach. Heights are logarithmic. Values with one right result have no share: equal or not.</p>"
        f'<div class="cards small">{"".join(cards)}</div>{without}</section>'
    )
