"""The networks that refnet knows by name: builders, catalog, weights, preprocessing, cost."""
