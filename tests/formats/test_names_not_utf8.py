"""Linux allows any bytes in a file's name: refnet runs such a file and writes none that must name it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from refnet.cli import main
from refnet.core.errors import InputError
from refnet.formats.golden_file import Sources
from refnet.formats.manifest import Origin
from refnet.frameworks.capture.writer import CapturePlan, write
from refnet.models.weights import shipped_folder
from refnet.verification.names import write_names

BAD = os.fsdecode(b"v\xff")
REFUSED = r"the name 'v.udcff.png' is not UTF-8, so refnet can write it into no file"


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    try:
        shutil.copy(next((shipped_folder() / "digits").glob("*.png")), f"{BAD}.png")
    except OSError:
        pytest.skip("this file system has names of text only")
    return f"{BAD}.png"


def test_it_is_run_and_shown_as_any_other(image, capsys):
    assert main(["run", "resnest-digits", image]) == 0
    assert "v" in capsys.readouterr().out


def test_a_golden_file_cannot_name_it(image, capsys):
    assert main(["golden", "resnest-digits", "--input", image, "-o", "golden.json"]) == 2
    said = capsys.readouterr().err
    assert "is not UTF-8" in said
    assert "Traceback" not in said
    assert os.listdir() == [image]


def test_a_capture_cannot_name_it_and_leaves_no_folder(tmp_path):
    x = {"x": np.float32([1])}
    sources = Sources("resnest-digits", None, f"{BAD}.png")
    plan = CapturePlan(Origin("by hand"), x, lambda: iter(x.items()), lambda: {"y": "x"}, sources=sources)
    with pytest.raises(InputError, match=REFUSED):
        write(tmp_path / "capture", plan)
    assert os.listdir(tmp_path) == []


def test_a_map_of_names_cannot_name_it(tmp_path):
    with pytest.raises(InputError, match=REFUSED):
        write_names(tmp_path / "map.json", {f"{BAD}.png": "conv1"})
    assert os.listdir(tmp_path) == []
