"""A capture that goes on writes into its own folder only, whatever was put there meanwhile."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from refnet.core.errors import InputError
from refnet.formats.manifest import file_name
from refnet.frameworks.capture.writer import write
from refnet.verification.capture import PROGRESS, open_capture
from tests.helpers.fuzzed_states import plan, unfinished

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no links")
KEPT = b"as it was"


@pytest.fixture
def place(tmp_path):
    """An unfinished capture, and a file outside of it."""
    outside = tmp_path / "outside"
    outside.write_bytes(KEPT)
    unfinished(tmp_path / "capture")
    return tmp_path / "capture", outside


@pytest.mark.parametrize("value", ["v/0", "v/1", "v/2", "x"])
def test_a_value_that_has_become_a_link_is_written_anew(place, value):
    """Also one to a file with the very values: it could change later."""
    folder, outside = place
    path = folder / file_name(value)
    if path.exists():
        outside.write_bytes(path.read_bytes())
        path.unlink()
    before = outside.read_bytes()
    path.symlink_to(outside)
    write(folder, plan())
    assert outside.read_bytes() == before
    assert path.is_file()
    assert not path.is_symlink()
    assert open_capture(folder).value("v/2").tolist() == np.full((1, 2), 2).tolist()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_progress_file_that_is_elsewhere_is_refused(place, link):
    folder, outside = place
    (folder / PROGRESS).unlink()
    link(outside, folder / PROGRESS)
    with pytest.raises(InputError, match=r"folder: (Too many levels|it has other names)"):
        write(folder, plan())
    assert outside.read_bytes() == KEPT


def test_links_to_be_swept_are_removed_and_not_followed(place):
    folder, outside = place
    (folder / ".refnet-00.part").symlink_to(outside)
    (folder / "manifest.json").symlink_to(outside)
    write(folder, plan())
    assert outside.read_bytes() == KEPT
    own = {file_name(value) for value in ("x", "v/0", "v/1", "v/2")}
    assert set(os.listdir(folder)) == {"manifest.json", *own}
