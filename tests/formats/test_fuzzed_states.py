"""Manifests, unfinished captures, books and structure files with random damage: read, or refused by name."""

from __future__ import annotations

from tests.helpers.fuzzed_states import attack


def test_a_damaged_state_is_read_or_refused():
    """A quick slice of `python -m tests.helpers.fuzzed_states 20000`."""
    came = attack(600, seed=3)
    assert sum(came.values()) == 600
    assert came["progress refused"] > 50
    assert came["progress read"] > 5
