"""The compiled loops: arrays in, array out, no graph, no op."""
