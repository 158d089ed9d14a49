"""Captures that a hostile or careless hand made end in a clear error: no waiting, no boundless memory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from refnet.cli import main
from refnet.core.errors import InputError
from refnet.verification.capture import open_capture

Shown = pytest.CaptureFixture[str]


@pytest.mark.parametrize("name", ["fc.npy", "manifest.json"])
def test_a_pipe_is_no_file(name: str, tmp_path: Path, capsys: Shown) -> None:
    folder = tmp_path / "c"
    assert main(["capture", "refnet", "resnest-digits", "-o", str(folder)]) == 0
    (folder / name).unlink()
    os.mkfifo(folder / name)
    for words in (["verify", str(folder)], ["diff", str(folder), str(folder)]):
        assert main(words) == 2
        assert "not a regular file" in capsys.readouterr().err


def test_a_file_that_claims_more_than_there_is_memory(tmp_path: Path, capsys: Shown) -> None:
    folder = tmp_path / "c"
    assert main(["capture", "refnet", "resnest-digits", "-o", str(folder)]) == 0
    (folder / "manifest.json").unlink()
    with (folder / "fc.npy").open("r+b") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (1, 1 << 36)}
        )
        file.truncate(file.tell() + (4 << 36))  # holes: no disk is taken
    capsys.readouterr()
    assert main(["verify", str(folder), "resnest-digits", "--only", "fc"]) == 2
    said = capsys.readouterr()
    assert f"has {1 << 36} elements" in said.out + said.err


def test_outputs_that_are_no_names(tmp_path: Path, capsys: Shown) -> None:
    folder = tmp_path / "c"
    assert main(["capture", "refnet", "resnest-digits", "-o", str(folder)]) == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    for wrong in (["prob"], {"prob": 1}, None, 3):
        (folder / "manifest.json").write_text(json.dumps({**manifest, "outputs": {"prob": wrong}}))
        assert main(["verify", str(folder)]) == 2
        assert "outputs.prob" in capsys.readouterr().err


def test_two_files_of_one_value(tmp_path: Path) -> None:
    for name in ("a%2Fb.npy", "a%2fb.npy"):
        np.save(tmp_path / name, np.zeros(1, np.float32))
    with pytest.raises(InputError, match="two files hold the value 'a/b'"):
        open_capture(tmp_path)


def test_only_one_value_of_hashes(tmp_path: Path, capsys: Shown) -> None:
    """Its inputs are known by their hashes: what verify finds whole, it finds alone, and explain too."""
    folder = str(tmp_path / "h")
    words = ["capture", "refnet", "resnest-digits", "--input", "seed:1", "--hash-only", "-o", folder]
    assert main(words) == 0
    assert main(["verify", folder]) == 0
    assert main(["verify", folder, "--only", "fc"]) == 0
    assert main(["explain", "resnest-digits", "fc", "--at", "0,3", "--capture", folder]) == 0
    capsys.readouterr()


def test_a_value_in_another_shape_is_explained_too(tmp_path: Path, capsys: Shown) -> None:
    folder = tmp_path / "c"
    assert main(["capture", "refnet", "resnest-digits", "-o", str(folder)]) == 0
    (folder / "manifest.json").unlink()
    np.save(folder / "conv1.0.npy", np.load(folder / "conv1.0.npy").reshape(1, -1))
    said = ["explain", "resnest-digits", "conv1.1", "--at", "0,0,0,0", "--capture", str(folder)]
    assert main(said) == 0
    capsys.readouterr()
