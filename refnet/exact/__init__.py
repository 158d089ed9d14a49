"""Correct rounding: decide it from an error bound, and refine where the bound does not decide."""
