"""How messages say numbers and names: singulars, close names, and names from files no longer than needed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refnet.core.graph import Node

QUOTED, LINE = 200, 2000
"""Characters of a name, and of a line, that a message has at most: names come from files."""
LONG_NAME = re.compile(rf"(?<!\w)'[^'\n]{{{QUOTED - 1},}}'(?!\w)|[^\s']{{{QUOTED + 1},}}")
LONG_LINE = re.compile(rf"[^\n]{{{LINE + 1},}}")


def counted(count: int, one: str, more: str | None = None) -> str:
    """A number with its noun. more: the plural, if it is not one with an s.

    >>> counted(1, "value"), counted(0, "value"), counted(2, "element differs", "elements differ")
    ('1 value', '0 values', '2 elements differ')
    """
    return f"{count} {one if count == 1 else more or one + 's'}"


def did_you_mean(word: object, known: Iterable[str], otherwise: str = "") -> str:
    """What an error adds about a name that there is not: the closest names, or `otherwise` if none is close.

    >>> did_you_mean("Layer1.conv", ["layer1.conv1", "layer3.0.conv1", "fc"])
    '; did you mean layer1.conv1 or layer3.0.conv1?'
    >>> did_you_mean("x", ["layer1.conv1"], " among its 1")
    ' among its 1'
    """
    said = str(word)[:200].casefold()
    folded = {name[:200].casefold(): name for name in known}
    near = get_close_matches(said, folded, 3, 0.6)
    if not near and len(said) > 2:
        near = [one for one in folded if said in one][:3]
    return f"; did you mean {' or '.join(folded[one] for one in near)}?" if near else otherwise


def unencodable(names: Iterable[str]) -> str | None:
    """The first name that is no text, as it has half of a surrogate pair; None if all are text.

    >>> unencodable(["conv1", "a\\ud800"]), unencodable(["conv1", "größe"])
    ('a\\ud800', None)
    """
    return next((name for name in names if re.search("[\ud800-\udfff]", name)), None)


def shortened(message: str) -> str:
    """The message; of a long name, quoted or without spaces, and of a long line only its two ends are left.

    >>> shortened("no value '" + "ab " * 100 + "'")[:40]
    "no value 'ab ab ab ab ab ab ab ab ab ab "
    >>> len(shortened("x" * 10**6 + ": no such file"))
    213
    """
    for pattern, most in ((LONG_NAME, QUOTED), (LONG_LINE, LINE)):
        message = pattern.sub(lambda found, most=most: _ends(found[0], most), message)  # type: ignore[misc]
    return message


def _ends(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    said = f"...({len(text)} characters)..."
    end = (most - len(said)) // 3
    return text[: most - len(said) - end] + said + text[-end:]


def quoted(name: object) -> str:
    """A name from a file, in quotation marks and as short as `shortened` makes it.

    >>> quoted("conv1"), len(quoted("x" * 10**6))
    ("'conv1'", 200)
    """
    return shortened(repr(str(name)))


def opaque_nodes(nodes: Sequence[Node]) -> str:
    """The nodes that refnet cannot compute: a line for each reason, and how many other nodes need them."""
    named: dict[str, list[str]] = {}
    needs: dict[str, frozenset[str]] = {}
    blocked: Counter[str] = Counter()
    for node in nodes:
        behind = frozenset[str]().union(*(needs.get(name, frozenset()) for name in node.data))
        if node.op.opaque:
            named.setdefault(node.op.opaque, []).append(node.name)
            needs[node.name] = behind | {node.op.opaque}
        elif behind:
            needs[node.name] = behind
            blocked.update(behind)
    lines = []
    for why, names in list(named.items())[:40]:
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        others = f" (needed by {counted(blocked[why], 'other node')})" if blocked[why] else ""
        lines.append(f"\n  {why}: {', '.join(name[:60] for name in names[:8])}{more}{others}")
    return "".join(lines) + (f"\n  and {len(named) - 40} other reasons" if len(named) > 40 else "")
