"""The notebooks in a real Jupyter kernel, and the one that captures a torch module."""

from __future__ import annotations

from typing import Any

import pytest

from refnet.report.views import MOST
from tests.crosscheck.conftest import interpreter
from tests.helpers.notebooks import FOLDER, NAMES, WITH_TORCH, cells, run, source

pytestmark = pytest.mark.crosscheck


@pytest.fixture(autouse=True)
def _torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFNET_PYTHON_TORCH", str(interpreter("torch")))


@pytest.mark.parametrize("name", sorted(WITH_TORCH))
def test_a_notebook_with_torch_prints_what_it_says(name):
    shown: list[Any] = []
    found = run(source(name), shown)
    assert all(1000 < len(value._repr_html_()) <= MOST for value in shown)
    assert len(shown) == 4
    assert found["verification"].counts["equal"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_in_jupyter(name, tmp_path):
    """Jupytext opens it, a kernel runs it; each cell has the output that the page says, and no other."""
    import jupytext  # .ci/environments.sh jupyter installs both
    import nbclient

    notebook = jupytext.read(FOLDER / f"{name}.md")
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    expected = cells(source(name))
    assert [cell.source for cell in code] == [cell.code.strip("\n") for cell in expected]
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    for cell, said in zip(code, expected, strict=True):
        streams = [one for one in cell.outputs if one.output_type == "stream" and one.name == "stdout"]
        assert "".join(one.text for one in streams) == (said.printed or ""), cell.source
        for one in cell.outputs:
            if one.output_type == "execute_result":
                assert 1000 < len(one.data["text/html"]) <= MOST
                assert one.data["text/plain"]
    assert any(one.output_type == "execute_result" for cell in code for one in cell.outputs)
