"""Orders, expressions and their checks: each term exactly once, whatever is written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refnet.core.errors import InputError
from refnet.core.orders import Book, Chain, Leaf, Order, Part, Program, Recipe, Reference, Sum, check
from refnet.report import recipe as report

QUIET = settings(deadline=None, database=None, derandomize=True)

loops = st.lists(st.tuples(st.integers(2, 5), st.integers(-40, 40)), max_size=3)
pieces = st.lists(st.tuples(st.integers(0, 500), loops), min_size=1, max_size=4)


@settings(QUIET, max_examples=500)
@given(pieces)
def test_an_order_is_its_terms(written):
    order = Order(tuple((start, *sum(inner, ())) for start, inner in written))
    terms = order.indices()
    assert order.size == len(terms)
    assert Order.of(terms).indices() == terms


@settings(QUIET, max_examples=300)
@given(st.permutations(range(12)))
def test_any_permutation_is_an_order(terms):
    assert Order.of(terms).indices() == list(terms)


@pytest.mark.parametrize(("channels", "block"), [(64, 8), (64, 16), (3, 1), (48, 16), (512, 8)])
def test_block_rules_are_one_piece(channels, block):
    terms = [
        (c + i) * 9 + p * 3 + q
        for c in range(0, channels, block)
        for p in range(3)
        for q in range(3)
        for i in range(block)
    ]
    assert len(Order.of(terms).pieces) == 1
    assert sorted(Order.of(terms).indices()) == list(range(9 * channels))


def test_every_term_once():
    chain = Chain(Leaf.ZERO, Order.of(range(8)))
    assert check(chain, 8, bias=False) == 8
    assert check(Sum((Chain(Leaf.BIAS, Order.of(range(4))), Chain(Leaf.ZERO, Order.of(range(4, 8))))), 8) == 8
    for wrong, said in [
        (Chain(Leaf.ZERO, Order.of([0, 1, 1])), "term 1 is added twice"),
        (Chain(Leaf.ZERO, Order.of([0, 1, 3])), "term 3 is added though there are 3"),
        (Chain(Leaf.ZERO, Order.of([0, 1, -1])), "term -1 is added though"),
        (Chain(Leaf.ZERO, Order(())), "0 terms"),
        (Chain(Leaf.ZERO, Order(((0, 1 << 30, 1, 1 << 30, 1),))), "terms are added; 1 to"),
        (Sum((chain,)), "less than two"),
        (Sum((Leaf.BIAS, Leaf.BIAS, chain)), "the bias is added 2 times"),
    ]:
        with pytest.raises(InputError, match=said):
            check(wrong)
    with pytest.raises(InputError, match="8 terms are added, there are 9"):
        check(chain, 9)
    with pytest.raises(InputError, match="the bias is added 0 times, must be once"):
        check(chain, 8, bias=True)


def test_a_deep_expression_is_refused_not_followed():
    deep = Chain(Leaf.ZERO, Order(((0,),)))
    for k in range(1, 3000):
        deep = Chain(deep, Order(((k,),)))
    with pytest.raises(InputError, match="3001 deep"):
        check(deep)


def test_a_nodes_own_key_must_be_of_its_signature():
    reference = Reference("mxnet", "1.9.1", "", "avx2", 1, 1, "symbol")
    recipe = Recipe(())
    recipes = {"A()(x)": recipe, "A()(x) #plain": recipe, "B()(x)": recipe}
    book = Book(reference, recipes, nodes={"one": "A()(x) #plain", "two": "B()(x)", "three": "gone"})
    assert book.key("other", "A()(x)") == "A()(x)"
    assert book.key("one", "A()(x)") == "A()(x) #plain"
    assert book.key("two", "A()(x)") is None
    assert book.key("three", "A()(x)") is None
    assert book.key("other", "C()(x)") is None


@pytest.mark.parametrize("leaf", [leaf for leaf in Leaf if leaf is not Leaf.FIRST])
def test_every_leaf_has_words_and_a_picture(leaf):
    """As a seed, as the last part of a sum, and between others."""
    half = Chain(Leaf.ZERO, Order.of(range(4)))
    for expr in (
        Chain(leaf, Order.of(range(9))),
        Sum((half, leaf)),
        Sum((half, leaf, Chain(leaf if leaf is Leaf.ZERO else Leaf.ZERO, Order.of(range(4, 9))))),
        Sum((Chain(leaf, Order.of(range(4))), Chain(Leaf.ZERO, Order.of(range(4, 9))))),
    ):
        made = Recipe((Part(Program(expr)),))
        said = " ".join(report.words(made))
        picture = report.svg(made, "a sum")
        assert report.LEAVES[leaf] in said or report.SYMBOLS[leaf] in said
        if leaf in (Leaf.BIAS, Leaf.ADDEND):
            assert leaf.value in said
            assert leaf.value in picture
