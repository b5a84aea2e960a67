"""Ids of our own making."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

_RANDOM_BYTES = 10


def new_id() -> str:
    """An id that nobody else makes: 32 hexadecimal digits, which begin with the millisecond.

    Later ones sort later: in an index they stand together at its end. Random ones each changed
    a page of their own, and a commit wrote all of them.
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(_RANDOM_BYTES).hex()}"


def new_ids(number: int) -> Iterator[str]:
    """So many of them, of one millisecond: the system is asked once for all that is random in them."""
    began = f"{time.time_ns() // 1_000_000:012x}"
    chance = os.urandom(number * _RANDOM_BYTES)
    return (f"{began}{chance[at : at + _RANDOM_BYTES].hex()}" for at in range(0, len(chance), _RANDOM_BYTES))
