"""The grammar of "seed:N", which stands for synthetic weights and inputs."""

from __future__ import annotations

import re

from refnet.core.errors import InputError

SEED = "seed:"


def seed_number(text: str) -> int | None:
    """N of "seed:N" with N from 0 to 2**64 - 1; None for any other text.

    >>> seed_number("seed:17"), seed_number("seed:-1"), seed_number("net.params")
    (17, None, None)
    """
    if not re.fullmatch("seed:[0-9]{1,20}", text):
        return None
    number = int(text[len(SEED) :])
    return number if number < 1 << 64 else None


def seed_of(text: str, argument: str) -> int | None:
    """N if the text begins with "seed:", None if it is a file's name.

    argument: what the text was given for. Raises InputError for a bad N.

    >>> seed_of("seed:x", "weights")
    Traceback (most recent call last):
    refnet.core.errors.InputError: weights must be a file or seed:N with N from 0 to 2**64 - 1, got 'seed:x'
    """
    if not text.startswith(SEED):
        return None
    number = seed_number(text)
    if number is None:
        raise InputError(f"{argument} must be a file or seed:N with N from 0 to 2**64 - 1, got {text!r}")
    return number
