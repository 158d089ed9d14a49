"""A callable of torch's that is not there: what is said of it. No torch is needed to find out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from refnet.frameworks import torch_worker


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    (tmp_path / "mynets_of_a_test.py").write_text("import math\ndef make(n=1):\n    return n\n")
    (tmp_path / "broken_of_a_test.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("mynets_of_a_test", None)


def build(folder: Path, model: str) -> object:
    return torch_worker._build({"model": model, "paths": [str(folder)], "arguments": [3]})


def test_a_callable_is_built(folder):
    assert build(folder, "mynets_of_a_test:make") == 3


def test_close_names_are_offered(folder):
    with pytest.raises(ModuleNotFoundError, match="mynet_of_a_test'; did you mean mynets_of_a_test"):
        build(folder, "mynet_of_a_test:make")
    with pytest.raises(ModuleNotFoundError, match=r"No module named .elsewhere.; --path DIR"):
        build(folder, "elsewhere:make")
    with pytest.raises(AttributeError, match=r"mynets_of_a_test has no .maek.; did you mean make\?"):
        build(folder, "mynets_of_a_test:maek")


def test_what_a_module_lacks_itself_is_said_as_it_is(folder):
    with pytest.raises(ModuleNotFoundError, match=r"No module named .no_such_module_anywhere.$"):
        build(folder, "broken_of_a_test:make")
