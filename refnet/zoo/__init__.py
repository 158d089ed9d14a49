"""The networks: builders, catalog, synthetic weights."""
