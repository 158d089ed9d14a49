"""The example in the docstring of refnet.reveal, which needs a framework."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import refnet
from tests.crosscheck.conftest import interpreter

pytestmark = pytest.mark.crosscheck


def test_the_example_of_reveal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter("onnx")
    monkeypatch.chdir(tmp_path)
    text = (refnet.reveal.__doc__ or "").replace("  # doctest: +SKIP", "")
    example = doctest.DocTestParser().get_doctest(text, {}, "refnet.reveal", None, None)
    assert len(example.examples) == 3
    said: list[str] = []
    assert doctest.DocTestRunner().run(example, out=said.append).failed == 0, "".join(said)
