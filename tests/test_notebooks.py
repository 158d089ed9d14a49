"""The notebooks of docs/notebooks run and print what they say; what one repeats of another is the same."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from refnet.report.views import MOST
from tests.helpers.notebooks import FOLDER, NAMES, WITH_TORCH, cells, functions, run, source

PROSE: dict[str, dict[str, str]] = {
    "octave-convolution": {
        "These are the twelve high-frequency channels": "high.shape[1] == 12",
        "four\nlow-frequency channels at half": "low.shape[1] == 4 and 2 * low.shape[2] == high.shape[2]",
        "Here it is a quarter": "alpha == 1 / 4",
        "needs 67 % of the multiplications": "round(100 * octave / vanilla) == 67",
        "¾·0.5·1.5 = 0.4375": "1 - 0.75 * 0.5 * 1.5 == 0.4375",
        "when it was rounded: 2⁻²⁴": "fma(a, a, -(a * a)) == 2.0**-24",
        "A float32 ulp is 2²⁹ float64 ulps": "np.spacing(np.float32(1)) == 2**29 * np.spacing(1.0)",
    },
    "split-attention": {
        "its *radix* R is 2": "graph.by_name['layer1.0.conv2.add_3'].op.radix == 2",
        "which index in the 16 numbers": "attention.size == 16 and "
        "attention.reshape(2, 8)[1, 3] == attention[0, 11]",
        "`upsample`, and four other rows": "{type(n.op).__name__ for n in __import__('refnet').load("
        "'octave-se-resnet-digits').nodes} - set(OPS) == {'UpsampleNearest', 'Mul', 'ExpandDims', 'Sigmoid'}",
        "in all four blocks": "len(halves) == 4",
        "add up to 1 only as far as float32 can": "(attention.reshape(2, 8).sum(axis=0) != 1).any()",
    },
    "float32-sums": {
        "13421773 · 2⁻²⁷": "Fraction(float(F(0.1))) == Fraction(13421773, 2**27)",
        "2²⁴ + 2 is 8388609 · 2, 2²⁴ + 4 is 8388610 · 2": "[int(np.nextafter(F(2**24), F(2**25))), "
        "int(F(2**24 + 4))] == [8388609 * 2, 8388610 * 2]",
        "with 108 products": "n == 108",
        "1 + 2⁻¹¹ + 2⁻²⁴": "Fraction(1 + 2**-12) ** 2 == 1 + Fraction(1, 2**11) + Fraction(1, 2**24)",
        "One float32 ulp is 2²⁹ float64 ulps": "np.spacing(F(1)) == 2**29 * np.spacing(1.0)",
    },
    "planted-bug": {
        "One defect among all values": "verification.counts['defect'] == 1",
        "nearly all of them differ, with and without": "len(refnet.diff(right, plain).different) > 90",
        "a tolerance of 10⁻³": "np.allclose(values['prob'], own, rtol=0, atol=1e-3)",
        "0.001 where the network has\n0.00001": "graph.by_name[judged.name].op.eps == 0.00001",
        "all variances here are above 0.3": "variance.min() > 0.3",
        "a change of eps by 10⁻⁸ lies inside the bound. But some\n   bits change": "[one.verdict for one in "
        "refnet.verify(dict((n.name, v) for n, v in refnet.steps(replace(graph, nodes=tuple("
        "replace(n, op=replace(n.op, eps=1.001e-5)) if n is node else n for n in graph.nodes)), x)), "
        "graph, inputs=x).nodes if one.name == node.name] == ['rounding']",
    },
}
"""Notebook -> what its prose says -> an expression, of its own names, that is true if it is right."""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITH_TORCH])
def test_a_notebook_prints_what_it_says(name):
    shown: list[Any] = []
    namespace = run(source(name), shown)
    for value in shown:
        assert 1000 < len(value._repr_html_()) <= MOST
    for prose, expression in PROSE[name].items():
        assert prose in source(name), prose
        assert eval(expression, namespace), prose


def test_a_wrong_output_is_noticed():
    page = "```python\nprint(1 + 1)\n```\n\n```text\n2\n```\n"
    assert run(page)["__name__"] == "__main__"
    with pytest.raises(AssertionError):
        run(page.replace("text\n2", "text\n3"))
    with pytest.raises(AssertionError):
        run("```python\nprint(1)\n```\n")


def test_every_notebook_is_known():
    assert set(PROSE) | WITH_TORCH == set(NAMES)
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\S+)\.md\)", index)[: len(NAMES)] == [
        "octave-convolution",
        "split-attention",
        "float32-sums",
        "planted-bug",
        "own-module",
    ]


def test_what_is_repeated_is_the_same():
    """Split attention has the pieces of the octave notebook, so that it can be read alone."""
    first, second = (functions(source(name)) for name in ("octave-convolution", "split-attention"))
    shared = first.keys() & second.keys() - {"interpret"}
    assert shared >= {"fma", "conv", "batch_norm", "dense", "softmax", "same_bits"}
    assert {name: first[name] for name in shared} == {name: second[name] for name in shared}


def test_together_they_are_an_interpreter_of_about_a_hundred_lines():
    both = {}
    for name in ("octave-convolution", "split-attention"):
        tools = {
            "same_bits",
            "octave_conv",
            "weights",
            "conv_backwards",
        }  # compare and show, and compute nothing
        both |= {key: text for key, text in functions(source(name)).items() if key not in tools}
        rows = [cell.code for cell in cells(source(name)) if cell.code.startswith("OPS = {")]
        both |= {line: line for code in rows for line in re.findall(r"^    .*lambda.*$", code, re.MULTILINE)}
    lines = [line for text in both.values() for line in text.splitlines() if line.strip()]
    assert 90 <= len(lines) <= 110
    assert "in about a hundred lines" in source("split-attention")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_opens_in_jupyter_and_as_a_page(name):
    text = source(name)
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    head = yaml.safe_load(text.split("---\n")[1])["jupyter"]
    assert head["jupytext"]["text_representation"] == {
        "extension": ".md", "format_name": "markdown", "format_version": "1.3"}  # fmt: skip
    assert head["kernelspec"]["language"] == "python"
    assert re.findall(r"^# ", prose, re.MULTILINE) == ["# "]
    assert "A test\nruns this notebook" in text or "A test runs this notebook" in text or name in WITH_TORCH
    for target in re.findall(r"\]\(([^)#\s]+)", prose):
        assert (FOLDER / target).exists(), target


@pytest.mark.parametrize("name", NAMES)
def test_five_questions_with_folded_answers(name):
    questions, answers = (
        source(name).split("## Questions\n")[1].split("<details><summary>Answers</summary>\n")
    )
    assert re.findall(r"^(\d)\. ", questions, re.MULTILINE) == list("12345")
    assert re.findall(r"^(\d)\. ", answers, re.MULTILINE) == list("12345")
    assert answers.endswith("\n\n</details>\n")
    assert answers.startswith("\n1. ")
