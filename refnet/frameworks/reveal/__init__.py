"""Asking a framework in which order it adds: `refnet reveal` (network.py), and the pieces it is made of."""
