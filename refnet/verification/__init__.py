"""Captures judged value by value; golden files; differences; the trace of one element."""
