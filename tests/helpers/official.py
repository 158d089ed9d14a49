"""The symbol files of the official octave networks. They are not refnet's to ship; where they lie beside the
repository, tests compare with them, and skip that elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

SYMBOLS = Path(__file__).parents[3] / "shared" / "symbols"
ABSENT = "the official symbol files, which refnet does not ship, are not beside its repository"

needs_official = pytest.mark.skipif(not SYMBOLS.is_dir(), reason=ABSENT)
