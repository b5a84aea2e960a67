"""Garbage: Python looks for it less often while rows are worked in bulk, where there is next to none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

COLLECT_AFTER = (50_000, 20, 50)
"""Python looks after so many new objects; by default after 700, and then through all there are. That was a
tenth of a first load, and half of the 99th percentile of webhooks at 64 connections."""


@contextmanager
def collected_rarely() -> Iterator[None]:
    """Look for garbage rarely, until the block ends."""
    usual = gc.get_threshold()
    gc.set_threshold(*COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
