"""Books: written and read back whole, small, and harmless whatever is in the file."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refnet.core.errors import FormatError, InputError, RefnetError, UnsupportedError
from refnet.core.orders import (
    Book,
    Box,
    Choice,
    Evidence,
    Part,
    Program,
    Recipe,
    Reference,
    Unconfirmed,
    signature,
)
from refnet.formats.book import dumps, loads, read, write
from refnet.formats.json_file import parse
from refnet.models.loading import structure
from refnet.ops import AvgPool, Conv, Dense, GlobalAvgPool
from refnet.verification.verify import other_reference
from tests.helpers.recipes import blocked, exprs, lanes, recipe, regions, split

QUIET = settings(deadline=None, database=None, derandomize=True)
REFERENCE = Reference("torch", "2.13.0", "cpu wheel", "avx2", 2, 1, "eager", {"MKL_CBWR": "COMPATIBLE"})


def small() -> Book:
    recipes = {
        "A()(x)": Recipe(
            (
                Part(Program(lanes(9), "zero"), (Box((("c", (992, 1000, 1)),)), Box((("p", (0, 9, 3)),)))),
                Part(Program(split(9, 4), finish="divide")),
            )
        ),
        "B()(x) #plain": Recipe((Part(Choice("sleef", split(4, 2))),)),
        "B()(x)": Recipe((Part(Choice("naïve")),)),
    }
    return Book(
        REFERENCE,
        recipes,
        {"A()(x)": Evidence(2, 12345)},
        (Unconfirmed("C()(x)", ("one", "two"), "no order reproduced element 7"),),
        {"bn1": "B()(x) #plain"},
    )


def test_a_book_is_read_back_whole():
    book = small()
    text = dumps(book)
    assert loads(text.encode(), "b") == book
    assert dumps(loads(text.encode(), "b")) == text


def test_the_documented_book_is_one():
    page = (Path(__file__).parents[2] / "docs" / "replay.md").read_text(encoding="utf-8")
    book = loads(page.split("```json\n")[1].split("```")[0].encode(), "docs/replay.md")
    assert len(book.recipes) == 4
    assert len(book.nodes) == len(book.evidence) == len(book.unconfirmed) == 1


@settings(QUIET, max_examples=200)
@given(st.data(), st.integers(1, 30), st.booleans(), st.sampled_from(["skip", "zero"]))
def test_any_recipe_is_read_back(data, terms, bias, padding):
    last = Part(Program(data.draw(exprs(terms, bias)), padding, "reciprocal"))
    first = Part(Choice("f", data.draw(exprs(terms, bias))), data.draw(regions((2, 3, 4, 5))))
    book = Book(REFERENCE, {"k": Recipe((first, last))})
    assert loads(dumps(book).encode(), "b") == book


@pytest.mark.parametrize("name", ["resnest-50-pytorch", "octave-se-resnet-50-0.125"])
def test_a_whole_network_is_small(name):
    """With orders as they were found in the frameworks."""
    graph = structure(name)
    types = graph.types()
    recipes, evidence = {}, {}
    for node in graph.nodes:
        inputs = [types[i] for i in node.inputs]
        key = signature(node.op, inputs)
        if isinstance(node.op, Conv):
            channels, kernel = inputs[1].shape[1], node.op.kernel[0] * node.op.kernel[1]
            made = blocked(channels, kernel) if kernel > 1 else split(channels, 128)
        elif isinstance(node.op, Dense):
            made = lanes(inputs[1].shape[1])
        elif isinstance(node.op, GlobalAvgPool):
            made = split(inputs[0].shape[2] * inputs[0].shape[3], 16)
        elif isinstance(node.op, AvgPool):
            made = split(node.op.kernel[0] * node.op.kernel[1], 9)
        else:
            recipes[key] = Recipe((Part(Choice("some_formula_name")),))
            continue
        recipes[key] = recipe(made)
        evidence[key] = Evidence(2, 10**7)
    text = dumps(Book(REFERENCE, recipes, evidence))
    assert len(text) < 300_000
    assert loads(text.encode(), "b").recipes == recipes


def test_writing_leaves_nothing_half_done(tmp_path):
    path = tmp_path / "b.json"
    write(path, small())
    assert read(path) == small()
    assert [p.name for p in tmp_path.iterdir()] == ["b.json"]
    with pytest.raises(InputError, match="cannot write"):
        write(tmp_path / "no" / "b.json", small())
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "absent.json")


def changed(change) -> bytes:
    found = json.loads(dumps(small()))
    change(found)
    return json.dumps(found).encode()


def part(found):
    return found["recipes"]["A()(x)"][0]


DEEP = "[" * 900 + "]" * 900


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda f: f.update(format="x"), FormatError, 'expected an object with "format"'),
        (lambda f: f.update(version=2), UnsupportedError, "only version 1"),
        (lambda f: f.update(version=True), UnsupportedError, "only version 1"),
        (lambda f: f.update(extra=1), FormatError, "the file: 'extra', expected only the keys"),
        (lambda f: f.pop("reference"), FormatError, "the key reference too"),
        (lambda f: f["reference"].pop("isa"), FormatError, "the key isa too"),
        (lambda f: f["reference"].update(threads=0), FormatError, "reference.threads: '0', expected a whole"),
        (lambda f: f["reference"].update(flags=[]), FormatError, "reference.flags: '[]', expected an object"),
        (lambda f: f["nodes"].update(a="gone"), FormatError, "nodes: 'gone', expected a key of the recipes"),
        (lambda f: f["evidence"].update(gone=[1, 2]), FormatError, "evidence: 'gone'"),
        (lambda f: f["evidence"].update({"A()(x)": [1]}), FormatError, "captures, elements"),
        (lambda f: f["recipes"].update(a=[]), FormatError, "recipes.a: '0 parts'"),
        (lambda f: part(f).pop("where"), FormatError, "in all parts but the last"),
        (lambda f: part(f).pop("sum"), FormatError, "neither"),
        (lambda f: part(f).update(formula="f"), FormatError, "'padding', expected only"),
        (lambda f: part(f).update(padding="ones"), FormatError, "expected one of skip, zero"),
        (lambda f: part(f).update(where=[{"q": [0, 1]}]), FormatError, "expected one of n, c"),
        (lambda f: part(f).update(where=[{"c": [0, 1, 0]}]), FormatError, "start, stop"),
        (lambda f: part(f).update(where=[{}]), FormatError, "at least one range"),
        (lambda f: part(f).update(sum="seven"), FormatError, "expected one of zero, first, bias"),
        (lambda f: part(f).update(sum=["add", "bias"]), FormatError, '"add", part, part'),
        (
            lambda f: part(f).update(sum=["fma", "zero", [[0, 2, 1], [1]]]),
            FormatError,
            "term 1 is added twice",
        ),
        (lambda f: part(f).update(sum=["fma", "zero", [[1, 2, 1]]]), FormatError, "term 2 is added though"),
        (lambda f: part(f).update(sum=["fma", "zero", [[0, 2]]]), FormatError, "start, count, step"),
        (lambda f: part(f).update(sum=["fma", "zero", [[0, -2, 1]]]), FormatError, "start, count, step"),
        (lambda f: part(f).update(sum=["fma", "zero", [[True]]]), FormatError, "start, count, step"),
        (
            lambda f: part(f).update(sum=["fma", "zero", [[0, 1 << 39, 1] + [1 << 39, 1] * 9]]),
            FormatError,
            "too many terms",
        ),
        (lambda f: f.update(written_by="a\nb"), FormatError, "control characters"),
    ],
)
def test_what_is_wrong_is_said(change, error, said):
    with pytest.raises(error) as caught:
        loads(changed(change), "book.json")
    assert said in str(caught.value)
    assert str(caught.value).startswith("book.json: ")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b"{",
        b'{"format":"refnet book","format":"refnet book"}',
        b'{"format":"refnet book","version":NaN}',
        b'{"format":"refnet book","version":' + b"9" * 5000 + b"}",
        DEEP.encode(),
        ("[" * 200_000).encode(),
        dumps(small()).replace('"A()(x)": [{', f'"A()(x)": [{DEEP},{{').encode(),
        b'{"\\ud800":1}',
    ],
)
def test_no_book_at_all(text):
    with pytest.raises(FormatError):
        loads(text, "b")


def test_chains_within_chains_end_somewhere():
    expr = "zero"
    for k in range(100):
        expr = ["fma", expr, [[k]]]
    with pytest.raises(FormatError, match="within one another"):
        loads(changed(lambda f: part(f).update(sum=expr)), "b")


@pytest.mark.parametrize(
    "part",
    [
        {"sum": ["add", ["fma", "zero", [[0, 4, 1]]], *["zero"] * 200_000]},
        {"sum": ["fma", "zero", [[0, 4, 1]]], "where": [{"e": [0, 1]}] * 300},
    ],
    ids=["leaves", "boxes"],
)
def test_what_costs_much_and_says_little_is_refused(part):
    recipes = {"Conv()(x)": [part, {"sum": ["fma", "zero", [[0, 4, 1]]]}]}
    if "where" not in part:
        recipes = {"Conv()(x)": [part]}
    raw = json.dumps({**json.loads(dumps(small())), "recipes": recipes, "evidence": {}, "nodes": {}}).encode()
    with pytest.raises(FormatError, match=r"chains, sums and leaves|300 boxes"):
        loads(raw, "large.json")


def test_a_key_twice_among_many():
    text = "{" + ", ".join(f'"{k}": 0' for k in [*range(50_000), 3]) + "}"
    with pytest.raises(FormatError, match="'3' is duplicated"):
        parse(text.encode(), "twice.json")


def test_many_large_orders_are_refused_before_they_are_listed():
    """20 recipes of a million terms each: the first ones are checked, the sum of all is bounded."""
    terms = 1 << 20
    recipes = {f"r{i}": [{"sum": ["fma", "zero", [[0, terms, 1]]]}] for i in range(20)}
    with pytest.raises(FormatError, match="16777216 in all"):
        loads(changed(lambda f: f["recipes"].update(recipes)), "b")


def test_damaged_books_end_in_an_error_or_in_a_book():
    """Every cut, and random changes of bytes: never another exception."""
    raw = dumps(small()).encode()
    for cut in range(len(raw) - 3):
        with pytest.raises(RefnetError):
            loads(raw[:cut], "b")
    dice = random.Random(0)
    for _ in range(3000):
        damaged = bytearray(raw)
        for _ in range(dice.randint(1, 3)):
            damaged[dice.randrange(len(raw))] = dice.choice(b'0123456789[]{}",:-abz \\\x00\xff')
        with suppress(RefnetError):
            loads(bytes(damaged), "b")


def test_a_large_file_is_not_read(tmp_path, monkeypatch):
    import refnet.formats.book as room

    monkeypatch.setattr(room, "LARGEST", 100)
    path = tmp_path / "b.json"
    path.write_bytes(dumps(small()).encode())
    with pytest.raises(FormatError, match="more than 100 bytes"):
        read(path)


def test_the_c_library_and_the_vendor_are_optional_fields():
    """Books from before they were written load, and their text stays what it was."""
    old = Reference("torch", "2.13.0", "cpu", "avx2", 1, 1, "eager")
    assert "libc" not in dumps(Book(old, {}))
    assert loads(dumps(Book(old, {})).encode(), "old").reference == old
    new = replace(old, libc="glibc 2.36", vendor="GenuineIntel")
    assert '"libc":"glibc 2.36","vendor":"GenuineIntel"' in dumps(Book(new, {}))
    assert loads(dumps(Book(new, {})).encode(), "new").reference == new
    wrong = dumps(Book(new, {})).replace('"glibc 2.36"', "7")
    with pytest.raises(FormatError, match=r"reference\.libc: '7', expected text"):
        loads(wrong.encode(), "wrong")


def test_another_machine_than_the_books_is_said():
    book = {"framework": "torch", "libc": "glibc 2.36", "vendor": "GenuineIntel"}
    assert other_reference(book, {"framework": "torch", "libc": "glibc 2.36", "vendor": "GenuineIntel"}) == []
    assert other_reference(book, {"framework": "torch", "libc": "", "vendor": ""}) == []  # an old capture
    assert other_reference(book, {"framework": "torch", "libc": "musl 1.2", "vendor": "AuthenticAMD"}) == [
        "the book is of libc glibc 2.36, the capture of libc musl 1.2: its recipes may be others",
        "the book is of vendor GenuineIntel, the capture of vendor AuthenticAMD: its recipes may be others",
    ]
