"""refnet beside the real frameworks, each in a process of its own. Run with `pytest -m crosscheck`."""
