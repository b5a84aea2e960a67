"""Headers: what a request's head says, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

Headers: TypeAlias = Mapping[str, Sequence[str]]
"""All values of each name, in order; names in lower case."""


def by_name(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Find each header once, for all who ask."""
    found: dict[str, list[str]] = {}
    for name, value in raw:
        found.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    return found
