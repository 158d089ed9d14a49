"""Who computed the values of a capture, in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refnet.core.words import counted


def one_line(reference: Mapping[str, Any]) -> str:
    """Who computed the values, in one line; the build's flags, which can fill a screen, are not in it.

    >>> one_line({"framework": "torch", "version": "2.13.0", "isa": "AVX2", "threads": 1, "batch": 1})
    'torch 2.13.0, AVX2, 1 thread, batch 1'
    """
    if not reference:
        return "values from a folder without a manifest: their origin is unknown"
    name = f"{reference.get('framework') or 'unknown'} {reference.get('version') or ''}".rstrip()
    parts = [name, str(reference.get("isa") or "")]
    if threads := reference.get("threads"):
        parts.append(counted(threads, "thread"))
    if batch := reference.get("batch"):
        parts.append(f"batch {batch}")
    parts.append(str(reference.get("mode") or ""))
    return ", ".join(part for part in parts if part)
