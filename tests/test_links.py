"""Every link of the Markdown pages that stays inside of the repository leads somewhere, headings included."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "weights").rglob("*.md")])


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Addresses of links and images."""
    inline = [one for token in tokens(page) for one in token.children or ()]
    found = [
        one.attrGet("href") or one.attrGet("src") for one in inline if one.type in ("link_open", "image")
    ]
    return [unquote(str(one)) for one in found]


@cache
def anchors(page: Path) -> set[str]:
    """The names that headings get: lower case, words joined by hyphens, repeated ones numbered."""
    found: dict[str, int] = {}
    names = set()
    for before, token in zip(tokens(page), tokens(page)[1:], strict=False):
        if before.type == "heading_open":
            inline = [one for one in token.children or () if one.type in ("text", "code_inline")]
            words = "".join(one.content for one in inline)
            name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            number = found.get(name, -1) + 1
            found[name] = number
            names.add(f"{name}-{number}" if number else name)
    return names


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    wrong = []
    for link in links(page):
        address, _, heading = link.partition("#")
        if re.match(r"\w+:", address):
            continue
        goal = (page.parent / address).resolve() if address else page
        inside = goal.is_relative_to(ROOT) and goal.exists()
        if not inside or (heading and heading not in anchors(goal)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=[path.relative_to(ROOT).as_posix() for path in PAGES])
def test_links_lead_somewhere(page):
    assert broken(page) == []


def test_there_are_links_to_follow():
    assert sum(len(links(page)) for page in PAGES) > 100
    assert any("#" in link for page in PAGES for link in links(page))


def test_a_broken_link_is_found(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b` c\n\n# A b c\n\n[1](#a-b-c) [2](#a-b-c-1) [3](#a-b-c-2) [4](other.md)\n"
        "![5](page.md#x) [6](../..)\n"
        "\n```text\n[7](nowhere.md)\n```\n"
    )
    monkeypatch.setattr("tests.test_links.ROOT", tmp_path)
    assert broken(page) == ["#a-b-c-2", "other.md", "page.md#x", "../.."]
